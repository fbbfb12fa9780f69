"""The two readers of a user's own data: a folder per label, and a table."""

import re
import warnings

import pytest
from facts import messages, says, tells
from serzoo.datamodules.opening import open_data
from serzoo.datamodules.prepare import prepare
from serzoo.zoo.core.errors import ConfigError, DataError, DataWarning
from serzoo.zoo.core.registry import check_options, get
from serzoo.zoo.core.shipped import read_yaml
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run.words import read_settings


def test_folder_with_speakers(tmp_path, write_wave):
    for name in ("angry/spk1/a.wav", "angry/spk2/a.ogg", "sad/day 1/spk1-b.flac"):
        write_wave(tmp_path / name)
    write_wave(tmp_path / "loose.wav")
    prepared = prepare("folder", root=tmp_path, options={"speaker": r"spk(\d)", "language": "en"})
    assert [(u.id, u.audio, u.label, u.speaker, u.language) for u in prepared.utterances] == [
        ("folder/angry/spk1/a", "angry/spk1/a.wav", "angry", "1", "en"),
        ("folder/angry/spk2/a", "angry/spk2/a.ogg", "angry", "2", "en"),
        ("folder/sad/day 1/spk1-b", "sad/day 1/spk1-b.flac", "sad", "1", "en"),
    ]
    (warning,) = prepared.warnings
    assert tells(warning.message, "folder", "1 files", "loose.wav")


def test_folder_without_speakers_makes_none_up(tmp_path, write_wave):
    for name in ("angry/a.wav", "angry/b.wav"):
        write_wave(tmp_path / name)
    prepared = prepare("folder", root=tmp_path)
    assert [u.speaker for u in prepared.utterances] == [None, None]
    assert "2 utterances of unknown speakers" in str(prepared)
    (message,) = messages(prepared, "reader")
    assert tells(message, "2", "data.unknown_speakers", "speaker=")


def test_a_warning_keeps_words_that_are_called_as_the_root(tmp_path, write_wave, monkeypatch):
    write_wave(tmp_path / "data" / "angry" / "a.wav")
    monkeypatch.chdir(tmp_path)
    (message,) = messages(prepare("folder", root="data"), "reader")
    assert "data.unknown_speakers" in message


def test_folder_labels_that_no_taxonomy_holds(tmp_path, write_wave):
    for name in ("Anger/a.wav", "Anger/b.wav", "sad/c.wav", "grumpy/d.wav"):
        write_wave(tmp_path / name)
    prepared = prepare("folder", root=tmp_path)
    (message,) = messages(prepared, "label")
    assert re.search(r"'anger' \(2, .*angry\?\), 'grumpy' \(1\)", message)
    renamed = {"Anger": "angry", "grumpy": "frustrated"}
    prepared = prepare("folder", root=tmp_path, options={"rename": renamed})
    assert messages(prepared, "label") == []
    assert [u.label for u in prepared.utterances] == ["angry", "angry", "frustrated", "sad"]
    with pytest.raises(DataError, match=says("'anger'", "Anger, grumpy, sad")):
        prepare("folder", root=tmp_path, options={"rename": {"anger": "angry"}})


@pytest.mark.parametrize(
    ("speaker", "error", "message"),
    [
        ("spk(", ConfigError, r"speaker='spk\('.* 3\b"),
        ("spk", ConfigError, "speaker='spk'.* 0 "),
        ("(s)(p)", ConfigError, r"speaker='\(s\)\(p\)'.* 2 "),
        ("spk(3)", DataError, r"speaker='spk\(3\)'.* 2 of 2 .*angry/spk1\.wav"),
    ],
)
def test_folder_with_a_bad_pattern(tmp_path, write_wave, speaker, error, message):
    for name in ("angry/spk1.wav", "angry/spk2.wav"):
        write_wave(tmp_path / name)
    with pytest.raises(error, match=message):
        prepare("folder", root=tmp_path, options={"speaker": speaker})


def test_folder_without_sub_folders(tmp_path, write_wave):
    write_wave(tmp_path / "a.wav")
    with pytest.raises(DataError, match=says("1 files", "angry/clip1.wav")):
        prepare("folder", root=tmp_path)


