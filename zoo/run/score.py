"""Score a trained model on a corpus, its own or another."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...datamodules.corruption import Corruption, remembered
from ...datamodules.dataset import SpeechDataset
from ...datamodules.features import HeldFrames, load_wave, pad_waves
from ...datamodules.labels import vote_rows
from ...datamodules.manifest import Utterance
from ...datamodules.store import digest
from ..core import own
from ..core.encoder import Encoder
from ..core.errors import ConfigError
from ..core.notices import quiet, tell
from ..core.progress import Bar
from ..core.speakers import cannot_tell, shared
from ..core.taxonomy import Taxonomy
from ..core.types import Batch, Targets, first_device
from ..statistics.confidence import calibration_error, open_numbers, seen_classes
from ..statistics.priors import label_shift, read_prior
from ..statistics.speakers import measure
from ..statistics.table import PredictionTable, merge
from . import published
from .board import unparsable
from .build import open_data
from .checkpoint import temperature_of
from .config import resolve
from .module import SERModule, evaluating
from .record import EvalRecord, environment, evaluation
from .schema import RunConfig
from .spent import Tally, Used, flops, processor_seconds
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
    answering: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> tuple[PredictionTable, EvalRecord]:
    """Score a trained model.

    Args:
        path: a run's folder, a ``.ckpt`` file, or a saved folder.
        corpus: names of corpora; by default those of the training.
        root: folder of the corpus.
        manifest: a prepared manifest instead of corpora.
        taxonomy: name; by default that of the training. A closed head takes a subset of its
            classes.
        part: ``test`` or ``valid`` of the run's own protocol and fold, or ``all`` utterances.
            The default is ``test`` for the training corpus, and ``all`` for another.
        options: keywords of the corpus' reader, if they differ from those of the training.
        unknown_speakers: ``refuse`` or ``accept`` utterances without a speaker; as in training by
            default.
        condition: corrupt the audio first: ``noise:10dB``, ``reverb``, ``telephone``, ... (see
            :mod:`serzoo.datamodules.corruption`). If the encoder allows it, frames of clean audio
            are read from the store. Those of corrupted audio stay in memory, for the next model
            of this process.
        noise: folder of recorded noises, for ``noise``.
        rir: folder of room impulse responses, for ``reverb``.
        prior: class probabilities that the mean prediction is matched to: ``uniform`` (the
            default), or a weight of every class, ``neutral:3,angry:1``.
        answering: options of the head instead of those of its training, such as
            ``{"lm_weight": 0.5}`` or ``{"steps": 4}``; those of :attr:`.Head.at_evaluation`. The
            temperature of validation is not used then, because it is for the trained options.
        progress: show bars.

    Returns:
        The prediction table and the record of the evaluation.

    Raises:
        ConfigError: if an argument is none of the above, or the model cannot answer over the
            taxonomy.
        DataError: if the speech cannot be scored, or is what the encoder was trained on.
    """
    quiet()
    corpus = [corpus] if isinstance(corpus, str) else corpus
    # first, so that a misspelt condition or missing recordings raise at once
    corruption = None
    if condition is not None:
        corruption = remembered(condition, noise=noise, rir=rir)
    module = published.load(path, kind=SERModule, answering=answering)
    meta = module.metadata
    if answering:
        module.head.check_trained()
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
    cfg.trainer.progress, cfg.data.corrupted_copies = progress, 0  # nothing is trained
    wanted = Taxonomy.load(taxonomy) if taxonomy else Taxonomy.from_dict(meta["taxonomy"])
    weights = read_prior(prior, list(wanted.classes))
    if not module.head.open_labels:
        module.head.columns(wanted)  # refuses before any audio is read
    data = open_data(cfg, wanted, text="text" in module.head.needs, everything=part == "all")
    everyone = data.speakers()
    asked = everyone["valid" if part == "valid" else "test"]
    refuse_seen(module.encoder, {"test": asked}, cfg.data.unknown_speakers)
    device = first_device()
    tally, began, used = Tally(), time.perf_counter(), Used.now()  # encoding is part of the cost
    clean = corruption is None or corruption.condition.kind == "clean"
    if clean and module.encoder.storable and cfg.data.features != "live":
        read = ["valid" if part == "valid" else "test"]
        data.store_features(module.encoder, parts=read, device=device, progress=progress)
        if corruption is not None:
            corruption.counts["utterances"] = len(data.datasets["test"])
    elif corruption is not None:
        data.datasets["test"].corrupt(corruption)
        data.workers = 0  # in this process, which counts and remembers what it did
        if module.encoder.storable and cfg.data.features != "live":
            hold_frames(module.encoder, data.datasets["test"], corruption, device, progress)
    loader = data.val_dataloader() if part == "valid" else data.test_dataloader()
    module.to(device)
    if module.normaliser is not None:
        module.enrol(data.whole("valid" if part == "valid" else "test"))
        if corruption is not None and data.datasets["test"].store is None:
            corruption.counts = Counter(dict.fromkeys(corruption.counts, 0))  # read again below
    table = score(module, loader, wanted, progress=progress, tally=tally)
    lap = used, Used.now()
    spent = {
        "seconds": {"evaluate": round(time.perf_counter() - began, 2)},
        "processor_seconds": {"evaluate": processor_seconds(lap, {})["total"]},
        "flops": flops(None, tally, 0),
    }
    scored = data.datasets["valid" if part == "valid" else "test"]
    if scored.store is not None and "scoring" in spent["flops"]:
        spent["flops"]["scoring"] += _encoding_flops(module, scored)
    table = with_votes(table, data.datasets["valid" if part == "valid" else "test"], wanted)
    numbers = measure(table) | spent
    numbers["metrics"] |= unparsable(module.head, table, wanted)
    if table.labelled.sum() > 1:
        uniform = RunConfig.from_dict(meta["config"]).data.balance
        temperature = None if answering else temperature_of(path)
        numbers["calibration"] = calibrated(table, temperature, uniform=uniform)
    trained = Taxonomy.from_dict(meta["taxonomy"])
    opened = set(seen_classes(trained, wanted)) != set(wanted.classes)
    own = meta.get("speakers") or {}
    heard = {*own.get("train", ()), *(own.get("valid", ()) if part == "all" else ())}
    record = evaluation(
        status="ok",
        kind="evaluation",
        model={
            "fingerprint": meta.get("fingerprint"),
            **{k: meta["config"][k] for k in ("corpus", "protocol", "fold", "seed", "head")},
            "taxonomy": meta["taxonomy"],
            **({"answering": dict(answering)} if answering else {}),
        },
        data={
            "corpora": sorted({u.corpus for u in data.speech.utterances}),
            "part": part,
            "manifest": data.speech.sha,
            "taxonomy": wanted.to_dict(),
            "counts": data.counts(),
            "notes": data.speech.notes,
            "unknown_speakers": cfg.data.unknown_speakers,
        },
        condition=corruption.describe() if corruption else None,
        normalise=None if module.normaliser is None else module.normaliser.about,
        **numbers,
        label_shift=label_shift(table, prior=weights),
        open_labels=open_numbers(table, trained, wanted) if opened else None,
        speakers_heard=shared(heard, asked),
        speakers_unsure=cannot_tell(heard, asked),
        **environment(),
    )
    return table, record


HELD_SECONDS = 3600.0  # of corrupted speech whose frames stay in memory: our choice


def hold_frames(
    encoder: Encoder,
    dataset: SpeechDataset,
    corruption: Corruption,
    device: torch.device,
    progress: bool = False,
) -> None:
    """Give a corrupted dataset its frames: those of the last evaluation, or new ones.

    Only the frames of one encoder and one part stay. More than an hour of speech is encoded as it
    is read. The counts of the corruption are as if all audio had been read.
    """
    seconds = dataset.seconds
    if sum(seconds) > HELD_SECONDS:
        tell(
            f"{sum(seconds) / 3600:.1f} h of corrupted speech are too much to keep in memory "
            f"(at most {HELD_SECONDS / 3600:g} h), so this model encodes them itself, and the "
            "next one does so again",
            fault=False,
        )
        return
    extraction = own.extraction_of(encoder)
    beside = encoder.utterance
    names = [digest(own.extraction_of(e)) for e in (encoder, beside) if e is not None]
    key = (*names, tuple((u.id, u.sha) for u in dataset.utterances))
    if corruption.held.get("key") != key:
        frames = HeldFrames(extraction, encoder.frame_seconds)
        heard = dataset.utterances, seconds, dataset.wave
        with evaluating(encoder):
            frames.fill(encoder, *heard, device=device, progress=progress)
            counts, vectors = corruption.counts.copy(), None
            if beside is not None:  # the same audio again, which is not counted twice
                vectors = HeldFrames(own.extraction_of(beside), beside.frame_seconds)
                vectors.fill(beside, *heard, device=device, progress=progress)
        held = {"key": key, "frames": frames, "vectors": vectors, "counts": counts}
        corruption.held = held
    corruption.counts = corruption.held["counts"].copy()
    dataset.use(corruption.held["frames"], corruption.held["vectors"])


def score(
    module: SERModule,
    loader: Any,
    taxonomy: Taxonomy,
    *,
    progress: bool = False,
    tally: Tally | None = None,
) -> PredictionTable:
    """The prediction table of a loader's batches, computed on the module's device.

    Args:
        module: a trained model on its device. It may be in training mode, and keeps its mode.
        loader: yields batches whose targets are over ``taxonomy``.
        taxonomy: classes to choose among.
        progress: show a bar.
        tally: counts the operations of the first batch.
    """
    tally = tally or Tally()
    device = next(module.parameters()).device
    tables = []
    with Bar("scoring", len(loader), shown=progress) as bar:
        for batch in loader:
            given = batch.to(device)
            with tally.counting(given, module.encoder):
                tables.append(module.score(given, taxonomy))
            bar.advance()
    return merge(tables)


def _encoding_flops(module: SERModule, dataset: SpeechDataset) -> float:
    """Return the encoder's operations for a second of speech, from the median utterance's audio.

    Its features were read from the store, so scoring did not show what encoding costs.
    """
    middle = int(np.argsort(dataset.seconds)[len(dataset) // 2])
    # not by dataset.wave, which would count it as corrupted
    wave = load_wave(dataset.utterances[middle], dataset.roots, dataset.max_seconds)
    audio, lengths = pad_waves([wave])
    device, tally = module.device, Tally()
    targets = Targets(torch.zeros(1, 1), torch.zeros(1))
    batch = Batch([""], [""], targets, audio=audio, lengths=lengths)
    with tally.counting(batch, module.encoder):
        module.encoder.extract(audio.to(device), lengths.to(device))
    return round(tally.per_second() or 0.0, 1)


def calibrated(
    table: PredictionTable, temperature: float | None, *, uniform: bool
) -> dict[str, Any]:
    """The calibration error without its bias, and for which class prior the probabilities are.

    Args:
        table: predictions; two utterances or more are labelled.
        temperature: temperature that the run fitted on its validation part; None if it has none.
        uniform: whether training weighed all classes alike.

    Returns:
        ``error``, its ``interval`` or None, a ``note`` (why there is none), ``temperature`` and
        ``prior``: ``uniform`` or ``training``.
    """
    scaled = replace(table, scores=table.scores / (temperature or 1.0))
    found = calibration_error([scaled])
    return {
        "error": found.value,
        "interval": None if np.isnan(found.low) else [found.low, found.high],
        "note": found.note,
        "temperature": temperature,
        "prior": "uniform" if uniform else "training",
    }


def with_votes(table: PredictionTable, data: Any, taxonomy: Taxonomy) -> PredictionTable:
    """Return the table with the votes of the raters, if the manifest has any for these classes.

    Args:
        table: predictions of the utterances of ``data``.
        data: the dataset that was scored.
        taxonomy: taxonomy of the table.
    """
    utterances: list[Utterance] = data.utterances
    rows = vote_rows(utterances, taxonomy)
    if rows is None:
        return table
    at = {u.id: i for i, u in enumerate(utterances)}
    return replace(table, votes=rows[[at[name] for name in table.ids]])
