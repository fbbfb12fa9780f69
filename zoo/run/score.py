"""Score a trained model on a corpus, its own or another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...datamodules.corruption import remembered
from ...datamodules.labels import vote_rows
from ...datamodules.manifest import Utterance
from ..core.errors import ConfigError
from ..core.notices import quiet
from ..core.progress import Bar
from ..core.speakers import cannot_tell, shared
from ..core.taxonomy import Taxonomy
from ..statistics.confidence import calibration_error, open_numbers, seen_classes
from ..statistics.priors import label_shift, read_prior
from ..statistics.speakers import measure
from ..statistics.table import PredictionTable, merge
from .board import unparsable
from .build import open_data
from .checkpoint import temperature_of
from .config import RunConfig, resolve
from .devices import first_device
from .module import SERModule
from .trained import refuse_seen

PARTS = ("test", "valid", "all")


@torch.no_grad()
def evaluate(
    path: str | Path,
    *,
    corpus: str | list[str] | None = None,
    root: str | None = None,
    manifest: str | None = None,
    taxonomy: str | None = None,
    part: str | None = None,
    options: dict[str, Any] | None = None,
    unknown_speakers: str | None = None,
    condition: str | None = None,
    noise: str | None = None,
    rir: str | None = None,
    prior: str | None = None,
    progress: bool = False,
) -> tuple[PredictionTable, dict[str, Any]]:
    """Score a trained model.

    Args:
        path: checkpoint or run folder.
        corpus: names; the training corpus by default.
        root: folder of the corpus.
        manifest: a prepared manifest instead.
        taxonomy: name; the trained one by default. A closed head takes a subset of its classes.
        part: ``test`` or ``valid`` of the run's own protocol and fold, or ``all`` utterances;
            by default ``test`` for the training corpus and ``all`` for another.
        options: keywords of the corpus' reader, where it is another than in training.
        unknown_speakers: ``refuse`` a fold over utterances without a speaker, or ``accept`` it; as
            in training by default.
        condition: corrupt the audio first: ``noise:10dB``, ``reverb``, ``telephone``, ... (see
            :mod:`serzoo.datamodules.corruption`). Frames are then computed anew, never read from a
            store.
        noise: folder of recorded noises, for ``noise``.
        rir: folder of room impulse responses, for ``reverb``.
        prior: of the classes, to which the mean probability is matched: ``uniform`` (the default)
            or a weight of every class, ``neutral:3,angry:1``.
        progress: show bars.

    Returns:
        The prediction table, and its numbers as a record holds them. The numbers also have:

        - ``metrics["votes"]`` if raters voted (:func:`.soft.soft_numbers`);
        - ``open_labels`` if the taxonomy has classes that the model never trained on
          (:func:`open_numbers`);
        - ``calibration`` (:func:`calibrated`), if two utterances are labelled;
        - ``label_shift``: plain scores beside matched ones (:func:`.priors.label_shift`);
        - ``speakers_heard``: those that it was trained or selected on, who make no test.
          ``part="all"`` of its own corpus has them among others;
        - ``speakers_unsure``: corpora for which this cannot be told, since not every speaker is
          known.
    """
    quiet()
    corpus = [corpus] if isinstance(corpus, str) else corpus
    # first, since a misspelt condition, or one without its recordings, is told at once
    corruption = None
    if condition is not None:
        corruption = remembered(condition, noise=noise, rir=rir)
    module = SERModule.load_from_checkpoint(path)
    meta = module.metadata
    cfg = RunConfig.from_dict(meta["config"])
    foreign = bool(corpus and corpus != cfg.corpus) or manifest is not None
    part = part or ("all" if foreign else "test")
    if part not in PARTS:
        raise ConfigError(f"part is '{part}'; have {', '.join(PARTS)}")
    if foreign and part != "all":
        raise ConfigError(
            f"the model was trained on {', '.join(cfg.corpus)}; its protocol has no part '{part}' "
            "of other data; use part=all"
        )
    if corruption is not None and part == "valid":
        raise ConfigError("conditions are for test audio; use part=test or part=all")
    if foreign:
        cfg.corpus = corpus or []
        cfg.data.root, cfg.data.manifest, cfg.data.options = root, manifest, {}
    elif root:
        cfg.data.root = root  # the same data, elsewhere
    cfg.data.options = options or cfg.data.options
    cfg.data.unknown_speakers = unknown_speakers or cfg.data.unknown_speakers
    cfg = resolve(cfg)
    cfg.trainer.progress = progress
    wanted = Taxonomy.load(taxonomy) if taxonomy else Taxonomy.from_dict(meta["taxonomy"])
    weights = read_prior(prior, list(wanted.classes))
    if not module.head.open_labels:
        module.head.columns(wanted)  # refuses before any audio is read
    data = open_data(cfg, wanted, text="text" in module.head.needs, everything=part == "all")
    everyone = data.speakers()
    asked = everyone["valid" if part == "valid" else "test"]
    refuse_seen(module.encoder, {"test": asked}, cfg.data.unknown_speakers)
    if corruption is not None:
        data.datasets["test"].corrupt(corruption)
        data.workers = 0  # in this process, which counts and remembers what it did
    loader = data.val_dataloader() if part == "valid" else data.test_dataloader()
    module.to(first_device())
    table = score(module, loader, wanted, progress=progress)
    table = with_votes(table, data.datasets["valid" if part == "valid" else "test"], wanted)
    numbers = measure(table)
    numbers["metrics"] |= unparsable(module.head, table, wanted)
    numbers["label_shift"] = label_shift(table, prior=weights)
    if table.labelled.sum() > 1:
        uniform = RunConfig.from_dict(meta["config"]).data.balance
        numbers["calibration"] = calibrated(table, temperature_of(path), uniform=uniform)
    trained = Taxonomy.from_dict(meta["taxonomy"])
    if set(seen_classes(trained, wanted)) != set(wanted.classes):
        numbers["open_labels"] = open_numbers(table, trained, wanted)
    own = meta.get("speakers") or {}
    heard = {*own.get("train", ()), *(own.get("valid", ()) if part == "all" else ())}
    numbers["speakers_heard"] = shared(heard, asked)
    numbers["speakers_unsure"] = cannot_tell(heard, asked)
    trained_on = meta["config"]
    numbers["model"] = {
        "fingerprint": meta.get("fingerprint"),
        **{k: trained_on[k] for k in ("corpus", "protocol", "fold", "seed", "head")},
        "taxonomy": meta["taxonomy"],
    }
    numbers["data"] = {
        "corpora": sorted({u.corpus for u in data.speech.utterances}),
        "part": part,
        "manifest": data.speech.sha,
        "taxonomy": wanted.to_dict(),
        "counts": data.counts(),
        "notes": data.speech.notes,
        "unknown_speakers": cfg.data.unknown_speakers,
    }
    if corruption is not None:
        numbers["condition"] = corruption.describe()
    return table, numbers


def score(
    module: SERModule, loader: Any, taxonomy: Taxonomy, *, progress: bool = False
) -> PredictionTable:
    """The prediction table of a loader's batches, on the module's device.

    Args:
        module: on its device; in any mode, which it keeps.
        loader: of batches whose targets are over ``taxonomy``.
        taxonomy: what is asked.
        progress: show a bar.
    """
    device = next(module.parameters()).device
    tables = []
    with Bar("scoring", len(loader), shown=progress) as bar:
        for batch in loader:
            tables.append(module.score(batch.to(device), taxonomy))
            bar.advance()
    return merge(tables)


def calibrated(
    table: PredictionTable, temperature: float | None, *, uniform: bool
) -> dict[str, Any]:
    """The calibration error without its bias, and for which class prior the probabilities are.

    Args:
        table: with two labelled utterances or more.
        temperature: that the run fitted on its validation part; None if it has none.
        uniform: whether training weighed all classes alike.

    Returns:
        ``error``, its ``interval`` or None, a ``note`` (why there is none), ``temperature`` and
        ``prior``: ``uniform`` or ``training``.
    """
    scaled = replace(table, scores=table.scores / (temperature or 1.0))
    found = calibration_error([scaled])
    return {
        "error": found.value,
        "interval": None if found.note else [found.low, found.high],
        "note": found.note,
        "temperature": temperature,
        "prior": "uniform" if uniform else "training",
    }


def with_votes(table: PredictionTable, data: Any, taxonomy: Taxonomy) -> PredictionTable:
    """The table with the votes of the raters, where the manifest has any for these classes.

    Args:
        table: of the utterances of ``data``.
        data: the dataset that was scored.
        taxonomy: of the table.
    """
    utterances: list[Utterance] = data.utterances
    rows = vote_rows(utterances, taxonomy)
    if rows is None:
        return table
    at = {u.id: i for i, u in enumerate(utterances)}
    return replace(table, votes=rows[[at[name] for name in table.ids]])