@pytest.fixture
def table(tmp_path, write_wave):
    """A function that writes a table beside ``x/1.wav`` and ``x/2.wav`` and prepares it."""
    for name in ("1", "2"):
        write_wave(tmp_path / "x" / f"{name}.wav", seconds=2.0)

    def run(content, /, *, name="data.csv", **options):
        (tmp_path / name).write_text(content, "utf-8")
        return prepare("csv", root=tmp_path, options=options)

    return run


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_csv_with_the_users_column_names(table, delimiter):
    content = (
        "\ufeffclip,who,mood,said,sex,lang,val,aro,note\n"
        'x/1.wav,Ann,angry,"Well, no; so | be\tit",F,en,1,,n1\n'
        "x\\2.wav,Bob,,,male,,5,3,\n"
    )
    if delimiter != ",":
        content = content.replace(",", delimiter).replace(f"Well{delimiter}", "Well,")
    first, second = table(
        content,
        audio="clip",
        speaker="who",
        label="mood",
        text="said",
        gender="sex",
        language="lang",
        valence="val",
        arousal="aro",
        labels=["note"],
        scale=[1, 5],
    ).utterances
    assert first.id == "csv/x/1"
    assert (first.speaker, first.label, first.gender, first.language) == (
        "Ann",
        "angry",
        "female",
        "en",
    )
    assert (first.text, first.text_source) == ("Well, no; so | be\tit", "human")
    assert first.dims == (0.0, None, None)
    assert first.labels == {"note": "n1"}
    assert second.audio == "x/2.wav"
    assert (second.label, second.text, second.text_source) == (None, None, None)
    assert (second.gender, second.language, second.labels) == ("male", None, {})
    assert second.dims == (1.0, 0.5, None)


def test_csv_columns_of_the_fields_own_names_need_no_option(table):
    prepared = table(
        "id,audio,label,speaker,session,start,end\n"
        "a,x/1.wav,sad,s1,d1,0.25,0.75\n"
        "b,x/1.wav,sad,s1,d1,0.75,2.01\n"
        "c,x/2.wav,sad,s2,d2,,\n"
    )
    facts = [(u.id, u.session, u.start, u.end) for u in prepared.utterances]
    assert facts == [
        ("csv/a", "d1", 0.25, 0.75),
        ("csv/b", "d1", 0.75, 2.0),
        ("csv/c", "d2", 0.0, 2.0),
    ]
    assert prepared.warnings == []
    assert len({u.sha for u in prepared.utterances}) == 3


def test_csv_segments_without_ids_and_speakers(table):
    prepared = table("audio,start,end\nx/1.wav,0,1\nx/1.wav,1,2\n")
    assert [u.id for u in prepared.utterances] == ["csv/x/1#0-1", "csv/x/1#1-2"]
    assert [u.speaker for u in prepared.utterances] == [None, None]
    label, message = messages(prepared, "reader")
    assert tells(label, "'label'", "options.label=")
    assert tells(message, "2", "unknown", "columns: audio, end, start")


def test_csv_speakers_that_nobody_knows_are_counted(table):
    content = "audio,start,end,speaker\n"
    cells = ("Ann", "", "Unknown", "", "nan", "Nan")
    for i, cell in enumerate(cells):
        content += f"x/1.wav,{i / 4},{i / 4 + 0.25},{cell}\n"
    prepared = table(content)
    assert [u.speaker for u in prepared.utterances] == ["Ann", None, None, None, None, None]
    assert tells(str(prepared), "6 utterances", "1 speaker")
    _, message = messages(prepared, "reader")
    assert tells(message, "5 of 6", "'' 2, 'Unknown' 1, 'nan' 1, 'Nan' 1")


def test_csv_refusals(table):
    prepared = table(
        "audio,speaker,start,end\n"
        "x/1.wav,s,0,1\n"
        "x/3.wav,s,,\n"
        "x/2.wav,s,1.5,2.5\n"
        "x/2.wav,s,1,0.5\n"
        "x/2.wav,s,-1,0.5\n"
        "x/2.wav,s,1,1.05\n"
    )
    assert prepared.refused == {
        "segment outside the file": 3,
        "missing": 1,
        "shorter than 0.1 s": 1,
    }


