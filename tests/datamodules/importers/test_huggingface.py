from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from facts import says, tells
from serzoo.datamodules.audio import read_utterance
from serzoo.datamodules.catalog import open_corpora
from serzoo.datamodules.importers.huggingface import prepare
from serzoo.datamodules.prepare import prepare as engine
from serzoo.zoo.core.errors import ConfigError, DataError

ROWS = {
    "emotion": [0, 1, 0, 1, -1],
    "speaker_id": ["anna", "anna", "ben", "ben", "cleo"],
    "transcription": ["yes"] * 5,
    "valence": [1.0, 5.0, 3.0, None, 2.0],
}
FORMATS = ("WAV", "FLAC", "MP3", "OGG", "WAV")


@pytest.fixture
def made(sound):
    """A data set of the real library; rows may be given anew."""
    pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'serzoo[datasets]'")
    datasets = pytest.importorskip("datasets", reason="no datasets: pip install 'serzoo[formats]'")
    datasets.disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.ERROR)

    def make(embedded: bool = True, **changed: Any) -> Any:
        text, whole = datasets.Value("string"), datasets.Value("int64")
        features = {
            "audio": {"bytes": datasets.Value("binary"), "path": text},
            "emotion": whole,
            "speaker_id": text,
            "transcription": text,
            "valence": datasets.Value("float64"),
        }
        clips = [
            {"bytes": sound(200.0 + 40 * i, f) if embedded else None, "path": f"clips/{i}.wav"}
            for i, f in enumerate(FORMATS)
        ]
        rows = {"audio": clips, **ROWS, **changed}
        plain = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        features["audio"] = datasets.Audio(decode=False)
        if "emotion" not in changed:
            features["emotion"] = datasets.ClassLabel(names=["angry", "happy"])
        return plain.cast(datasets.Features(features))

    return make


def check(found: list[Any], split: str | None) -> None:
    assert [u.label for u in found] == ["angry", "happy", "angry", "happy", None]
    assert [u.speaker for u in found] == ROWS["speaker_id"]
    assert {u.labels.get("split") for u in found} == {split}
    assert [u.dims and u.dims[0] for u in found] == [0.0, 1.0, 0.5, None, 0.25]
    assert {u.text for u in found} == {"yes"}


def test_parquet_with_embedded_audio(made, tmp_path, read):
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "validation-00000-of-00001.parquet"
    made().to_parquet(file, batch_size=2)  # three groups of rows
    found, told = read(prepare, tmp_path, scale=(1, 5))
    check(found, "valid")
    assert found[3].audio == "data/validation-00000-of-00001.parquet/audio/3"
    assert found[3].id == "huggingface/data/validation-00000-of-00001#3"
    assert told == []
    out = tmp_path / "out" / "h.jsonl"
    done = engine("huggingface", root=tmp_path, out=out, options={"scale": [1, 5]}, progress=False)
    assert done.refusals == []
    assert [len(read_utterance(u, tmp_path)) for u in done.utterances[:2]] == [8000, 8000]
    again = open_corpora([], manifest=str(out)).utterances
    assert [u.sha for u in again] == [u.sha for u in done.utterances]
    assert len({u.sha for u in again}) == 5
    assert [p for p in tmp_path.rglob("*") if p.suffix in (".wav", ".flac")] == []


def test_saved_folders(made, tmp_path, read):
    import datasets

    made().save_to_disk(str(tmp_path / "one"), num_shards=2)
    found, _ = read(prepare, tmp_path / "one", scale=(1, 5))
    check(found, None)
    assert {u.audio.partition("/")[0] for u in found} == {
        "data-00000-of-00002.arrow",
        "data-00001-of-00002.arrow",
    }
    both = datasets.DatasetDict({"train": made(), "dev": made()})
    both.save_to_disk(str(tmp_path / "two"))
    found, _ = read(prepare, tmp_path / "two", scale=(1, 5))
    check(found[:5], "train")
    check(found[5:], "valid")
    done = engine("huggingface", root=tmp_path / "two", options={"scale": [1, 5]}, progress=False)
    assert len(done.utterances) == 10


def test_audio_that_is_not_embedded_is_found_by_its_path(made, tmp_path, read):
    import pyarrow.parquet

    # to_parquet would embed the files
    pyarrow.parquet.write_table(made(embedded=False).data.table, tmp_path / "train.parquet")
    found, _ = read(prepare, tmp_path, scale=(1, 5))
    assert [u.audio for u in found] == [f"clips/{i}.wav" for i in range(5)]


def test_numbers_without_names_are_told(made, tmp_path, read):
    made(emotion=[0, 1, 0, 1, 2]).to_parquet(tmp_path / "train.parquet")
    found, told = read(prepare, tmp_path, scale=(1, 5), rename={"2": "sad"})
    assert [u.label for u in found] == ["0", "1", "0", "1", "sad"]
    assert tells(told, "emotion", "options.rename={0: angry, 1: happy}")


