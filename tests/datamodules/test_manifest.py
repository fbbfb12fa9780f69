import json
import math
from dataclasses import replace

import pytest
from facts import says
from serzoo.datamodules.manifest import Utterance, read_manifest, validate, write_manifest
from serzoo.zoo.core.errors import DataError

PLAIN = Utterance("c/1", "c", "a/1.wav", 0.0, 1.5, 16000, "s1")
FULL = Utterance(
    id="c/2",
    corpus="c",
    audio="a/2.wav",
    start=0.25,
    end=1.1234567890123,
    sample_rate=48000,
    speaker="05",
    session="Ses01",
    gender="female",
    language="pl",
    label="0010",
    labels={"voice_vote": "A:N"},
    dims=(0.5, None, 1.0),
    text='Zażółć "gęślą"\u2028jaźń',
    text_source="human",
    label_source="acted",
    label_score=0.9,
    votes={"0010": 7, "0011": 2.5},
    sha="0123456789abcdef",
    channel=2,
)


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "m.jsonl"
    write_manifest(path, [PLAIN, FULL])
    assert read_manifest(path) == [PLAIN, FULL]
    assert [p.name for p in path.parent.iterdir()] == ["m.jsonl"]


def test_a_line_is_json_without_empty_fields(tmp_path):
    write_manifest(tmp_path / "m", [PLAIN])
    assert json.loads((tmp_path / "m").read_text()) == {
        "id": "c/1",
        "corpus": "c",
        "audio": "a/1.wav",
        "start": 0.0,
        "end": 1.5,
        "sample_rate": 16000,
        "speaker": "s1",
    }


def test_a_manifest_can_say_that_nobody_knows_who_speaks(tmp_path):
    unknown = replace(PLAIN, speaker=None)
    write_manifest(tmp_path / "m", [unknown, FULL])
    assert json.loads((tmp_path / "m").read_text().splitlines()[0])["speaker"] is None
    assert read_manifest(tmp_path / "m") == [unknown, FULL]
    # as older manifests could say it; to leave the key out is an error, as it was
    (tmp_path / "m").write_text(GOOD + ', "speaker": ""}\n', "utf-8")
    assert read_manifest(tmp_path / "m")[0].speaker is None


def test_a_failed_write_leaves_the_old_manifest(tmp_path):
    path = tmp_path / "m.jsonl"
    write_manifest(path, [PLAIN])
    before = path.read_bytes()
    with pytest.raises(DataError, match=says("'c/1'", "end nan")):
        write_manifest(path, [PLAIN, replace(PLAIN, end=math.nan)])

    def broken():
        yield FULL
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, broken())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


GOOD = '{"id": "a", "corpus": "c", "audio": "x.wav", "start": 0, "end": 1, "sample_rate": 8000'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": ', "line 2: not a line of JSON"),
        ("[1, 2]", "line 2: not a line of JSON (it holds [1, 2]"),
        (GOOD + ', "speaker": "s", "emotoin": "x"}', "line 2: unknown key 'emotoin'"),
        (GOOD + ', "speaker": "s", "lable": "x"}', "did you mean 'label'?"),
        (GOOD + "}", "line 2: lacks speaker"),
        (GOOD + ', "speaker": 5}', "line 2: speaker is 5; expected a string"),
        (GOOD + ', "speaker": "s", "dims": [1, 2]}', "line 2: dims is"),
        (GOOD + ', "speaker": "s", "labels": {"a": 1}}', "line 2: labels is"),
        (GOOD + ', "speaker": "s", "labels": null}', "line 2: labels is"),
        (GOOD + ', "speaker": "s", "channel": 0}', "expected a whole number from 1"),
        (GOOD + ', "speaker": "s", "channel": "first"}', "expected a whole number from 1"),
        (GOOD.replace("8000", "8000.5") + ', "speaker": "s"}', "expected a whole number"),
        (GOOD.replace('"end": 1', '"end": NaN') + ', "speaker": "s"}', "NaN is not JSON"),
        (GOOD.replace('"end": 1', '"end": true') + ', "speaker": "s"}', "expected a number"),
    ],
)
def test_a_bad_line_is_an_error_with_its_number(tmp_path, line, message):
    path = tmp_path / "m.jsonl"
    path.write_text(GOOD + ', "speaker": "s"}\n' + line + "\n", "utf-8")
    with pytest.raises(DataError) as error:
        read_manifest(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_whole_numbers_are_read_as_floats(tmp_path):
    (tmp_path / "m").write_text(GOOD + ', "speaker": "s", "dims": [0, null, 1]}')
    (utterance,) = read_manifest(tmp_path / "m")
    assert type(utterance.end) is float
    assert utterance.dims == (0.0, None, 1.0)


def test_no_manifest_and_an_empty_one(tmp_path):
    with pytest.raises(DataError, match=says("none.jsonl", "serzoo prepare")):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=says("empty.jsonl", "serzoo prepare")):
        read_manifest(tmp_path / "empty.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=says("binary", "line 1", "UTF-16")):
        read_manifest(tmp_path / "binary")


def test_validate_accepts_what_is_there(tmp_path, write_wave):
    write_wave(tmp_path / "a" / "1.wav")
    validate([PLAIN], tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": 0.0}, "1 utterances whose end is not after their start"),
        ({"end": math.nan}, "1 utterances whose end is not after their start"),
        ({"end": math.inf}, "1 utterances whose end is not after their start"),
        ({"start": -0.5}, "1 utterances that start before 0 s"),
        ({"sample_rate": 0}, "1 sample rates below 1 Hz"),
        ({"gender": "w"}, "first: c/9: w"),
        ({"audio": "a/9.wav"}, "1 audio files that are not under"),
        ({"audio": "../a/1.wav"}, "1 audio paths that are not relative"),
        ({"audio": "/a/1.wav"}, "1 audio paths that are not relative"),
        ({"audio": "a\\1.wav"}, "1 audio paths that are not relative"),
        ({"id": "c/1"}, "1 ids that occur more than once (first: c/1)"),
    ],
)
def test_validate_tells_count_and_first_case(tmp_path, write_wave, changes, message):
    write_wave(tmp_path / "a" / "1.wav")
    bad = replace(PLAIN, **{"id": "c/9", **changes})
    with pytest.raises(DataError) as error:
        validate([PLAIN, bad], tmp_path)
    assert message in str(error.value)


def test_validate_tells_all_problems_at_once(tmp_path):
    with pytest.raises(DataError) as error:
        validate([PLAIN, replace(PLAIN, end=0.0)], tmp_path)
    for part in ("manifest of 2 utterances", "more than once", "whose end", "1 audio files"):
        assert part in str(error.value)


def test_validate_says_why_a_file_is_not_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.wav").symlink_to("../.git/annex/objects/1.wav")
    with pytest.raises(DataError, match=says("1 audio files", "a/1.wav", "git annex get")):
        validate([PLAIN], tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_validate_counts_names_that_no_system_has_as_missing(tmp_path, name):
    with pytest.raises(DataError, match="1 audio files"):
        validate([replace(PLAIN, audio=name)], tmp_path)