def test_csv_rename_and_unknown_gender(table):
    prepared = table(
        "audio,speaker,label,gender\nx/1.wav,s,anger,x\nx/2.wav,s,sad,\n", rename={"anger": "angry"}
    )
    assert [(u.label, u.gender) for u in prepared.utterances] == [("angry", None), ("sad", None)]
    (message,) = messages(prepared, "reader")
    assert tells(message, "csv", "gender 'x' (1)", "female, f, w, male, m")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file,emotion\nx/1.wav,sad\n", {}, r"'audio' \(audio=\).* emotion, file"),
        (
            "audio,emotion\nx/1.wav,sad\n",
            {"label": "emotoin"},
            r"'emotoin' \(label=\).* audio, emotion.*'emotion'",
        ),
        ("audio\nx/1.wav\n", {"labels": ["vote"]}, r"'vote' \(labels=\)"),
        ("audio,label,label\nx/1.wav,a,b\n", {}, r"2 .*'label' \(label=\)"),
        ("audio,label\nx/1.wav\n", {}, "line 2: 1 .* 2[; ]"),
        ("audio,label\nx/1.wav,a\n,b\n", {}, "line 3: .*audio"),
        ("audio,start\nx/1.wav,soon\n", {}, "line 2: start .*'soon'"),
        ("audio,end\nx/1.wav,nan\n", {}, "line 2: end .*'nan'"),
        ("audio,valence\nx/1.wav,3\n", {}, r"line 2: valence .*3.* scale=\[0\.0, 1\.0\]"),
        ("audio,valence\nx/1.wav,3\n", {"scale": [5, 1]}, r"scale=\[5, 1\]"),
        ("audio\n../1.wav\n", {}, r"line 2: '\.\./1\.wav'.* root="),
        ("audio\nx/1.wav\nx/1.wav\n", {}, "data.csv: 1 ids .*x/1, lines 2, 3"),
        ("audio\n", {}, r"data\.csv .*audio$"),
        ("", {}, r"'audio' \(audio=\)"),
        ("audio\nx/1.wav\n", {"table": "other.csv"}, r"other\.csv.* table="),
    ],
)
def test_csv_errors_say_where(table, text, options, message):
    with pytest.raises(DataError, match=message):
        table(text, **options)


def test_csv_which_table(table, tmp_path):
    text = "audio\nx/1.wav\n"
    assert len(table(text).utterances) == 1
    with pytest.raises(DataError, match=says(2, "data.csv, more.tsv", "table=")):
        table(text, name="more.tsv")
    assert len(table(text, table="more.tsv").utterances) == 1
    with pytest.raises(DataError, match=says("root=", "data.csv", "table=")):
        prepare("csv", root=tmp_path / "data.csv")


def test_csv_takes_absolute_paths_below_root(table, tmp_path):
    prepared = table(f"audio\n{tmp_path.resolve() / 'x' / '1.wav'}\n")
    assert [u.audio for u in prepared.utterances] == ["x/1.wav"]