def test_a_row_without_audio_is_refused_alone(made, tmp_path, sound):
    clips = [{"bytes": sound(100.0 * i), "path": None} for i in range(2, 6)]
    made(audio=[*clips, {"bytes": None, "path": None}]).to_parquet(tmp_path / "train.parquet")
    done = engine("huggingface", root=tmp_path, options={"scale": [1, 5]}, progress=False)
    assert len(done.utterances) == 4
    (refused,) = done.refusals
    assert tells(refused.detail, "train.parquet/audio/4", 4, "bytes")


def test_audio_folder_with_metadata(write, tmp_path, read):
    pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'serzoo[datasets]'")
    for part in ("train", "test"):
        write(
            f"{part}/metadata.csv",
            'file_name,emotion,speaker,text\na.wav,happy,anna,"yes, it is"\nx/b.wav,sad,ben,no\n',
        )
    found, told = read(prepare, tmp_path)
    assert [u.audio for u in found[2:]] == ["train/a.wav", "train/x/b.wav"]
    assert [u.labels["split"] for u in found] == ["test", "test", "train", "train"]
    assert (found[0].text, found[0].label, found[0].speaker) == ("yes, it is", "happy", "anna")
    assert told == []
    for part in ("train", "test"):
        (tmp_path / part / "metadata.csv").unlink()
    write("metadata.jsonl", json.dumps({"file_name": "c.wav", "mood": "sad"}) + "\n")
    (u,), _ = read(prepare, tmp_path, label="mood", id="file_name")
    assert (u.id, u.label, u.labels) == ("huggingface/c.wav", "sad", {})


def test_a_hub_name_without_a_connection_is_refused_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=says("hub=some/set", "root=", "hub=")):
        list(prepare(tmp_path, hub="some/set"))


def test_a_hub_name_fetches_data_and_no_code(made, tmp_path, monkeypatch, read):
    asked: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> None:
        asked.update(options, name=name)
        made().to_parquet(options["local_dir"] / "test.parquet")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    check(read(prepare, tmp_path, hub="some/set", revision="v1", scale=(1, 5))[0], "test")
    assert (asked["name"], asked["repo_type"], asked["revision"]) == ("some/set", "dataset", "v1")
    assert {
        p for p in asked["allow_patterns"] if p.endswith((".py", ".pkl", ".pt", ".bin"))
    } == set()


@pytest.mark.parametrize(
    ("name", "text", "facts"),
    [
        ("readme.txt", "", ["metadata.csv", "state.json", "corpus=folder"]),
        ("train.parquet", "PAR1 or not", ["train.parquet", "download"]),
        ("state.json", "{", ["state.json"]),
        ("state.json", '{"_data_files": [{"filename": "a.arrow"}]}', ["state.json", "a.arrow"]),
        ("dataset_dict.json", '{"splits": "train"}', ["dataset_dict.json", "splits"]),
        ("dataset_dict.json", '{"splits": ["train"]}', ["state.json", "train"]),
        ("metadata.csv", "file,emotion\na.wav,sad\n", ["metadata.csv", "line 2", "file_name"]),
        ("metadata.csv", "file_name,emotion\na.wav\n", ["metadata.csv", "line 2"]),
        ("metadata.csv", 'file_name,emotion\n"a.wav,sad\n', ["metadata.csv", "line 2"]),
        ("metadata.jsonl", '{"file_name": "a.wav"}\n[]\n', ["metadata.jsonl", "line 2"]),
        ("metadata.csv", "file_name,emotion\n../a.wav,sad\n", ["metadata.csv", "line 2", "root="]),
    ],
)
def test_a_damaged_data_set_names_file_and_line(write, tmp_path, name, text, facts):
    pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'serzoo[datasets]'")
    write(name, text)
    with pytest.raises(DataError, match=says(*facts)):
        list(prepare(tmp_path))


def test_a_class_without_a_name_and_a_wrong_column(made, tmp_path):
    import datasets
    import pyarrow.parquet

    made().to_parquet(tmp_path / "train.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "train.parquet")
    place = table.column_names.index("emotion")
    odd = table.set_column(place, table.schema.field(place), [[0, 7, 0, 1, 1]])
    pyarrow.parquet.write_table(odd, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=says("train.parquet", "row 1", 7, 2, "angry")):
        list(prepare(tmp_path, scale=(1, 5)))
    with pytest.raises(DataError, match=says("train.parquet", "sound", "audio")):
        list(prepare(tmp_path, scale=(1, 5), audio="sound"))
    assert datasets.__version__ >= "5"
