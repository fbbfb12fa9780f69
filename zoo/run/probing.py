"""`serzoo probe`: does a representation hold prosody?

Linear probes predict F0, level and rate of an utterance from its mean frame. They are tested on
speakers that they were not fitted on. The same encoder before training is probed, too. If both
predict a quantity equally well, it comes from architecture and spectrum, and not from training.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from ...datamodules.prosody import UNITS, RateFrom, open_probing
from ..core import registry, shipped
from ..core.encoder import Encoder
from ..core.errors import ConfigError, counted, suggest
from ..core.files import check_place
from ..core.notices import quiet
from ..core.speakers import cannot_tell, shared
from ..core.table import UNKNOWN, Cell, Line, Table, cell, span, wide_console
from ..core.types import first_device
from ..encoders.hf import HFEncoder
from ..statistics.probe import Probed, probe, r2, r2_difference
from ..statistics.rates import FloatArray
from ..statistics.speakers import Difference, Interval
from . import config, published
from .module import SERModule
from .record import RECORD, ProbeRecord, environment, probed, write_record
from .schema import RunConfig
from .trained import TrainedEncoder, untrained

WAYS = {"all": False, "within": True}
"""Ways to probe a quantity: as it is, and without the mean of each speaker (True)."""

Found = dict[str, dict[str, Probed]]
"""Results of probes: way to quantity to result."""


def numbers(found: dict[str, Found]) -> dict[str, Any]:
    """Return ``quantities`` of a record: for each its unit, and the R² of each way and model."""
    units = UNITS
    result: dict[str, Any] = {}
    for name in found["model"]["all"]:
        result[name] = {"unit": units[name]}
        for way in WAYS:
            mine = found["model"][way][name]
            entry: dict[str, Any] = {
                "utterances": mine.utterances,
                "model": _plain(r2(mine)) | {"strengths": mine.strengths},
            }
            if "against" in found:
                other = found["against"][way][name]
                entry["against"] = _plain(r2(other)) | {"strengths": other.strengths}
                difference = r2_difference(mine, other)
                entry["difference"] = _plain(difference) | {"p": difference.p}
            result[name][way] = entry
    return result


def tables(entry: ProbeRecord) -> list[Table]:
    """Return the R² of a record, in a table for each way."""
    compared = ["R² of the other", "difference"] if entry.against is not None else []
    titles = {"all": "as it is", "within": "within speakers (each speaker's mean taken off)"}
    made = []
    for way, title in titles.items():
        rows: list[Line] = []
        for name, quantity in entry.quantities.items():
            found = quantity[way]
            shown = [found[k] for k in ("model", "against", "difference") if k in found]
            rows.append([name, *map(_cell, shown)])
        made.append(Table(title, ("quantity", "R² of the model", *compared), rows))
    return made


def show(entry: ProbeRecord, console: Console | None = None) -> None:
    """Print the tables of a record, and facts about their data."""
    console = console or wide_console()
    for table in tables(entry):
        console.print(table.rich(lines=False))
    for line in _about(entry):
        console.out(line, highlight=False)


def _about(entry: ProbeRecord) -> list[str]:
    """Return lines on the data behind the numbers."""
    data = entry.data
    n = max(q["all"]["utterances"] for q in entry.quantities.values())
    lines = [
        f"{counted(n, 'utterance')} of {counted(len(data['speakers']), 'speaker')} of "
        f"{', '.join(data['corpora'])}, {counted(data['folds'], 'fold')} of {data['protocol']}; "
        f"95 % intervals over speakers; the rate is from {data['rate_from']}"
    ]
    if other := entry.against:
        what = other.get("path") or other.get("recipe") or "the same encoder, untrained"
        lines.append(f"the other: {what}")
    if heard := entry.speakers_heard:
        lines.append(
            f"{len(heard)} of these speakers were heard when the encoder was trained; fold=K "
            "scores one fold's only"
        )
    if unsure := entry.speakers_unsure:
        lines.append(
            "it is unknown whether the encoder heard these speakers: not every speaker of "
            f"{', '.join(unsure)} is known"
        )
    return lines


def _cell(v: dict[str, Any]) -> Cell:
    r2 = cell(v["value"], ".2f")
    bounds = span(v["low"], v["high"], ".2f")
    return r2 if bounds == UNKNOWN else r2._replace(text=f"{r2.text} ({bounds})")


def _plain(v: Interval | Difference) -> dict[str, Any]:
    return {"value": v.value, "low": v.low, "high": v.high}


@dataclass(frozen=True)
class Subject:
    """An encoder to probe.

    Attributes:
        name: its name as the user gave it.
        encoder: the encoder, in evaluation mode.
        cfg: configuration of its run, or of the recipe.
        heard: ``corpus/speaker`` names that it was trained or selected on.
        about: its description, for the record.
        fresh: whether it is untrained.
    """

    name: str
    encoder: Encoder
    cfg: RunConfig
    heard: frozenset[str]
    about: dict[str, Any]
    fresh: bool = False


def probe_model(
    model: str | Path,
    settings: Sequence[str] = (),
    *,
    against: str = "untrained",
    data: str | Sequence[str] | None = None,
    root: str | None = None,
    protocol: str | None = None,
    fold: int | None = None,
    options: dict[str, Any] | None = None,
    rate_from: RateFrom = "auto",
    out: str | Path | None = None,
    progress: bool = False,
) -> ProbeRecord:
    """Probe a representation for prosody and write a record.

    Args:
        model: a run's folder, a ``.ckpt`` file, a saved folder or hub id; or a recipe. The encoder
            of a recipe is probed before training, with its published weights if it has any.
        settings: settings of the recipe (``encoder=wav2vec2-base``).
        against: ``untrained`` = the same encoder before training, ``none``, or another model.
        data: names of corpora, or a prepared manifest (``.jsonl``); the model's own by default.
        root: folder of the corpus.
        protocol: its folds are those of the probes; the corpus' own by default.
        fold: one fold only; all by default.
        options: keywords of the corpus' reader.
        rate_from: source of the speaking rate: ``auto``, ``text``, ``audio``.
        out: folder of the record.
        progress: show bars.

    Returns:
        The record; its ``folder`` holds the file.

    Raises:
        ConfigError: if there is no such model, recipe or setting, or pyworld is missing.
        DataError: if folds share speakers, or the data cannot be used.
    """
    quiet()
    began = time.perf_counter()
    if out is not None:
        check_place(Path(out) / RECORD)
    subject = subject_of(str(model), settings)
    other = other_of(subject, against)  # here, so that its errors come before any audio is read
    cfg = subject.cfg
    own = data is None
    named = [data] if isinstance(data, str) else list(data or cfg.corpus)
    manifest = named[0] if len(named) == 1 and named[0].endswith(".jsonl") else None
    probing = open_probing(
        [] if manifest else named,
        protocol=protocol or (cfg.protocol if own else None),
        fold=fold,
        root=root or (cfg.data.root if own else None),
        manifest=manifest or (cfg.data.manifest if own else None),
        options=options or (cfg.data.options if own else None),
        max_seconds=cfg.data.max_seconds,
        rate_from=rate_from,
        progress=progress,
    )
    found = {"model": probes(subject, probing)}
    if other is not None:
        found["against"] = probes(other, probing)
    tested = sorted({s for p in found["model"]["all"].values() for s in p.speakers})
    entry = probed(
        status="ok",
        kind="probe",
        model=subject.about,
        against=None if other is None else other.about,
        data={
            "corpora": sorted({u.corpus for u in probing.speech.utterances}),
            "manifest": probing.speech.sha,
            "protocol": probing.protocol,
            "folds": len(probing.folds),
            "fold": fold,
            "max_seconds": probing.max_seconds,
            "rate_from": probing.prosody.rate_from,
            "speakers": tested,
        },
        speakers_heard=shared(subject.heard, tested),
        speakers_unsure=cannot_tell(subject.heard, tested),
        quantities=numbers(found),
        seconds=round(time.perf_counter() - began, 2),
        **environment(),
    )
    folder = Path(out) if out else _folder(cfg, entry)
    write_record(folder, entry)
    return entry


def subject_of(model: str, settings: Sequence[str] = ()) -> Subject:
    """Return the encoder of a trained model or of a recipe.

    Args:
        model: a path, a hub id or a recipe.
        settings: settings of the recipe.

    Raises:
        ConfigError: if there is no such model or recipe, or a model got settings.
    """
    recipes = shipped.names("recipe")
    if model in recipes or Path(model).suffix in (".yaml", ".yml"):
        cfg = config.load(model, settings)
        with torch.random.fork_rng():
            torch.manual_seed(cfg.seed)
            kind = registry.get("encoders", cfg.encoder["type"])
            encoder = kind(**{k: v for k, v in cfg.encoder.items() if k != "type"}).eval()
        fresh = not isinstance(encoder, (HFEncoder, TrainedEncoder)) and not encoder.frozen_keys()
        heard = frozenset[str]()
        if isinstance(encoder, TrainedEncoder):
            heard = _heard(encoder.speakers)
        about = {"recipe": model, "encoder": cfg.encoder, **_weights(encoder), "trained": not fresh}
        return Subject(model, encoder, cfg, heard, about, fresh)
    if settings:
        raise ConfigError(
            f"{settings[0]} sets a key of a recipe, but '{model}' is not a recipe"
            f"{suggest(model, recipes)}; a trained model takes no settings: leave it out"
        )
    if not Path(model).exists() and not published.is_saved_or_hub_id(model):
        raise ConfigError(
            f"'{model}' is neither a trained model (a run's folder, a .ckpt file, a saved folder) "
            f"nor a recipe{suggest(model, recipes)}"
        )
    module = SERModule.load_from_checkpoint(model)
    meta = module.metadata
    cfg = RunConfig.from_dict(meta["config"])
    about = {
        "path": model,
        "fingerprint": meta.get("fingerprint"),
        "head": cfg.called,
        "encoder": cfg.encoder,
        **{k: meta["config"][k] for k in ("corpus", "protocol", "fold", "seed")},
        **_weights(module.encoder),
        "trained": True,
    }
    heard = _heard(meta.get("speakers"))
    if isinstance(module.encoder, TrainedEncoder):
        heard |= _heard(module.encoder.speakers)
    return Subject(model, module.encoder.eval(), cfg, heard, about)


def other_of(subject: Subject, against: str) -> Subject | None:
    """Return the encoder that a model is compared with; None for ``none``.

    An untrained model is not compared with itself, which is None, too.
    """
    if against == "none" or (against == "untrained" and subject.fresh):
        return None
    if against != "untrained":
        return subject_of(against)
    cfg = subject.cfg
    encoder = untrained(subject.encoder, cfg.encoder, cfg.seed)
    about = {"encoder": cfg.encoder, "seed": cfg.seed, **_weights(encoder), "trained": False}
    return Subject("untrained", encoder, cfg, frozenset(), about, fresh=True)


def probes(subject: Subject, probing: Any) -> Found:
    """Probe all quantities in both ways."""
    features = mean_frames(subject, probing)
    return {
        way: probe(features, probing.prosody.values, probing.speakers, probing.folds, within=within)
        for way, within in WAYS.items()
    }


@torch.no_grad()
def mean_frames(subject: Subject, probing: Any) -> FloatArray:
    """Return ``[N, D]``: for each utterance the mean of its frames of speech, as heads get them."""
    encoder, d = subject.encoder, subject.cfg.data
    device = first_device()
    encoder.to(device)
    # features of random weights are not used again, so they are not stored
    drawn = subject.fresh and isinstance(encoder, HFEncoder)
    stored = d.features != "live" and not drawn
    rows: list[int] = []
    means: list[torch.Tensor] = []
    for where, batch in probing.batches(
        encoder, size=d.batch_size, budget=d.batch_seconds, stored=stored, device=device
    ):
        batch = batch.to(device)
        hidden, mask = batch.hidden, batch.mask
        if hidden is None:
            hidden, mask = encoder.extract(batch.audio, batch.lengths)
        rows += where
        means.append(encoder(hidden, mask).mean().cpu())
    found = torch.cat(means).double()
    return np.asarray(found[torch.tensor(rows).argsort()].numpy())


def _heard(speakers: Any) -> frozenset[str]:
    return frozenset(s for part in ("train", "valid") for s in (speakers or {}).get(part, ()))


def _weights(encoder: Encoder) -> dict[str, Any]:
    about = encoder.describe()
    return {"weights": about["weights"]} if "weights" in about else {}


def _folder(cfg: RunConfig, entry: ProbeRecord) -> Path:
    keys = ("model", "against", "data")
    digest = hashlib.sha256(json.dumps([getattr(entry, k) for k in keys], sort_keys=True).encode())
    name = "+".join(entry.data["corpora"])
    return Path(cfg.trainer.out) / "probes" / f"{name}-{digest.hexdigest()[:10]}"