def test_folders_that_are_linked_into_place(tmp_path, write_wave):
    write_wave(tmp_path / "store" / "clips" / "a.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "sad").symlink_to(tmp_path / "store" / "clips")
    (tmp_path / "store" / "clips" / "circle").symlink_to(root)
    prepared = prepare("folder", root=root)
    assert [u.audio for u in prepared.utterances] == ["sad/a.wav"]


def test_rows_that_name_audio_which_cannot_be_read_say_how_to_convert_it(tmp_path, write_wave):
    write_wave(tmp_path / "1.wav")
    (tmp_path / "2.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    (tmp_path / "3.aac").write_bytes(bytes(range(256)))
    (tmp_path / "t.csv").write_text("audio,label\n1.wav,sad\n2.m4a,sad\n3.aac,sad\n4.wav,sad\n")
    prepared = prepare("csv", root=tmp_path)
    assert [u.audio for u in prepared.utterances] == ["1.wav"]
    assert [r.path for r in prepared.refusals] == ["2.m4a", "3.aac", "4.wav"]
    assert ["ffmpeg -i" in r.detail for r in prepared.refusals] == [True, True, False]
    assert prepared.refused["missing"] == 1


# Tables from spreadsheets and other tools.


ROWS = [(f"a/{i}.wav", label, f"s{i}") for i, label in enumerate(["angry", "sad", "happy"])]
HEAD = ("audio", "label", "speaker")


@pytest.fixture
def read(tmp_path):
    """A function that reads a table without its audio: labels and speakers, and what was told."""

    def run(content, **options):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "data.csv").write_bytes(data)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = list(get("corpora", "csv")(tmp_path, **options))
        return [(u.audio, u.label, u.speaker) for u in found], [str(w.message) for w in caught]

    return run


def lines(rows=ROWS, head=HEAD, by=",", end="\n"):
    return "".join(by.join(cells) + end for cells in [head, *rows])


@pytest.mark.parametrize(
    "content",
    [
        lines(end="\r\n"),
        lines(end="\r"),
        lines().encode("utf-8-sig"),
        lines().encode("utf-16"),
        lines().encode("utf-16-le"),
        lines(by=";"),
        "sep=;\r\n" + lines(by=";", end="\r\n"),
        "sep=:\n" + lines(by=":"),
        "# exported, 2024\n#\n\n" + lines(),
        lines(head=("Audio", "LABEL", "Speaker ")),
        lines() + "\n , , \n,,\n",
        lines([(a, f" {b}\t", f"{c} ") for a, b, c in ROWS]),
        lines([(f'"{a}"', f'"{b}"', f'"{c}"') for a, b, c in ROWS]),
        lines([(*row, "") for row in ROWS]),  # a delimiter too many at the end
        lines([(str(i), *row) for i, row in enumerate(ROWS)], head=("", *HEAD)),
        lines(by=";", head=(*HEAD[:2], "speaker", '"age, sex, place, time, day"'))
        .replace(".wav;", ".wav;", 1)
        .replace("s0", "s0;x")
        .replace("s1", "s1;y")
        .replace("s2", "s2;z"),
    ],
)
def test_a_table_is_read_however_it_was_saved(read, content):
    assert read(content) == (ROWS, [])


def test_an_old_encoding_is_read_and_told(read):
    rows = [("ä.wav", "wütend", "Jörg"), *ROWS[1:]]
    found, (told,) = read(lines(rows).encode("cp1252"))
    assert found == rows
    assert "Windows-1252" in told
    assert "line 2: 'ä.wav'" in told
    with pytest.raises(DataError, match=r"line 3: .*0xe4"):
        read(lines([("ü.wav", "sad", "s")]).encode() + "ä.wav,sad,s\n".encode("cp1252"))


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (lines(by=" "), "separated by blanks"),
        (lines(head=ROWS[0]), "first line"),
        (lines() + "\0\0\0", "line 5: a NUL"),
        (lines() + "a/4.wav,sad\n", "line 5: 2 cells.* 3"),
        ("sep=,\n# x\n" + lines() + "a/4.wav\n", "line 7: 1 cells"),
        (lines() + 'a/4.wav,sad,"s4\na/5.wav,sad,s5\n', "line 5: cannot be read"),
        (lines() + 'a/4.wav,"sad"x,s4\n', "line 5: cannot be read"),
        (lines(head=("AUDIO", "Audio", "speaker")), "2 columns 'audio'"),
        (b"PK\x03\x04....", "spreadsheet"),
    ],
)
def test_what_is_no_table_is_told_with_its_line(read, content, fact):
    with pytest.raises(DataError, match=fact):
        read(content)


def test_words_for_not_known_are_no_labels(read):
    words = ["nan", "None", "N/A", "NULL", "na", "-", "?", "", "sad"]
    rows = [(f"{i}.wav", word, "s") for i, word in enumerate(words)]
    found, (told,) = read(lines(rows))
    assert [label for _, label, _ in found] == [None] * 8 + ["sad"]
    assert "'nan' (1)" in told
    assert "7 utterances" in told
    assert "rename=" in told
    found, _ = read(lines(rows), rename={"None": "neutral"})
    assert found[1][1] == "neutral"
    assert found[2][1] is None


@pytest.mark.filterwarnings("ignore::serzoo.zoo.core.errors.DataWarning")
def test_words_for_not_known_are_no_facts_either(tmp_path):
    (tmp_path / "data.csv").write_text(
        "audio,gender,valence,text,vote\n1.wav,NaN,nan,None,N/A\n2.wav,f,0.5,no,A\n"
    )
    with pytest.warns(DataWarning, match=r"gender: 'NaN' \(1\)"):
        first, second = get("corpora", "csv")(tmp_path, labels=["vote"])
    assert (first.gender, first.dims, first.text, first.labels) == (None, None, "None", {})
    assert (second.gender, second.dims, second.labels) == (
        "female",
        (0.5, None, None),
        {"vote": "A"},
    )


