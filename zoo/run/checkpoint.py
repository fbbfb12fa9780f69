"""Checkpoints: how they are written, checked and read, and how a model is built from one."""

from __future__ import annotations

import errno
import inspect
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint as LightningModelCheckpoint
from torch import Tensor

from ..core import registry
from ..core.encoder import Encoder
from ..core.errors import (
    CheckpointError,
    ConfigError,
    DamagedError,
    DataWarning,
    SerzooError,
    cut,
    first_line,
    system_error,
)
from ..core.files import new_file
from ..core.head import Head
from ..core.taxonomy import Taxonomy
from ..core.weights import FORMAT, check_keys, check_published, published_parts, strip_frozen
from .record import read_record
from .schema import OptimConfig, RunConfig

if TYPE_CHECKING:
    from .module import SERModule

KINDS: dict[str, registry.Kind] = {"encoder": "encoders", "head": "heads"}
OPTIONS = ("lr", "head_lr", "mix_lr", "weight_decay", "warmup", "schedule", "mixup", "ema")
"""Keys of ``optim`` that the module's constructor takes. The trainer takes the others."""

BROKEN = (None, errno.EINVAL)
"""Error numbers of the system that mean a damaged file, and not a failing disk."""


def copied(module: SERModule) -> dict[str, Tensor]:
    """Return a copy, on the CPU, of all weights that a model saves."""
    kept = strip_frozen(module.state_dict(), module.frozen_keys())
    return {k: v.detach().cpu().clone() for k, v in kept.items()}


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain containers only, so that no code is run.

    Args:
        path: a ``.ckpt`` file, or a run's folder.

    Raises:
        CheckpointError: if the file is missing, or is not serzoo's.
        DamagedError: if it is damaged, or holds code.
        OSError: if the system cannot read it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at {path}; give a .ckpt file, a run's folder with "
            "checkpoints/best.ckpt, a folder of `serzoo save`, or its hub id"
        )
    try:
        _check_whole(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        if isinstance(e, MemoryError) or (isinstance(e, OSError) and e.errno not in BROKEN):
            raise  # the file itself may be whole
        reason = first_line(e).partition(". ")[0]
        raise DamagedError(
            f"cannot read {path}: {cut(reason, 200)}; it is damaged, or holds more than the "
            "tensors and plain containers that serzoo loads: fetch it again, or train again "
            "(remove the run's record.json first)"
        ) from e
    if not isinstance(content, dict) or "serzoo" not in content:
        raise CheckpointError(
            f"{path} was not written by serzoo; train a model with `serzoo train`"
        )
    meta = content["serzoo"]
    found = meta.get("format") if isinstance(meta, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has format {found!r}, this serzoo reads {FORMAT}; install the serzoo that "
            "wrote it, or train again"
        )
    return content


def _check_whole(path: Path) -> None:
    """Refuse a file whose checksums are wrong, since torch does not check them."""
    if path.stat().st_size == 0:
        raise EOFError("it has 0 bytes")
    if zipfile.is_zipfile(path):  # torch refuses anything else
        with zipfile.ZipFile(path) as file:
            if (part := file.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of its part {part} is wrong")


def newest(folder: Path, *, aside: bool) -> tuple[Path, dict[str, Any]] | None:
    """Return the checkpoint that a run goes on from: that of its last epoch, else of its best.

    A file that cannot be used is kept, and a warning names it. All processes of a run find the
    same, in any order. A file that another process has put aside counts as damaged.

    Args:
        folder: folder of the run's checkpoints.
        aside: rename files that cannot be used to ``<name>.kept``; True in one process of the run.

    Returns:
        Path and content. None if the run has to start again: no epoch has ended, or the best epoch
        cannot be read. The latter might be selected in the end.

    Raises:
        CheckpointError: if a file is not serzoo's.
    """
    found: dict[str, dict[str, Any]] = {}
    useless: dict[str, str] = {}
    for name in ("last.ckpt", "best.ckpt"):
        try:
            found[name] = read(folder / name)
        except DamagedError as error:
            useless[name] = str(error)
        except CheckpointError:
            if (folder / name).is_file():
                raise
    if "best.ckpt" not in found and _selected(found.get("last.ckpt", {})):
        useless["last.ckpt"] = f"{folder / 'last.ckpt'} is of no use without its best.ckpt"
        del found["last.ckpt"]
    name = next(iter(found), "")
    on = f"goes on from {name}, epoch {found[name]['epoch']}" if found else "starts again"
    for old, why in useless.items():
        if aside and (folder / old).is_file():
            (folder / old).replace(folder / f"{old}.kept")
        warnings.warn(
            f"{why}. The run {on}; the file is kept as {old}.kept", DataWarning, stacklevel=2
        )
    return (folder / name, found[name]) if found else None


def _selected(content: Mapping[str, Any]) -> bool:
    """Return whether the run had a best epoch when this checkpoint was written."""
    states = content.get("callbacks", {}).values()
    return any(isinstance(s, dict) and s.get("best_model_score") is not None for s in states)


class ModelCheckpoint(LightningModelCheckpoint):
    """Lightning's callback, which also finds its files after the run's folder was moved.

    Its class has Lightning's name, since a checkpoint holds its state under that name.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state, with paths in the folder where the files are now."""
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return str(Path(folder, Path(path).name)) if path else path

        paths = {k: here(v) for k, v in state_dict.items() if k.endswith("_path")}
        kept = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        moved = {**state_dict, **paths, "dirpath": folder, "best_k_models": kept}
        super().load_state_dict(moved)


class WholeFiles(TorchCheckpointIO):
    """Write checkpoints so that a file is whole, or stays as it was.

    Lightning writes to a temporary folder and moves the file. If that folder is on another disk,
    the move is a copy, which can be interrupted.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a file beside the target, and rename it.

        Raises:
            OSError: if it cannot be written; the target stays as it was.
        """
        # it must be on the disk before it replaces the last one
        with new_file(Path(path), sync=True) as draft, draft.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch hides the system's error in this one
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


def rebuild(
    meta: Mapping[str, Any], path: str | Path, base: str | None = None, **made: Any
) -> SERModule:
    """Build the model that a checkpoint's metadata describes; its trained weights are not loaded.

    Args:
        meta: the metadata; see :func:`how_built`.
        path: path of the checkpoint, for errors.
        base: folder or hub id of the published encoder, instead of its configured name.
        made: as for :func:`.published.load`.

    Raises:
        ConfigError: if ``answering`` names an option that training used, or a wrong value.
        CheckpointError: if something is missing, or the order of the classes has changed. Also
            if the published weights are not those of the training.
    """
    lacking = [k for k in ("config", "taxonomy", "taxonomy_fingerprint") if k not in meta]
    if lacking:
        raise CheckpointError(
            f"{path} does not say how to build its model (no {', '.join(lacking)}); only a file of "
            "`serzoo train` does: build the module yourself and use restore()"
        )
    own: Mapping[str, str] = meta.get("own") or {}
    if unknown := [part for part in own if made.get(part) is None]:
        raise CheckpointError(
            f"{path}: "
            + "; ".join(f"its {part} is {own[part]}" for part in unknown)
            + ", which serzoo cannot build by a registered name; build it as it was trained and "
            f"pass it: SERModule.load_from_checkpoint({str(path)!r}, "
            + ", ".join(f"{part}=..." for part in unknown)
            + ")"
        )
    _refuse_unknown(meta["config"], path, made)
    taxonomy = Taxonomy.from_dict(meta["taxonomy"])
    if taxonomy.fingerprint != meta["taxonomy_fingerprint"]:
        raise CheckpointError(
            f"{path}: its taxonomy has fingerprint {taxonomy.fingerprint}, but the model was "
            f"trained with {meta['taxonomy_fingerprint']}: "
            "classes or their order were changed; fetch it again, or train again"
        )
    config = dict(meta["config"])
    if changed := {key: made.pop(key) for key in OPTIONS if key in made}:
        config["optim"] = {**config.get("optim", {}), **changed}  # saved with the next checkpoint
        meta = {**meta, "config": config}
    cfg = RunConfig.from_dict(config)
    if answering := made.pop("answering", None):
        cfg.head = answering_with(cfg.head, answering)
        meta = {**meta, "config": cfg.to_dict()}
    if base is not None:
        if "name" not in cfg.encoder:
            raise CheckpointError(
                f"{path} has an encoder '{cfg.encoder.get('type')}', which uses no published "
                f"encoder; leave base='{base}' out"
            )
        cfg.encoder |= {"name": base} | ({"revision": None} if "revision" in cfg.encoder else {})
    elif commit := meta.get("published", {}).get("encoder", {}).get("commit"):
        cfg.encoder["revision"] = commit  # a branch may have moved since
    first = meta.get("widened_from")  # an adapted head was made for fewer classes
    made_for = Taxonomy.from_dict(first) if first else taxonomy
    module = construct(cfg, made_for, {k: v for k, v in meta.items() if k != "format"}, **made)
    module.head.widen(taxonomy)
    check_published(meta.get("published", {}), published_parts(module), str(path))
    return module


def answering_with(head: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trained head's options with others to answer with.

    Args:
        head: the options of its training, with its ``type``.
        changed: options of :attr:`.Head.at_evaluation`.

    Raises:
        ConfigError: if training used one of them, or a value is wrong.
    """
    kind = str(head["type"])
    free = registry.get("heads", kind).at_evaluation
    if fixed := [f"head.{key}" for key in changed if key not in free]:
        have = ", ".join(f"head.{key}" for key in free) or "none"
        raise ConfigError(
            f"{', '.join(fixed)} cannot be changed after training; head '{kind}' has {have}; for "
            "other options train again"
        )
    options = {key: value for key, value in head.items() if key != "type"} | dict(changed)
    return {"type": kind, **registry.check_options("heads", kind, options)}


def _refuse_unknown(config: Mapping[str, Any], path: str | Path, made: Mapping[str, Any]) -> None:
    """Refuse a model whose author's own part was not given; warn if its file has changed."""
    own = config.get("own") or {}
    given = [part for part in KINDS if part in own and made.get(part) is None]
    lacking = [p for p in given if config[p].get("type") not in registry.names(KINDS[p])]
    if lacking:
        said = "; ".join(f"its {p} is {own[p].partition('@')[0]}" for p in lacking)
        example = ", ".join(f"{p}={own[p].rpartition(':')[2].partition('@')[0]}" for p in lacking)
        raise CheckpointError(
            f"{path}: {said}, its author's own file, and serzoo imports no code for a model; "
            f"give the class: serzoo.zoo.load({str(path)!r}, {example}), or --part "
            "FILE.py:NAME on the command line"
        )
    for part in given:
        here = registry.added(KINDS[part], config[part]["type"])
        if here is not None and here.sha != own[part].rpartition("@")[2]:
            warnings.warn(
                f"{path}: its {part} was trained with another version of {Path(here.where).name}; "
                "its scores may differ from those of its record",
                DataWarning,
                stacklevel=2,
            )


def temperature_of(path: str | Path) -> float | None:
    """Return the temperature that a run fitted on validation for its best checkpoint.

    Args:
        path: the run's folder, or its ``checkpoints/best.ckpt``.

    Returns:
        The temperature; None for any other checkpoint, or if the run has not ended.
    """
    path = Path(path)
    if path.is_file():
        if (path.parent.name, path.name) != ("checkpoints", "best.ckpt"):
            return None
        path = path.parent.parent
    found = read_record(path)
    return None if found is None else found.temperature


def restore(module: SERModule, content: Mapping[str, Any]) -> None:
    """Load the selected weights into a module: the averaged ones, if there are any.

    Args:
        module: built as in the training.
        content: content of a checkpoint; see :func:`read`.

    Raises:
        CheckpointError: if their keys or shapes differ from those that the module saves.
    """
    weights = content.get("ema") or content["state_dict"]
    check_keys(weights, module.state_dict(), module.frozen_keys())
    if module.average is not None:
        module.average.restart()  # it holds the weights of the last step, not the selected ones
    if not any(hasattr(p, "full_tensor") for p in module.parameters()):
        module.load_state_dict(weights, strict=False)
        return
    # the processes share the weights
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    whole = StateDictOptions(full_state_dict=True, strict=False)
    set_model_state_dict(module, dict(weights), options=whole)


def construct(
    cfg: RunConfig,
    taxonomy: Taxonomy,
    metadata: dict[str, Any] | None = None,
    *,
    kind: type[SERModule],
    encoder: Encoder | type[Encoder] | None = None,
    head: Head | type[Head] | None = None,
    **options: Any,
) -> SERModule:
    """Build the encoder, the head and their module.

    Encoder and head are each built from the run's seed. So every head of a comparison starts from
    the same encoder.

    Args:
        cfg: the run.
        taxonomy: the head's classes.
        metadata: metadata of the module; by default :func:`how_built`.
        kind: class of the module.
        encoder: used instead of the configured one; a class is built with the configured options.
        head: the same for the head.
        options: options of the module's constructor, instead of the configured ones.

    Raises:
        ConfigError: if a class does not take the configured options, or cannot be built with them.
    """
    if not isinstance(encoder, Encoder):
        make, own = _class_of("encoder", encoder, cfg.encoder)
        torch.manual_seed(cfg.seed)
        with _named("encoder", cfg.encoder, own):
            encoder = cast(Encoder, make(**own))
    if cfg.utterance is not None and encoder.utterance is None:
        encoder.utterance = cast(Encoder, registry.get("encoders", cfg.utterance)())
    if not isinstance(head, Head):
        make, own = _class_of("head", head, cfg.head)
        torch.manual_seed(cfg.seed + 1)
        with _named("head", cfg.head, own):
            head = cast(Head, make(encoder.dim, taxonomy, **own))
        if encoder.utterance is not None:
            head.read_utterance(encoder.utterance.dim)
    how = {key: getattr(cfg.optim, key) for key in OPTIONS} | {"seed": cfg.seed}
    how |= {"standardise": cfg.data.standardise == "auto", "normalise": cfg.data.normalise}
    return kind(
        encoder, head, **{**how, "metadata": metadata or how_built(cfg, taxonomy), **options}
    )


@contextmanager
def _named(part: str, node: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[None]:
    """Context in which an error of PyTorch about a part's numbers names the part and its options.

    If all options have their defaults, the error stays as it is: it is a fault of the code.
    """
    try:
        yield
    except (ValueError, RuntimeError, ArithmeticError) as e:
        kind = KINDS[part]
        usual = registry.complete(kind, node["type"], {})
        changed = [f"{part}.{k}={v}" for k, v in options.items() if usual.get(k, v) != v]
        if isinstance(e, SerzooError) or system_error(e) is not None or not changed:
            raise
        raise ConfigError(
            f"{part} '{node['type']}' cannot be built with {', '.join(changed)} "
            f"({type(e).__name__}: {first_line(e)}); change one of these (--verbose shows where in "
            "the code it failed)"
        ) from e


def _class_of(
    part: str, given: Any, node: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the class of a part, which may be given, and its configured options."""
    options = {k: v for k, v in node.items() if k != "type"}
    if given is None:
        return registry.get(KINDS[part], node["type"]), options
    what = f"the {part} {given.__name__}"
    return given, registry.check_knobs(what, registry.schema_of(given), options)


def how_built(cfg: RunConfig, taxonomy: Taxonomy) -> dict[str, Any]:
    """Return the metadata of a checkpoint by which its model can be built again."""
    return {
        "config": cfg.to_dict(),
        "head": dict(cfg.head),
        "head_name": cfg.called,
        "taxonomy": taxonomy.to_dict(),
        "taxonomy_fingerprint": taxonomy.fingerprint,
    }


def described(module: SERModule) -> dict[str, Any]:
    """Return :func:`how_built` for a module that was put together in Python.

    It holds the registered names of the parts, and the options that they were made with. Parts
    without a name are under ``own``: whoever loads the model has to build them.
    """
    own = {}
    nodes: dict[str, dict[str, Any]] = {}
    for part, kind in KINDS.items():
        made = getattr(module, part)
        name, knobs = registry.name_of(kind, made), registry.schema_of(type(made))
        options = {k: v for k, v in made.made_with[1].items() if k in knobs}
        try:
            if name is not None:
                registry.check_options(kind, name, options)
                nodes[part] = {"type": name, **registry.complete(kind, name, options)}
                continue
            own[part] = f"{type(made).__module__}.{type(made).__qualname__}"
        except ConfigError as error:  # options may be objects, which no configuration holds
            own[part] = f"made with options that no configuration holds ({error})"
        nodes[part] = {"type": type(made).__name__}
    head, average = module.head, module.average
    how = {key: getattr(module, key) for key in OPTIONS if key != "ema"}
    optim = OptimConfig(**how, ema=average.decay if average is not None else 0.0)
    cfg = RunConfig(encoder=nodes["encoder"], head=nodes["head"], optim=optim, seed=module.seed)
    if module.normaliser is not None:
        cfg.data.normalise = module.normaliser.way
    if (beside := module.encoder.utterance) is not None:
        cfg.utterance = registry.name_of("encoders", beside)
        if cfg.utterance is None:
            raise ConfigError(
                f"encoder.utterance is a {type(beside).__name__}, which has no registered name, so "
                "no checkpoint could say how to build it; register it (serzoo.zoo.register)"
            )
    known = {part: registry.added(kind, nodes[part]["type"]) for part, kind in KINDS.items()}
    cfg.own = {part: added.origin for part, added in known.items() if added and part not in own}
    found = how_built(cfg, head.taxonomy) | ({"own": own} if own else {})
    arguments, keywords = head.made_with
    first = inspect.signature(type(head)).bind(*arguments, **keywords).arguments.get("taxonomy")
    if isinstance(first, Taxonomy) and first != head.taxonomy:  # it was widened
        found["widened_from"] = first.to_dict()
    return found
