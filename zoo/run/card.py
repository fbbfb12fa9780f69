"""The model card of a saved model; its text is the template ``card.md.j2``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..core import registry
from ..core.errors import ConfigError
from ..core.table import Cell, Line, Table, cell
from ..encoders.families import ATTENTION
from ..statistics.speakers import interval_text
from .config import read_group
from .published import is_local
from .record import Record

TEMPLATE = "card.md.j2"


def model_card(
    config: Mapping[str, Any], record: Record | None = None, licence: str | None = None
) -> str:
    """Return the text of ``README.md``.

    Args:
        config: content of the saved model's ``config.json``.
        record: the run's record; without one, the card says that it has no metrics.
        licence: licence of the trained weights, as the hub writes it (``cc-by-4.0``).
    """
    head, training, encoder = config["head"]["type"], config["training"], config["encoder"]
    base = config["published"].get("encoder")
    local = base is not None and is_local(base["name"])
    revision = base and (base.get("commit") or base.get("revision"))
    corpora = {name: _corpus(name) for name in training["corpus"]}
    short = Path(base["name"]).name if base else encoder["type"]
    named = training.get("head_name", head)
    title = f"{named} on {' and '.join(corpora) or 'data of the user'}, {short}"
    data = ModelCardData(
        language=sorted({str(c["language"]) for c in corpora.values() if "language" in c}) or None,
        license=licence or "other",
        license_name=None if licence else "not-stated",
        library_name="serzoo",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "audio", f"serzoo-{head}"],
        base_model=base["name"] if base and not local else None,
        model_name=title,
        metrics=["recall", "accuracy", "f1"],
        eval_results=_results(training, record, corpora),
    )
    own = {  # from `FILE.py:Class@DIGEST`
        part: name.rpartition(":")[2].partition("@")[0]
        for part, name in (training.get("own") or {}).items()
        if " " not in part
    }
    at = f" at `{revision}`" if revision else ""
    model_type = (config["preprocessing"].get("extraction") or {}).get("model_type")
    adapted = (encoder.get("lora_targets") or ATTENTION) if model_type == "wavlm" else ()
    card = ModelCard.from_template(
        data,
        template_str=(files(__package__) / TEMPLATE).read_text("utf-8"),
        title=title,
        config=config,
        training=training,
        encoder=encoder,
        record=record,
        metrics=_metrics(record) if record and record.metrics else None,
        weakest=_weakest(record) if record else None,
        notes=[*record.notes, *record.split_notes] if record else [],
        corpora=corpora,
        base=base,
        local=local,
        revision=revision,
        source=base and (f"a local copy `{short}`" if local else f"`{base['name']}`{at}"),
        own=own,
        normalise=training.get("data", {}).get("normalise"),
        unheard=[target for target in adapted if target in ATTENTION],
        licence=licence,
    )
    return f"{card}\n"


def _metrics(record: Record) -> str:
    m = record.metrics
    rows: list[Line] = [
        ("UAR, mean recall of the classes", Cell(f"{m['uar']:.3f} {interval_text(m)}", m["uar"])),
        ("WA, accuracy", cell(m["wa"])),
        ("macro-F1", cell(m["f1"])),
    ]
    for key, name in (("nll", "negative log-likelihood"), ("ece", "calibration error")):
        if m.get(key) is not None and m.get(f"{key}_calibrated") is not None:
            rows.append((name, f"{m[key]:.3f}, calibrated {m[f'{key}_calibrated']:.3f}"))
    return Table("", ("metric", "value"), rows).markdown().rstrip()


def _weakest(record: Record) -> tuple[str, float] | None:
    """Return the class with the lowest recall, and its recall; None if the record has none."""
    recalls = record.metrics.get("recall") or {}
    return min(recalls.items(), key=lambda pair: float(pair[1]), default=None)


def _results(
    training: Mapping[str, Any], record: Record | None, corpora: Mapping[str, Any]
) -> list[EvalResult] | None:
    if record is None or not record.metrics:
        return None
    m = record.metrics
    names = {"uar": ("recall", "UAR"), "wa": ("accuracy", "WA"), "f1": ("f1", "macro-F1")}
    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech emotion recognition",
            dataset_type="+".join(corpora) or "manifest",
            dataset_name=", ".join(c.get("title", n) for n, c in corpora.items()) or "manifest",
            dataset_split="test",
            dataset_args={"protocol": training["protocol"], "fold": training["fold"]},
            metric_type=kind,
            metric_name=name,
            metric_value=round(float(m[key]), 4),
        )
        for key, (kind, name) in names.items()
    ]


def _corpus(name: str) -> dict[str, Any]:
    try:
        return read_group("corpus", name)
    except ConfigError:  # a third party's corpus
        part = registry.added("corpora", name)
        return dict(part.part.info) if part else {}