def test_labels_that_differ_in_spelling_are_one_and_told(read):
    words = ["angry", "Angry ", "ANGRY", "angry", "sad", "sehr  müde", "sehr mu\u0308de"]
    rows = [(f"{i}.wav", word, "s") for i, word in enumerate(words)]
    found, told = read(lines(rows))
    assert [label for _, label, _ in found] == ["angry"] * 4 + ["sad"] + ["sehr  müde"] * 2
    assert "'angry' (2), 'Angry' (1), 'ANGRY' (1)" in told[0]
    assert len(told) == 2
    # named one by one they are kept apart
    apart = {"angry": "a", "Angry": "b", "ANGRY": "c"}
    found, told = read(lines(rows[:5]), rename=apart)
    assert [label for _, label, _ in found] == ["a", "b", "c", "a", "sad"]
    assert told == []
    # one of them renamed is all of them renamed
    found, _ = read(lines(rows[:5]), rename={"angry": "furious"})
    assert [label for _, label, _ in found] == ["furious"] * 4 + ["sad"]


@pytest.mark.parametrize("written", [["0", "1"], ["0.0", "1.0"], ["0", "1.0"]])
@pytest.mark.parametrize(
    "typed",
    ["{0: angry, 1: sad}", '{"0": angry, "1": sad}', "{0.0: angry, 1.0: sad}"],
)
def test_numbers_are_renamed_however_they_are_written(read, written, typed):
    rows = [(f"{i}.wav", word, "s") for i, word in enumerate(written)]
    options = read_settings([f"options.rename={typed}"], {}, ["csv"])["options"]
    assert [label for _, label, _ in read(lines(rows), **options)[0]] == ["angry", "sad"]
    # as a recipe has them
    options = {"rename": check_options("corpora", "csv", read_yaml(f"rename: {typed}"))["rename"]}
    assert [label for _, label, _ in read(lines(rows), **options)[0]] == ["angry", "sad"]


def test_no_label_is_called_null(read):
    options = read_settings(["options.rename={sad: null}"], {}, ["csv"])["options"]
    with pytest.raises(DataError, match="'sad' becomes 'null'"):
        read(lines(), **options)


def test_a_label_under_another_name_is_suggested(read):
    found, (told,) = read(lines(head=("audio", "Emotion", "speaker")))
    assert {label for _, label, _ in found} == {None}
    assert "options.label=Emotion" in told
    assert "audio, Emotion, speaker" in told
    assert read(lines(head=("audio", "Emotion", "speaker")), label="emotion") == (ROWS, [])


def test_several_raters_are_told_apart_from_ids_that_are_none(read):
    ratings = [(*row[:2], row[2], f"r{i}") for row in ROWS for i in range(3)]
    ratings[1] = ("a/0.wav", "sad", "s0", "r1")
    head = (*HEAD, "rater")
    assert read(lines(ratings, head)) == (ROWS, [])
    with pytest.raises(DataError, match=r"3 ids .*different recordings.*options.id=rater"):
        read(lines(ratings, head), id="rater")


@pytest.mark.parametrize("label", ["angry|sad", "{'angry': 0.6, 'sad': 0.4}", "angry;sad"])
def test_several_labels_in_a_cell_are_told(read, label):
    found, (told,) = read(lines([("1.wav", f'"{label}"', "s"), *ROWS[1:]]))
    assert found[0][1] == label
    assert "1 of 3 labels" in told
    assert "line 2" in told


def test_sub_folders_that_differ_in_case_are_one_label(tmp_path, write_wave):
    for name in ("Angry/a.wav", "angry/b.wav", "angry/c.wav", "none/d.wav"):
        write_wave(tmp_path / name)
    prepared = prepare("folder", root=tmp_path, options={"speaker": "([a-z]).wav"})
    assert [u.label for u in prepared.utterances] == ["angry", "angry", "angry", "none"]
    assert "'angry' (2), 'Angry' (1)" in messages(prepared, "reader")[0]


def test_a_corpus_without_labels_is_told_and_not_trained_on(table, tmp_path):
    prepared = table("audio,speaker\nx/1.wav,a\nx/2.wav,b\n")
    assert "none of 2 utterances is labelled" in messages(prepared, "label")[0]
    with pytest.raises(DataError, match=r"none of 2 utterances .*options\.label="):
        open_data(["csv"], protocol="kfold-3", taxonomy=Taxonomy.load("big4"), root=str(tmp_path))
    with pytest.raises(DataError, match=r"none of 2 utterances .*options\.label="):
        open_data(["csv"], protocol="kfold-3", taxonomy=None, root=str(tmp_path))
