"""The lock file: which commit is loaded, what is written at first use, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
from facts import says, tells
from fake_hub import COMMIT, OTHER, FakeHub
from serzoo.zoo.core import lock
from serzoo.zoo.core.errors import ConfigError, DataNote, DataWarning
from serzoo.zoo.core.hub import Published, load_speech_model
from serzoo.zoo.core.lock import Locked
from serzoo.zoo.encoders.hf import HFEncoder

SHA = "ab" * 32


@pytest.fixture
def fake(monkeypatch):
    """Installs a hub: ``hub = fake({"acme/tiny": {None: (COMMIT, {})}})``."""

    def install(*args) -> FakeHub:
        hub = FakeHub(*args)
        monkeypatch.setattr(lock, "HfApi", hub)
        return hub

    return install


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "mine" / "my.lock"
    monkeypatch.setenv("SERZOO_LOCK", str(path))
    return path


def find(name: str, revision: str | None = None) -> Published:
    return Published.find("encoder.name", name, revision, example="a/b")


# The place of the file.


def test_the_variable_comes_before_the_current_folder_and_that_before_the_cache(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SERZOO_LOCK")
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    assert lock.lock_file() == tmp_path / "cache" / "serzoo.lock"
    (tmp_path / "serzoo.lock").write_text('{"format": 1, "models": []}')
    assert lock.lock_file() == tmp_path / "serzoo.lock"
    monkeypatch.setenv("SERZOO_LOCK", "other.lock")
    assert lock.lock_file() == Path("other.lock")


def test_what_is_kept_is_read_again_and_sorted(file):
    one, two = Locked("b/b", None, COMMIT, {"model.safetensors": SHA}), Locked("a/a", "v1", OTHER)
    assert lock.keep([one, two]) == file
    assert list(lock.read(file).values()) == [two, one]
    text = json.loads(file.read_text())
    assert text["models"][1] == {
        "name": "b/b",
        "revision": None,
        "commit": COMMIT,
        "files": {"model.safetensors": SHA},
    }


def test_a_first_use_keeps_what_is_there_and_the_verb_replaces_it(file):
    lock.keep([Locked("a/a", None, COMMIT)])
    lock.keep([Locked("a/a", None, OTHER)], first=True)
    assert lock.find("a/a", None).commit == COMMIT
    lock.keep([Locked("a/a", None, OTHER)])
    assert lock.find("a/a", None).commit == OTHER
    assert lock.find("a/a", "v1") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("{", ["damaged"]),
        ("[]", ["damaged"]),
        ('{"format": 2, "models": []}', ["format"]),
        ('{"format": 1}', ["models"]),
        ('{"format": 1, "models": [{"name": "a/b", "commit": "main"}]}', ["models.0.commit"]),
        ('{"format": 1, "models": [{"revision": null}]}', ["models.0.name"]),
    ],
)
def test_a_damaged_file_is_refused_and_stays(file, text, words):
    file.parent.mkdir()
    file.write_text(text)
    for use in (lambda: lock.find("a/b", None), lambda: lock.keep([Locked("a/b", None, COMMIT)])):
        with pytest.raises(ConfigError, match=says(file, "`serzoo lock`", "SERZOO_LOCK", *words)):
            use()
    assert file.read_text() == text


# The hub.


def test_a_revision_that_may_move_is_locked_at_first_use(hub_cache, file, fake):
    hub = fake({"acme/tiny": {None: (COMMIT, {"model.safetensors": SHA})}})
    with pytest.warns(DataNote, match=says("acme/tiny", "revision=null", COMMIT, file)):
        loaded = load_speech_model("acme/tiny")
    assert (loaded.commit, loaded.revision) == (COMMIT, None)
    assert lock.read(file) == {
        ("acme/tiny", None): Locked("acme/tiny", None, COMMIT, {"model.safetensors": SHA})
    }
    hub.repos["acme/tiny"][None] = (OTHER, {})  # the branch moves
    asked = len(hub.asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert HFEncoder(name="acme/tiny").describe()["commit"] == COMMIT
    assert len(hub.asked) == asked == 1


def test_a_commit_in_the_setting_needs_neither_lock_nor_hub(hub_cache, file, fake):
    hub = fake({})
    assert load_speech_model("acme/tiny", COMMIT).commit == COMMIT
    assert (hub.asked, file.exists()) == ([], False)


def test_without_a_connection_the_cache_of_the_hub_tells_the_commit(hub_cache, file, fake):
    fake({}).down = True
    assert load_speech_model("acme/tiny", "refs/pr/1").commit == COMMIT
    assert lock.find("acme/tiny", "refs/pr/1") == Locked("acme/tiny", "refs/pr/1", COMMIT)
    with pytest.raises(ConfigError, match=says("acme/tiny", "'refs/pr/2'", "no route")):
        load_speech_model("acme/tiny", "refs/pr/2")


def test_a_revision_that_the_hub_does_not_have_is_refused(fake):
    fake({"acme/tiny": {None: (COMMIT, {})}})
    with pytest.raises(ConfigError, match=says("acme/tiny", "'v9'", "Revision Not Found: v9")):
        load_speech_model("acme/tiny", "v9")


def test_a_locked_commit_that_is_gone_is_told(hub_cache, file):
    lock.keep([Locked("acme/tiny", None, OTHER)])
    with pytest.raises(ConfigError, match=says("acme/tiny", OTHER, "`serzoo lock acme/tiny`")):
        load_speech_model("acme/tiny")


def test_a_main_branch_of_pickles_is_read_from_the_conversion_of_the_hub(hub_cache, file, fake):
    repos = {None: (OTHER, {}), "refs/pr/7": (COMMIT, {"model.safetensors": SHA})}
    hub = fake({"acme/tiny": repos}, {"acme/tiny": [("refs/pr/7", OTHER)]})
    assert load_speech_model("acme/tiny").commit == COMMIT
    assert hub.asked == [("acme/tiny", None), ("acme/tiny", "refs/pr/7")]


def test_a_conversion_of_an_older_main_branch_is_not_taken(fake):
    repos = {None: (OTHER, {}), "refs/pr/7": (COMMIT, {"model.safetensors": SHA})}
    fake({"acme/tiny": repos}, {"acme/tiny": [("refs/pr/7", "an older commit")]})
    assert lock.of_hub("acme/tiny", None) == Locked("acme/tiny", None, OTHER)
    with pytest.raises(ConfigError, match=says("acme/tiny", "model.safetensors", "refs/pr/")):
        find("acme/tiny").to_lock()


def test_the_hashes_are_those_of_the_weights_that_are_read(fake):
    single = {"model.safetensors": "1" * 64, "model.fp32-00001-of-00002.safetensors": "2" * 64}
    shards = {f"model-0000{k}-of-00002.safetensors": f"{k}" * 64 for k in (1, 2)}
    fake({"a/one": {None: (COMMIT, single)}, "a/two": {None: (COMMIT, shards)}})
    assert lock.of_hub("a/one", None).files == {"model.safetensors": "1" * 64}
    assert lock.of_hub("a/two", None).files == shards


def test_a_lock_file_that_cannot_be_written_is_told_and_the_model_loads(
    hub_cache, tmp_path, monkeypatch, fake
):
    fake({"acme/tiny": {None: (COMMIT, {})}})
    (tmp_path / "plain").write_text("a file, not a folder")
    monkeypatch.setenv("SERZOO_LOCK", str(tmp_path / "plain" / "my.lock"))
    with pytest.warns(DataWarning) as told:
        assert load_speech_model("acme/tiny").commit == COMMIT
    assert tells([str(w.message) for w in told], "acme/tiny", COMMIT, "SERZOO_LOCK")


def test_nothing_is_written_while_writing_is_off(hub_cache, file, fake):
    fake({"acme/tiny": {None: (COMMIT, {})}})
    with lock.unwritten():
        load_speech_model("acme/tiny")
    assert not file.exists()


# A folder.


@pytest.fixture
def models(tmp_path, monkeypatch, tiny_hf) -> Path:
    folder = tmp_path / "models"
    shutil.copytree(tiny_hf(), folder / "tiny")
    monkeypatch.setenv("SERZOO_MODELS", str(folder))
    return folder / "tiny"


@pytest.mark.filterwarnings("ignore::serzoo.zoo.core.errors.DataNote")
def test_a_folder_is_locked_by_the_hashes_of_its_files(models, file):
    (models / "README.md").write_text("not read")
    entry = find("acme/tiny", "refs/pr/1").to_lock()
    assert (entry.key, entry.commit) == (("acme/tiny", "refs/pr/1"), None)
    assert set(entry.files) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    lock.keep([entry])
    facts = HFEncoder(name="acme/tiny", revision="refs/pr/1").describe()
    assert (facts["read_from"], facts["commit"]) == ("SERZOO_MODELS", None)


@pytest.mark.filterwarnings("ignore::serzoo.zoo.core.errors.DataNote")
@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda f: (f / "preprocessor_config.json").write_text("{}"), "preprocessor_config.json"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
        (lambda f: (f / "processor_config.json").write_text("{}"), "processor_config.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"other"), "model.safetensors"),
    ],
)
def test_a_folder_with_other_files_than_the_locked_ones_is_refused(models, file, spoil, word):
    lock.keep([find("acme/tiny").to_lock()])
    spoil(models)
    with pytest.raises(
        ConfigError, match=says("acme/tiny", file, models, word, "`serzoo lock acme/tiny`")
    ):
        HFEncoder(name="acme/tiny")


def test_a_folder_must_hold_the_weights_of_the_locked_commit(models, file):
    weights = lock.file_hash(models / "model.safetensors")
    lock.keep([Locked("acme/tiny", COMMIT, COMMIT, {"model.safetensors": weights})])
    with pytest.warns(DataNote) as told:
        HFEncoder(name="acme/tiny", revision=COMMIT)
    assert not tells([str(w.message) for w in told], COMMIT)  # it is known to be this commit
    lock.keep([Locked("acme/tiny", COMMIT, COMMIT, {"model.safetensors": SHA})])
    again = f"`serzoo lock acme/tiny@{COMMIT}`"
    with (
        pytest.warns(DataNote),
        pytest.raises(ConfigError, match=says(COMMIT, weights[:12], SHA[:12], again)),
    ):
        HFEncoder(name="acme/tiny", revision=COMMIT)


@pytest.mark.filterwarnings("ignore::serzoo.zoo.core.errors.DataNote")
def test_a_locked_folder_is_not_replaced_by_the_hub(models, file, monkeypatch):
    lock.keep([find("acme/tiny").to_lock()])
    monkeypatch.delenv("SERZOO_MODELS")
    with pytest.raises(ConfigError, match=says("acme/tiny", "hub", "SERZOO_MODELS", file)):
        HFEncoder(name="acme/tiny")


def test_a_folder_by_its_path_is_locked_only_on_request(tiny_hf, file):
    name = tiny_hf()
    HFEncoder(name=name)
    assert not file.exists()
    lock.keep([find(name).to_lock()])
    HFEncoder(name=name)
    (Path(name) / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ConfigError, match=says(name, "model.safetensors", f"`serzoo lock {name}`")):
        HFEncoder(name=name)
