"""The model card: what a trained model is, was trained on, reaches, and should not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..core import registry
from ..core.errors import ConfigError
from ..core.table import Cell, Line, Table, cell
from ..statistics.speakers import interval_text
from .config import read_group
from .record import Record

WAVLM_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


def model_card(
    config: Mapping[str, Any], record: Record | None = None, licence: str | None = None
) -> str:
    """The text of ``README.md``.

    Args:
        config: content of the saved model's ``config.json``.
        record: of the run; without one, the card says that nothing was measured.
        licence: of the trained weights.
    """
    head, classes = config["head"]["type"], config["classes"]
    training, base = config["training"], config["published"].get("encoder")
    corpora = {name: _corpus(name) for name in training["corpus"]}
    called = training.get("head_name", head)
    title = f"{called} on {' and '.join(corpora) or 'data of the user'}, {_encoder(config)}"
    data = ModelCardData(
        language=sorted({str(c["language"]) for c in corpora.values() if "language" in c}) or None,
        license=licence or "other",
        license_name=None if licence else "not-stated",
        library_name="serzoo",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "audio", f"serzoo-{head}"],
        base_model=base["name"] if base and not _local(base["name"]) else None,
        model_name=title,
        metrics=["recall", "accuracy", "f1"],
        eval_results=_results(config, record, corpora),
    )
    parts = [
        f"# {title}",
        f"A speech emotion recogniser made with serzoo {config['serzoo']}. It gives a probability "
        f"to each of {len(classes)} classes, in this "
        f"order: {', '.join(classes)}.",
        _use(),
        _measured(config, record),
        _data(config, record, corpora),
        _model(config, base),
        _load(config, base),
        _licence(licence, corpora, base),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


def _use() -> str:
    return (
        "## Intended use and limits\n\n"
        "Meant for research on speech emotion recognition: comparing methods, and annotating "
        "recordings for people who check the result.\n\n"
        "- It names the class that a recording sounds like to it, not what a person feels.\n"
        "- It knows only the classes above, in the languages, recording conditions and kind of "
        "speech (acted or not) of its training data; elsewhere it may be wrong with high "
        "probability.\n"
        "- Numbers below hold for the test part that they name. Other recordings are usually "
        "harder, and speakers, ages, genders and accents may fare differently.\n"
        "- Do not decide about people by it. In the European Union, inferring emotions at work "
        "and in education is prohibited (Regulation 2024/1689, article 5(1)(f))."
    )


def _measured(config: Mapping[str, Any], record: Record | None) -> str:
    text = "## Metrics\n\n"
    if record is None or not record.metrics:
        return text + "None: no record of a run was given when this model was saved."
    m = record.metrics
    rows: list[Line] = [
        ("UAR, mean recall of the classes", Cell(f"{m['uar']:.3f} {interval_text(m)}", m["uar"])),
        ("WA, accuracy", cell(m["wa"])),
        ("macro-F1", cell(m["f1"])),
    ]
    for key, name in (("nll", "negative log-likelihood"), ("ece", "calibration error")):
        if m.get(key) is not None and m.get(f"{key}_calibrated") is not None:
            rows.append((name, f"{m[key]:.3f}, calibrated {m[f'{key}_calibrated']:.3f}"))
    training = config["training"]
    text += (
        f"Test part of protocol `{training['protocol']}`, fold {training['fold']}, seed "
        f"{training['seed']}; the epoch was chosen on validation speakers, and the test part read "
        "once, after that.\n\n"
    )
    text += Table("", ("metric", "value"), rows).markdown().rstrip()
    for unsure in record.unsure:
        text += f"\n\n**Nobody can tell {unsure}.** If they do, the numbers are too high."
    temperature = config["temperature"]
    if temperature is not None:
        text += (
            f"\n\nProbabilities are calibrated by dividing the scores by {temperature:.4g}, fitted "
            "on validation."
        )
    return text


def _data(config: Mapping[str, Any], record: Record | None, corpora: Mapping[str, Any]) -> str:
    lines = [
        f"- **{about.get('title', name)}** (`{name}`): licence {about.get('licence', 'not known')}"
        + (f". {about['citation']}" if about.get("citation") else "")
        for name, about in corpora.items()
    ] or ["- a manifest of the user's; its licence is not known here"]
    training, hashes = config["training"], config["data"] or {}
    found = ", ".join(f"{k} `{v}`" for k, v in hashes.items())
    text = "## Data\n\n" + "\n".join(lines)
    text += f"\n\nProtocol `{training['protocol']}`, fold {training['fold']}"
    text += f"; hashes: {found}." if found else "."
    text += f" Utterances longer than {training['data']['max_seconds']:g} s were cut to that."
    for note in [] if record is None else [*record.notes, *record.split_notes]:
        text += f"\n- {note}"
    return text


def _model(config: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    encoder = config["encoder"]
    text = f"## Model\n\nHead `{config['head']['type']}`, encoder `{encoder['type']}`"
    if base is None:
        text += ", trained from scratch"
    else:
        text += f": {_named(base)}, weights `{base['weights']}`"
        if "layers" in encoder:
            text += f", layers {encoder['layers']}" if encoder["layers"] else ", all layers mixed"
        text += f", tuning `{encoder.get('tuning', 'frozen')}`"
    return (
        text + ". Audio is 16 kHz mono. `config.json` holds every option, and the run's fingerprint"
        f" `{config['fingerprint']}`. `model.safetensors` holds what was trained; published "
        "weights that were not are not copied."
    )


def _load(config: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    own = config["training"].get("own") or {}
    names = {k: v.rpartition(":")[2].partition("@")[0] for k, v in own.items() if " " not in k}
    given = "".join(f", {part}={name}" for part, name in names.items())
    text = (
        "## Loading\n\n```python\nfrom serzoo.zoo import load\n\n"
        f'model = load("FOLDER_OR_HUB_ID"{given})\n'
        'rows = model.predict(["speech.wav"])\n```'
    )
    if names:
        text += (
            "\n\nserzoo runs no code of a model. The author has to give you the file of "
            f"{' and of '.join(f'`{name}`' for name in names.values())}; import it from there."
        )
    if base and _local(base["name"]):
        text += (
            "\n\nThe published encoder was read from a folder of the author's; say where yours is: "
            '`load("FOLDER", base="ENCODER_FOLDER")`. Its weights are compared.'
        )
    encoder = config["encoder"]
    if base is None or encoder.get("tuning") != "lora":
        return text
    revision = base.get("commit") or base.get("revision")
    at = f', revision="{revision}"' if revision else ""
    name = "ENCODER_FOLDER" if _local(base["name"]) else base["name"]
    text += (
        "\n\nThe adapted encoder alone, with plain transformers and peft from this folder:\n\n"
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModel\n\n"
        f'encoder = AutoModel.from_pretrained("{name}"{at})\n'
        'encoder = PeftModel.from_pretrained(encoder, "FOLDER/adapter")\n```'
    )
    wanted = encoder.get("lora_targets") or WAVLM_ATTENTION
    dead = [t for t in wanted if t in WAVLM_ATTENTION]
    if _extraction(config).get("model_type") == "wavlm" and dead:
        text += (
            f"\n\n**Plain transformers ignores the adapters on {', '.join(dead)} of WavLM**: its "
            "attention reads the weights of these layers instead of calling them. They load "
            "without a message and have no effect there; serzoo calls them."
        )
    return text


def _licence(
    licence: str | None, corpora: Mapping[str, Any], base: Mapping[str, Any] | None
) -> str:
    stated = f"The trained weights: {licence}." if licence else "The author stated none."
    sources = [f"{n}: {c.get('licence', 'not known')}" for n, c in corpora.items()]
    if base:
        sources.append(f"published encoder {_named(base)}: see its own card")
    told = f" What it was made from has terms of its own ({'; '.join(sources)})." if sources else ""
    return f"## Licence\n\n{stated}{told} The code of serzoo is Apache-2.0."


def _results(
    config: Mapping[str, Any], record: Record | None, corpora: Mapping[str, Any]
) -> list[EvalResult] | None:
    if record is None or not record.metrics:
        return None
    training, m = config["training"], record.metrics
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
    except ConfigError:  # a third party's
        part = registry.added("corpora", name)
        return dict(part.part.info) if part else {}


def _extraction(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config["preprocessing"].get("extraction") or {}


def _encoder(config: Mapping[str, Any]) -> str:
    base = config["published"].get("encoder")
    return Path(base["name"]).name if base else str(config["encoder"]["type"])


def _named(base: Mapping[str, Any]) -> str:
    if _local(base["name"]):
        return f"a local copy `{Path(base['name']).name}`"
    revision = base.get("commit") or base.get("revision")
    return f"`{base['name']}`" + (f" at `{revision}`" if revision else "")


def _local(name: str) -> bool:
    return Path(name).expanduser().is_dir() or name.startswith((".", "/", "~"))
