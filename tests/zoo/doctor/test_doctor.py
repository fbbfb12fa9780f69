"""`serzoo doctor`: every check passes a healthy run and finds the fault it is there for."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from facts import tells
from fake_hub import COMMIT, FakeHub
from serzoo.zoo.cli import main
from serzoo.zoo.core import lock, registry
from serzoo.zoo.core.errors import DataError, DataNote, DataWarning
from serzoo.zoo.core.types import HeadLoss
from serzoo.zoo.doctor import CHECKS, doctor, examine, summary
from serzoo.zoo.doctor import cost as doctor_cost
from serzoo.zoo.doctor import trial as doctor_trial
from serzoo.zoo.doctor.trial import Trial
from serzoo.zoo.run.config import load
from serzoo.zoo.run.schema import RunConfig
from torch import nn

ADVICE = "encoder.layers"


def levels(findings: list[Any]) -> set[str]:
    return {f.level for f in findings}


@pytest.fixture(scope="module")
def healthy(tiny_recipe: str) -> Iterator[Trial]:
    with doctor_trial.undisturbed(1):
        yield Trial(load(tiny_recipe))


@pytest.fixture(scope="module")
def sick_recipe(
    write_wave: Callable[..., Path], tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Five speakers; one class of 8 kHz, another of one speaker only; bad and repeated files."""
    folder = tmp_path_factory.mktemp("sick")
    rows, rng = ["audio,label,speaker"], np.random.default_rng(1)
    for k in range(5):
        for label, rate in (("angry", 8000), ("sad", 16000)):
            name = f"{label}{k}.wav"
            write_wave(folder / name, 0.1 * rng.normal(size=rate // 2), rate=rate)
            rows.append(f"{name},{label},s{k}")
    loud = np.sign(np.sin(np.arange(8000) / 9)) * 0.9999
    same = 0.1 * rng.normal(size=8000)
    for name, samples, speaker in (
        ("silent", rng.uniform(-5e-4, 5e-4, size=8000), "s0"),
        ("clipped", loud, "s1"),
        ("short", 0.1 * rng.normal(size=800), "s2"),
        ("same1", same, "s3"),
        ("same2", same, "s4"),
    ):
        write_wave(folder / f"{name}.wav", samples, subtype="FLOAT")
        rows.append(f"{name}.wav,sad,{speaker}")
    write_wave(folder / "rare.wav", 0.1 * rng.normal(size=8000))
    rows.append("rare.wav,happy,s0")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    recipe = folder / "sick.yaml"
    recipe.write_text(f"{Path(tiny_recipe).read_text()}\n".replace(_root(tiny_recipe), str(folder)))
    return str(recipe)


def _root(recipe: str) -> str:
    return str(load(recipe).data.root)


# Healthy.


def test_there_are_20_checks_and_each_has_its_fault_here() -> None:
    assert len(CHECKS) == 20
    assert set(FAULTS) == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_a_healthy_run_passes(healthy: Trial, name: str) -> None:
    found = examine(healthy, name)
    assert found
    assert levels(found) <= {"ok", "note"}, found
    assert {f.name for f in found} == {name}


@pytest.mark.parametrize("head", registry.names("heads"))
def test_every_head_is_examined(tiny_recipe: str, head: str) -> None:
    settings = [f"head={head}"] + (["head.lm_width=32"] if head in ("selm", "speech_llm") else [])
    found = doctor(load(tiny_recipe, settings))
    assert summary(found)["error"] == summary(found)["warning"] == 0, found
    assert list(dict.fromkeys(f.name for f in found)) == list(CHECKS)


@pytest.mark.parametrize("words", [["encoder=functionals"], ["utterance=functionals"]])
def test_vectors_of_utterances_are_examined(tiny_recipe: str, words: list[str]) -> None:
    found = doctor(load(tiny_recipe, words))
    assert summary(found)["error"] == summary(found)["warning"] == 0, found


@pytest.mark.parametrize("tuning", ["frozen", "lora", "last_k", "full"])
def test_every_tuning_is_examined(
    tiny_recipe: str, tiny_hf: Callable[..., str], tuning: str
) -> None:
    cfg = load(tiny_recipe, ["encoder=hf", f"encoder.name={tiny_hf('wavlm')}"])
    cfg.encoder["tuning"] = tuning
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataNote)  # what training says is not true of a trial
        found = {f.name: f for f in doctor(cfg)}
    assert found["training step"].level == "ok"
    assert summary(list(found.values()))["error"] == 0, found
    stored = "must be encoded" in found["feature store"].message
    assert stored == (tuning == "frozen")
    assert ("12 adapters" in found["LoRA effect"].message) == (tuning == "lora")


@pytest.mark.parametrize(("dtype", "level"), [("bfloat16", "ok"), ("float32", "error")])
def test_a_bfloat16_encoder_has_wider_bounds(
    tiny_recipe: str, tiny_hf: Callable[..., str], dtype: str, level: str
) -> None:
    cfg = load(tiny_recipe, ["encoder=hf", f"encoder.name={tiny_hf()}", f"encoder.dtype={dtype}"])
    with doctor_trial.undisturbed(1):
        trial = Trial(cfg)
        right = trial.module.encoder.extract

        def extract(audio: torch.Tensor, lengths: torch.Tensor) -> Any:
            # 0.3 % by hand: what the kernels round differently depends on the processor
            hidden, mask = right(audio, lengths)
            return hidden.float() * (1.003 if len(audio) > 1 else 1.0), mask

        trial.module.encoder.extract = extract
        (found,) = examine(trial, "batch sensitivity")
    assert found.level == level
    assert 1e-3 < found.facts["relative"] < 1e-2


@pytest.mark.parametrize("window", ["auto", "0.5"])
def test_a_shorter_window_needs_no_advice(
    tiny_recipe: str, tiny_hf: Callable[..., str], window: str
) -> None:
    name = tiny_hf("whisper", "none")
    settings = ["encoder=hf", f"encoder.name={name}", f"encoder.window={window}"]
    with doctor_trial.undisturbed(1):
        (found,) = examine(Trial(load(tiny_recipe, settings)), "windows")
    assert found.level == "ok"
    assert tells(found.message, f"encoder.window={window}")


def test_the_gain_of_own_windows_is_measured_and_the_published_window_stays(
    tiny_recipe: str, tiny_hf: Callable[..., str]
) -> None:
    name = tiny_hf("whisper", "none", max_source_positions=500)  # a window of 10 s
    settings = ["encoder=hf", f"encoder.name={name}"]
    with doctor_trial.undisturbed(1):
        trial = Trial(load(tiny_recipe, settings))
        (found,) = examine(trial, "windows")
    assert found.level == "note"
    assert found.facts["seconds"] > found.facts["seconds_of_own_windows"] > 0
    assert trial.module.encoder.family.own_windows is False


def test_models_of_the_hub_are_locked_or_not(
    tiny_recipe: str, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HfApi", FakeHub({"acme/tiny": {None: (COMMIT, {})}}))
    for revision, level, words in (
        ("null", "note", ["not locked", COMMIT, "`serzoo lock acme/tiny`"]),
        (COMMIT, "ok", ["fixed", COMMIT]),
    ):
        settings = ["encoder=hf", "encoder.name=acme/tiny", f"encoder.revision={revision}"]
        (found,) = doctor(load(tiny_recipe, settings), ["published models"])
        assert found.level == level
        assert all(word in found.message for word in words), found.message
        assert not lock.lock_file().exists()  # training would write it
    lock.keep([lock.Locked("acme/tiny", None, COMMIT)])
    settings = ["encoder=hf", "encoder.name=acme/tiny", "encoder.revision=null"]
    (found,) = doctor(load(tiny_recipe, settings), ["published models"])
    assert (found.level, found.facts["locked"]) == ("ok", COMMIT)


def test_a_protocol_that_scores_nobody_is_healthy(tiny_recipe: str) -> None:
    found = doctor(load(tiny_recipe, ["protocol=train-only"]))
    assert summary(found)["error"] == summary(found)["warning"] == 0, found
    told = [f.message for f in found if f.name == "class coverage"]
    assert [text.partition(":")[0] for text in told] == [
        "every class is in every part of every fold; smallest classes",
        "no utterance is in test or valid",
    ]
    assert "train" in told[0]
    assert "valid" not in told[0]


# Faults: (recipe, settings, spoil, level, words).


def idle_parameter(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    trial.module.head.idle = nn.Parameter(torch.zeros(2))


def loss_is_nan(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    right = trial.module.head.loss
    patch.setattr(
        trial.module.head, "loss", lambda *a, **k: HeadLoss(right(*a, **k).loss * float("nan"), {})
    )


def loss_without_labels(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(trial.module.head, "loss", lambda f, t, x=None: HeadLoss(f.x.square().mean(), {}))


def one_layer_not_called(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    layer = trial.module.encoder.backbone.encoder.layers[1].attention.v_proj
    patch.setattr(layer, "forward", layer.base_layer.forward)


def padding_is_heard(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    right = trial.module.encoder.extract

    def extract(audio: torch.Tensor, lengths: torch.Tensor) -> Any:
        hidden, mask = right(audio, lengths)
        return hidden + hidden.mean(2, keepdim=True), mask

    patch.setattr(trial.module.encoder, "extract", extract)


def nothing_trained(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    trial.module.requires_grad_(False)


def full_disk(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))


def little_memory(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    for module in (doctor_cost, doctor_trial):
        patch.setattr(module, "available", lambda device: 1000)


def nothing(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    pass


def short_clip(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    utterances = trial.everything.datasets["test"].utterances
    utterances[3] = replace(utterances[3], end=utterances[3].start + 0.05)


def windows_are_slow(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    right, family = trial.encode, trial.module.encoder.family

    def encode() -> Any:
        return right()[0], 0.125 if family.own_windows else 0.5

    patch.setattr(trial, "encode", encode)


def counts_are_off(trial: Trial, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(trial.everything.speech.notes["csv"], "warnings", ["17 of 30 utterances"])


Fault = tuple[str, list[str], Callable[[Trial, pytest.MonkeyPatch], None], str, list[str]]
FAULTS: dict[str, list[Fault]] = {
    "corpus": [
        ("sick", [], nothing, "note", ["15 utterances of 5", "1 shorter than 0.1 s"]),
        ("tiny", [], counts_are_off, "warning", ["17 of 30 utterances"]),
    ],
    "clip lengths": [
        ("tiny", [], short_clip, "warning", ["1 of 30", "0.050 s"]),
        ("tiny", ["data.max_seconds=0.2"], nothing, "warning", ["18 of 18 in train", "raise"]),
    ],
    "sound": [
        ("sick", [], nothing, "warning", ["silent", "csv/silent"]),
        ("sick", [], nothing, "warning", ["clipped", "csv/clipped"]),
    ],
    "sample rates": [
        ("sick", [], nothing, "warning", ["5 of 15 files have less than 16 kHz"]),
        ("sick", [], nothing, "warning", ["reveals the class", "8 kHz are 100% of angry"]),
    ],
    "class coverage": [
        ("sick", [], nothing, "error", ["folds 0, 4: train has no utterance of happy"]),
        ("sick", [], nothing, "warning", ["folds 0, 1, 2, 3: valid has no utterance of happy"]),
    ],
    "leakage": [("sick", [], nothing, "error", ["csv/same1 = csv/same2"])],
    "published models": [("wavlm", [], nothing, "note", ["nothing fixes", "`serzoo lock "])],
    "training step": [
        ("tiny", [], loss_is_nan, "error", ["loss is not finite"]),
        ("tiny", [], nothing_trained, "error", ["the first step of training fails"]),
    ],
    "dead parameters": [("tiny", [], idle_parameter, "error", ["1 of", "head.idle"])],
    "labels matter": [("tiny", [], loss_without_labels, "warning", ["targets.probs"])],
    "LoRA effect": [
        ("wavlm", [], one_layer_not_called, "error", ["1 of 12", "layers.1.attention.v_proj"])
    ],
    "batch sensitivity": [("tiny", [], padding_is_heard, "error", ["does not mask padding"])],
    "checkpoint": [("tiny", [], nothing_trained, "error", ["no weight is trained"])],
    "feature store": [("tiny", [], full_disk, "warning", ["30 of 30", "do not fit", ADVICE])],
    "memory": [("tiny", [], little_memory, "error", ["will not fit", "data.batch_seconds"])],
    "time": [
        ("tiny", [], little_memory, "note", ["not estimated: a whole batch does not fit"]),
        ("sick", [], nothing, "note", ["not estimated: the fold cannot be trained"]),
    ],
    "windows": [
        (
            "whisper",
            [],
            windows_are_slow,
            "note",
            ["padded to 1 s", "lasts 0.4 s", "takes 0.5 s", "encoder.window=auto", "0.12 s (4.0"],
        )
    ],
    "devices": [
        ("tiny", ["trainer.devices=9999"], nothing, "error", ["9999 processes"]),
    ],
    "precision": [
        ("tiny", ["trainer.precision=16-mixed"], nothing, "error", ["set trainer.precision=bf16"]),
    ],
    "workers": [("tiny", ["data.workers=99"], nothing, "warning", ["99 readers"])],
}
CASES = [(name, k) for name, faults in FAULTS.items() for k in range(len(faults))]


@pytest.mark.parametrize(("name", "k"), CASES)
def test_a_fault_is_found(
    name: str,
    k: int,
    tiny_recipe: str,
    sick_recipe: str,
    tiny_hf: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    which, settings, spoil, level, words = FAULTS[name][k]
    if which == "wavlm":
        settings = ["encoder=hf", f"encoder.name={tiny_hf('wavlm')}", "encoder.tuning=lora"]
    if which == "whisper":
        settings = ["encoder=hf", f"encoder.name={tiny_hf('whisper', 'none')}"]
    with doctor_trial.undisturbed(1):
        trial = Trial(load(sick_recipe if which == "sick" else tiny_recipe, settings))
        spoil(trial, monkeypatch)
        found = [f for f in examine(trial, name) if f.level == level]
    assert any(all(w in f.message for w in words) for f in found), found


def test_an_exploding_step_is_told_once_and_the_rest_goes_on(
    tiny_recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = registry.get("heads", "classification")

    def loss(*_: Any) -> HeadLoss:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(head, "loss", loss)
    found = {f.name: f for f in doctor(load(tiny_recipe), ["training step", "memory", "devices"])}
    assert found["training step"].message.endswith("fails: RuntimeError: out of luck")
    assert tells(found["memory"].message, "training step")
    assert found["devices"].level == "ok"


# Nothing is left behind.


def files(cfg: RunConfig, cache: Path) -> set[Path]:
    return {p for root in (cache, Path(cfg.trainer.out), Path.cwd()) for p in root.glob("**/*")}


def test_weights_random_numbers_and_folders_stay_as_they_were(
    tiny_recipe: str, healthy: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg, cache = load(tiny_recipe), Path(tiny_recipe).parent / "cache"
    torch.manual_seed(5)
    np.random.seed(5)
    before, threads, were = files(cfg, cache), torch.get_num_threads(), torch.get_rng_state()
    numbers = np.random.get_state()[1]
    doctor(cfg)
    assert files(cfg, cache) == before
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), were)
    assert np.array_equal(np.random.get_state()[1], numbers)

    trial = Trial(cfg)
    first = {k: v.clone() for k, v in trial.module.state_dict().items()}
    assert trial.step.losses[0] != trial.step.losses[1]  # it did train
    assert all(torch.equal(v, first[k]) for k, v in trial.module.state_dict().items())


def test_the_estimates_add_up(healthy: Trial) -> None:
    (cost,) = examine(healthy, "memory")
    parts = [cost.facts[k] for k in ("weights", "gradients", "optimiser", "activations")]
    average = cost.facts["gradients"]  # the recipe keeps averaged weights
    assert cost.facts["need"] == pytest.approx(sum(parts) + average, abs=2)
    assert cost.facts["optimiser"] == 2 * cost.facts["gradients"]
    (time,) = examine(healthy, "time")
    total = sum(time.facts[k] for k in ("training", "evaluation", "encoding"))
    assert time.facts["total"] == pytest.approx(total)
    assert time.facts["flops"] > 0
    assert f"training is {time.facts['flops'] / 1e9:,.1f} GFLOP" in time.message
    (store,) = examine(healthy, "feature store")
    bytes_per_second = healthy.module.encoder.bytes_per_second
    assert store.facts["bytes"] == round(bytes_per_second * store.facts["seconds"])


# The verb.


def test_the_verb_prints_findings_and_its_exit_code_tells_errors(
    tiny_recipe: str, sick_recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", tiny_recipe]) == 0
    out = capsys.readouterr().out
    assert "20 checks of run" in out
    assert "0 warnings, 0 errors" in out
    assert main(["doctor", sick_recipe, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["summary"]["error"] == sum(f["level"] == "error" for f in told["findings"]) > 0
    assert {f["name"] for f in told["findings"]} == set(CHECKS)


def test_what_cannot_be_run_says_what_train_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERZOO_DATA", raising=False)
    assert main(["train", "ravdess"]) == 2
    wanted = capsys.readouterr().err.replace("serzoo train", "serzoo doctor")
    assert main(["doctor", "ravdess"]) == 2
    assert capsys.readouterr().err == wanted


def test_what_is_in_the_report_is_not_told_beside_it():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with doctor_trial._reported() as in_report:
            for text in ("in the report", "1 is refused", "1 is refused"):
                warnings.warn(text, DataWarning, stacklevel=1)
            in_report.append("in the report")
    assert [str(w.message) for w in caught] == ["1 is refused"]


def test_where_no_report_follows_all_is_told():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with suppress(DataError), doctor_trial._reported() as in_report:
            in_report.append("found")
            warnings.warn("found", DataWarning, stacklevel=1)
            raise DataError("and then it failed")
    assert [str(w.message) for w in caught] == ["found"]


def test_all_models_that_are_missing_offline_are_named_at_once(
    tiny_recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paper = ["doctor", tiny_recipe, "encoder=wav2vec2-base", "encoder.layers=[4]"]
    assert main([*paper, "head=selm_paper"]) == 2
    said = capsys.readouterr().err
    assert tells(said, "encoder.name=facebook/wav2vec2-base", "head.lm=gpt2", "SERZOO_MODELS")
    assert main([*paper, "head=classification"]) == 2
    assert "also:" not in capsys.readouterr().err


def test_the_recipe_of_selm_s_paper_is_what_is_known_of_it() -> None:
    cfg = load("selm_paper")
    assert (cfg.encoder["name"], cfg.encoder["layers"]) == ("facebook/wav2vec2-base", [4])
    assert cfg.encoder["tuning"] == "frozen"
    known = {"lm": "gpt2", "order": "audio_first", "prefix": 40, "constants": "appended"}
    assert {key: cfg.head[key] for key in known} == known
    assert set(cfg.head["views"]) >= {"categorical", "sentiment", "valence"}
