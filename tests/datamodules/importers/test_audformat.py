from __future__ import annotations

import math
from dataclasses import replace

import pytest
from facts import says, tells
from serzoo.datamodules.importers.audformat import prepare, to_audformat
from serzoo.datamodules.prepare import prepare as engine
from serzoo.zoo.core.errors import DataError

audformat = pytest.importorskip("audformat", reason="no audformat: pip install 'serzoo[audformat]'")
FILES = ["audio/a.wav", "audio/b.wav", "audio/c.wav"]


@pytest.fixture
def db():
    """A database of the real library: a table of files, and one of emotions for each part."""
    db = audformat.Database("tiny", languages=["deu"])
    db.splits["train"] = audformat.Split("train")
    db.splits["test"] = audformat.Split("test")
    db.schemes["emotion"] = audformat.Scheme(labels=["anger", "joy"])
    db.schemes["speaker"] = audformat.Scheme(
        labels={"s1": {"gender": "female"}, "s2": {"gender": "male"}}
    )
    db.schemes["arousal"] = audformat.Scheme("float", minimum=1, maximum=7)
    db["files"] = audformat.Table(audformat.filewise_index(FILES))
    db["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    db["files"]["speaker"].set(["s1", "s2", "s2"])
    parts = {"emotion.train": (FILES[:2], "train"), "emotion.test": (FILES[2:], "test")}
    for name, (files, part) in parts.items():
        db[name] = audformat.Table(audformat.filewise_index(files), split_id=part)
        db[name]["emotion"] = audformat.Column(scheme_id="emotion")
        db[name]["emotion"].set(["anger", "joy"][: len(files)])
        db[name]["arousal"] = audformat.Column(scheme_id="arousal")
        db[name]["arousal"].set([4.0, None][: len(files)])
    return db


def test_tables_splits_and_schemes(db, tmp_path, read):
    for storage in ("csv", "parquet"):
        root = tmp_path / storage
        db.save(str(root), storage_format=storage)
        found, told = read(prepare, root, rename={"joy": "happy"})
        found.sort(key=lambda u: u.audio)  # audformat sorts the tables by name
        assert [u.audio for u in found] == FILES
        assert [u.label for u in found] == ["anger", "happy", "anger"]
        assert [u.labels["split"] for u in found] == ["train", "train", "test"]
        assert [(u.speaker, u.gender) for u in found] == [
            ("s1", "female"),
            ("s2", "male"),
            ("s2", "male"),
        ]
        assert [u.dims for u in found] == [(None, 0.5, None), None, (None, 0.5, None)]
        assert {u.language for u in found} == {"de"}
        assert found[0].id == "audformat/audio/a"
        assert told == []


def test_segments_raters_and_facts_in_a_misc_table(db, tmp_path, read):
    import pandas

    db["people"] = audformat.MiscTable(pandas.Index(["s1", "s2"], name="speaker", dtype="string"))
    db["people"]["sex"] = audformat.Column()
    db["people"]["sex"].set(["f", "m"])
    db.schemes["who"] = audformat.Scheme("str", labels="people")
    db["files"]["who"] = audformat.Column(scheme_id="who")
    db["files"]["who"].set(["s1", "s2", "s2"])
    index = audformat.segmented_index(
        [FILES[0], FILES[0], FILES[1]], [0, "0.5s", 0], ["0.5s", "1s", pandas.NaT]
    )
    db["turns"] = audformat.Table(index)
    for rater, said in {"r1": ["joy", "joy", None], "r2": ["joy", "anger", "anger"]}.items():
        db["turns"][rater] = audformat.Column(scheme_id="emotion")
        db["turns"][rater].set(said)
    db.save(str(tmp_path), storage_format="csv")
    found, _ = read(
        prepare, tmp_path, tables=["turns"], label="r2", speaker="who", raters=["r1", "r2"]
    )
    assert [(u.start, u.end) for u in found[:2]] == [(0.0, 0.5), (0.5, 1.0)]
    assert math.isnan(found[2].end)
    assert found[1].id == "audformat/audio/a#0.5-1"
    assert [u.votes for u in found] == [{"joy": 2.0}, {"joy": 1.0, "anger": 1.0}, {"anger": 1.0}]
    assert [u.gender for u in found] == ["female", "female", "male"]


def test_a_row_of_two_tables_is_taken_once(db, tmp_path, read):
    db["emotion"] = audformat.Table(audformat.filewise_index(FILES))
    db["emotion"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["emotion"]["emotion"].set(["anger", "joy", "anger"])
    db.save(str(tmp_path), storage_format="csv")
    found, told = read(prepare, tmp_path)
    assert len(found) == 3
    assert {u.labels["split"] for u in found} == {"train", "test"}
    assert tells(told, 3, "audformat/audio/a")
    db["emotion"]["emotion"].set(["joy", "joy", "anger"])
    db.save(str(tmp_path), storage_format="csv")
    with pytest.raises(
        DataError, match=says("audformat/audio/a", "anger", "joy", "options.tables")
    ):
        list(prepare(tmp_path))


def test_a_pickle_and_yaml_with_code_are_refused(db, tmp_path):
    db.save(str(tmp_path), storage_format="csv")
    (tmp_path / "db.files.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match=says("db.files.pkl", "parquet")):
        list(prepare(tmp_path))
    (tmp_path / "db.files.pkl").unlink()
    mark = tmp_path / "ran"
    header = tmp_path / "db.yaml"
    code = f'description: !!python/object/apply:os.mkdir ["{mark}"]\n'
    header.write_text(code + header.read_text("utf-8"), "utf-8")
    with pytest.raises(DataError, match=says("db.yaml")):
        list(prepare(tmp_path))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("damage", "options", "facts"),
    [
        (lambda r: (r / "db.yaml").unlink(), {}, ["db.yaml", "options.header"]),
        (lambda r: (r / "db.yaml").write_text("- 1\n"), {}, ["db.yaml", "header"]),
        (lambda r: (r / "db.yaml").write_text("a: [\n"), {}, ["db.yaml", "line 2"]),
        (lambda r: (r / "db.files.csv").unlink(), {}, ["files", "db.files.csv"]),
        (lambda r: (r / "db.files.csv").write_text("x,y\n1,2\n"), {}, ["db.files.csv", "speaker"]),
        (lambda r: None, {"tables": ["emotions"]}, ["emotions", "emotion.train"]),
        (lambda r: None, {"label": "feeling"}, ["feeling", "label=", "emotion"]),
        (lambda r: None, {"scale": (1, 3)}, ["audio/c.wav", "arousal", "scale="]),
    ],
)
def test_a_damaged_database_names_table_and_remedy(db, tmp_path, damage, options, facts):
    db.save(str(tmp_path), storage_format="csv")
    damage(tmp_path)
    with pytest.raises(DataError, match=says(*facts)):
        list(prepare(tmp_path, **options))


def test_what_is_written_is_read_by_the_real_library_and_back(tmp_path, write_wave, read):
    for name in ("happy/a.wav", "happy/b.wav", "sad/c.wav"):
        write_wave(tmp_path / name)
    found = engine("folder", root=tmp_path, options={"language": "en"}, progress=False).utterances
    parts = ("train", "test", "train")
    given = [
        replace(u, speaker=f"s{i}", labels={"split": part}, dims=(0.25, None, None), text="yes")
        for i, (u, part) in enumerate(zip(found, parts, strict=True))
    ]
    given.append(replace(given[2], id="folder/sad/c2", start=0.1, end=0.3, label="happy"))
    header = to_audformat(given, tmp_path, name="mine")
    db = audformat.Database.load(str(header.parent))
    assert sorted(db.tables) == ["emotion.test", "emotion.train"]
    assert db.languages == ["eng"]
    assert list(db["emotion.test"]["speaker"].get()) == ["s1"]
    back, _ = read(prepare, tmp_path)
    key = lambda u: (u.audio, u.start)  # noqa: E731
    for before, after in zip(sorted(given, key=key), sorted(back, key=key), strict=True):
        for fact in ("audio", "start", "label", "speaker", "language", "labels", "dims", "text"):
            assert getattr(before, fact) == getattr(after, fact)
        assert after.end == pytest.approx(before.end, abs=1e-6)


def test_nothing_is_not_written(tmp_path):
    with pytest.raises(DataError, match=says("to_audformat", 0)):
        to_audformat([], tmp_path, name="mine")
