"""What a checkpoint leaves out, what it must hold, and how a model comes back from one."""

from __future__ import annotations

import errno
import inspect
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint as LightningModelCheckpoint
from torch import Tensor

from ..core import registry
from ..core.encoder import Encoder
from ..core.errors import CheckpointError, ConfigError, DamagedError, DataWarning, first_line
from ..core.files import new_file
from ..core.head import Head
from ..core.taxonomy import Taxonomy
from ..core.weights import FORMAT, check_keys, check_published, published_parts, strip_frozen
from .config import OptimConfig, RunConfig
from .record import read_record

if TYPE_CHECKING:
    from .module import SERModule

KINDS: dict[str, registry.Kind] = {"encoder": "encoders", "head": "heads"}
OPTIONS = ("lr", "head_lr", "mix_lr", "weight_decay", "warmup", "schedule", "mixup", "ema")
"""Options of the module's constructor: those of ``optim`` that are not the trainer's."""

BROKEN = (None, errno.EINVAL)
"""System errors that a damaged file makes a reader run into."""


def copied(module: SERModule) -> dict[str, Tensor]:
    """A copy of all weights that a model saves."""
    kept = strip_frozen(module.state_dict(), module.frozen_keys())
    return {k: v.detach().cpu().clone() for k, v in kept.items()}


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content: tensors and plain containers only, nothing is executed.

    Raises:
        CheckpointError: when the file is missing, or is not serzoo's.
        DamagedError: when it is damaged, or holds code.
        OSError: when the system does not let it be read.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at {path}; give a .ckpt file, or a run's folder with "
            "checkpoints/best.ckpt, or a folder that `serzoo save` wrote, or its hub id"
        )
    try:
        _check_whole(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        if isinstance(e, MemoryError) or (isinstance(e, OSError) and e.errno not in BROKEN):
            raise  # the file may be whole
        reason = first_line(e).partition(". ")[0]
        raise DamagedError(
            f"cannot read {path}: {reason[:200]}; it is damaged, or holds more than tensors and "
            "plain containers, which serzoo does not load: fetch it again, or train again (remove "
            "the run's record.json first)"
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
    """Refuse a file that is not what was written: torch itself looks at no checksum."""
    if path.stat().st_size == 0:
        raise EOFError("it has 0 bytes")
    if zipfile.is_zipfile(path):  # anything else torch takes for an old format, and refuses
        with zipfile.ZipFile(path) as file:
            if (part := file.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of its part {part} is wrong")


def newest(folder: Path, *, aside: bool) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that a run goes on from: that of its last epoch, else of its best.

    What cannot be used is told, and not lost. All processes of a run come to the same, in any
    order: a file that another has put aside is as good as a damaged one.

    Args:
        folder: of the run's checkpoints.
        aside: rename files that cannot be used to ``<name>.kept``; for one process of the run.

    Returns:
        Its path and content; None = the run begins at its beginning: no epoch has ended, or the
        best epoch, which would be selected in the end, cannot be read.
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
    """Whether a run had a best epoch when this was written."""
    states = content.get("callbacks", {}).values()
    return any(isinstance(s, dict) and s.get("best_model_score") is not None for s in states)


class ModelCheckpoint(LightningModelCheckpoint):
    """Lightning's, which knows what it kept in a folder of another name, too: runs are moved.

    It has Lightning's name, under which its state lies in a checkpoint.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Paths of the state are looked for where the files are now."""
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return str(Path(folder, Path(path).name)) if path else path

        paths = {k: here(v) for k, v in state_dict.items() if k.endswith("_path")}
        kept = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        moved = {**state_dict, **paths, "dirpath": folder, "best_k_models": kept}
        super().load_state_dict(moved)


class WholeFiles(TorchCheckpointIO):
    """Lightning's way to write a checkpoint, by which a file is whole or as before.

    Lightning's own writes to a temporary folder and moves the file over, which is a copy where the
    two are on different disks.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write beside the target and rename.

        Raises:
            OSError: when it cannot be written; the target is as before.
        """
        with new_file(Path(path)) as draft, draft.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch hides what the system said
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
            file.flush()
            os.fsync(file.fileno())  # on the disk before it has its name


def rebuild(
    meta: Mapping[str, Any], path: str | Path, base: str | None = None, **made: Any
) -> SERModule:
    """The model that a checkpoint's metadata describes, with what is published but not trained.

    Args:
        meta: what :func:`serzoo.zoo.run.train.train` gives a module as metadata.
        path: where it was found, for messages.
        base: the published encoder's folder or hub id, instead of its name in the configuration.
        made: as for :func:`.published.load`.

    Raises:
        CheckpointError: when something is missing, the order of classes was changed, or the
            published weights are not those that the model was trained on.
    """
    from .config import RunConfig

    lacking = [k for k in ("config", "taxonomy", "taxonomy_fingerprint") if k not in meta]
    if lacking:
        raise CheckpointError(
            f"{path} does not say how to build its model (no {', '.join(lacking)}); only what "
            "`serzoo train` wrote can be loaded by itself: build the module and use restore()"
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
            f"trained with {meta['taxonomy_fingerprint']}: classes or their order were changed"
        )
    config = dict(meta["config"])
    if changed := {key: made.pop(key) for key in OPTIONS if key in made}:
        config["optim"] = {**config.get("optim", {}), **changed}  # and so it is saved again
        meta = {**meta, "config": config}
    cfg = RunConfig.from_dict(config)
    if base is not None:
        if "name" not in cfg.encoder:
            raise CheckpointError(
                f"{path} has an encoder '{cfg.encoder.get('type')}', which stands on nothing "
                f"published; leave base='{base}' out"
            )
        cfg.encoder |= {"name": base} | ({"revision": None} if "revision" in cfg.encoder else {})
    elif commit := meta.get("published", {}).get("encoder", {}).get("commit"):
        cfg.encoder["revision"] = commit  # a branch may have moved since
    first = meta.get("widened_from")  # an adapted model's head was made for fewer classes
    made_for = Taxonomy.from_dict(first) if first else taxonomy
    module = construct(cfg, made_for, {k: v for k, v in meta.items() if k != "format"}, **made)
    module.head.widen(taxonomy)
    check_published(meta.get("published", {}), published_parts(module), str(path))
    return module


def _refuse_unknown(config: Mapping[str, Any], path: str | Path, made: Mapping[str, Any]) -> None:
    """Refuse a model with a part of its author's own that nobody gave; tell of another version."""
    own = config.get("own") or {}
    given = [part for part in KINDS if part in own and made.get(part) is None]
    lacking = [p for p in given if config[p].get("type") not in registry.names(KINDS[p])]
    if lacking:
        said = "; ".join(f"its {p} is {own[p].partition('@')[0]}" for p in lacking)
        example = ", ".join(f"{p}={own[p].rpartition(':')[2].partition('@')[0]}" for p in lacking)
        raise CheckpointError(
            f"{path}: {said}, a file of its author's own, and serzoo imports no code for a model; "
            f"give the class: serzoo.zoo.load({str(path)!r}, {example}), or --part "
            "FILE.py:NAME on the command line"
        )
    for part in given:
        here = registry.added(KINDS[part], config[part]["type"])
        if here is not None and here.sha != own[part].rpartition("@")[2]:
            warnings.warn(
                f"{path}: its {part} was trained with another version of {Path(here.where).name}; "
                "what it scores may differ from its record",
                DataWarning,
                stacklevel=2,
            )


def temperature_of(path: str | Path) -> float | None:
    """The temperature that a run fitted on validation for its best checkpoint.

    Args:
        path: the run's folder, or its ``checkpoints/best.ckpt``.

    Returns:
        None for any other checkpoint, and where the run has not ended.
    """
    path = Path(path)
    if path.is_file():
        if (path.parent.name, path.name) != ("checkpoints", "best.ckpt"):
            return None
        path = path.parent.parent
    found = read_record(path)
    return None if found is None else found.temperature


def restore(module: SERModule, content: Mapping[str, Any]) -> None:
    """Give a module the weights that were selected: the averaged ones, if there are any.

    Raises:
        CheckpointError: when they are not exactly what the module saves.
    """
    weights = content.get("ema") or content["state_dict"]
    check_keys(weights, module.state_dict(), module.frozen_keys())
    if module.average is not None:
        module.average.restart()  # those of its last step are not what was selected
    if not any(hasattr(p, "full_tensor") for p in module.parameters()):
        module.load_state_dict(weights, strict=False)
        return
    # weights that are shared out over processes
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
    """The encoder, the head and their module.

    Both are built from the run's seed, each on its own, so that every head of a comparison starts
    from the very same encoder.

    Args:
        cfg: the run.
        taxonomy: the head's classes.
        metadata: of the module; how it is built, by default.
        kind: class of the module.
        encoder: instead of the configured one; its class is built with the configured options.
        head: the same.
        options: of its constructor, instead of the configured ones.
    """
    if not isinstance(encoder, Encoder):
        make, own = _class_of("encoder", encoder, cfg.encoder)
        torch.manual_seed(cfg.seed)
        encoder = cast(Encoder, make(**own))
    if not isinstance(head, Head):
        make, own = _class_of("head", head, cfg.head)
        torch.manual_seed(cfg.seed + 1)
        head = cast(Head, make(encoder.dim, taxonomy, **own))
    how = {key: getattr(cfg.optim, key) for key in OPTIONS} | {"seed": cfg.seed}
    return kind(
        encoder, head, **{**how, "metadata": metadata or how_built(cfg, taxonomy), **options}
    )


def _class_of(
    part: str, given: Any, node: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The class of a part and its options; of a given class, those that were configured for it."""
    options = {k: v for k, v in node.items() if k != "type"}
    if given is None:
        return registry.get(KINDS[part], node["type"]), options
    what = f"the {part} {given.__name__}"
    return given, registry.check_knobs(what, registry.schema_of(given), options)


def how_built(cfg: RunConfig, taxonomy: Taxonomy) -> dict[str, Any]:
    """What a checkpoint says of its model, so that it can be built again."""
    return {
        "config": cfg.to_dict(),
        "head": dict(cfg.head),
        "head_name": cfg.called,
        "taxonomy": taxonomy.to_dict(),
        "taxonomy_fingerprint": taxonomy.fingerprint,
    }


def described(module: SERModule) -> dict[str, Any]:
    """:func:`how_built` of a module that was put together in Python, by hand.

    Its parts are told by their registered names and the options that they were made with. ``own``
    tells of those that have no name: whoever loads the model has to build them.
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
        except ConfigError as error:  # objects, where a configuration has text and numbers
            own[part] = f"made with options that no configuration holds ({error})"
        nodes[part] = {"type": type(made).__name__}
    head, average = module.head, module.average
    how = {key: getattr(module, key) for key in OPTIONS if key != "ema"}
    optim = OptimConfig(**how, ema=average.decay if average is not None else 0.0)
    cfg = RunConfig(encoder=nodes["encoder"], head=nodes["head"], optim=optim, seed=module.seed)
    known = {part: registry.added(kind, nodes[part]["type"]) for part, kind in KINDS.items()}
    cfg.own = {part: added.origin for part, added in known.items() if added and part not in own}
    told = how_built(cfg, head.taxonomy) | ({"own": own} if own else {})
    arguments, keywords = head.made_with
    first = inspect.signature(type(head)).bind(*arguments, **keywords).arguments.get("taxonomy")
    if isinstance(first, Taxonomy) and first != head.taxonomy:  # it was widened
        told["widened_from"] = first.to_dict()
    return told
