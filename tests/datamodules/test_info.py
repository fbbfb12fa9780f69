import pytest
from facts import says, tells
from serzoo.datamodules.info import CorpusInfo, canonical_label
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy, canonical


def test_every_description_loads_and_is_complete():
    names = CorpusInfo.names()
    assert {"ravdess", "emodb", "nemo", "folder", "csv"} <= set(names)
    for name in names:
        info = CorpusInfo.load(name)
        assert info.title
        assert info.licence
        assert info.labels.open or set(info.labels.values()) - {None} <= set(canonical())
        if info.taxonomy is not None:
            taxonomy = Taxonomy.load(info.taxonomy)
            kept = {label for label in info.labels.values() if label}
            assert info.labels.open or all(
                kept & set(members) for _, members in taxonomy.members
            ), name
        expected = info.expected
        if expected.labels and expected.utterances and None not in info.labels.values():
            assert sum(expected.labels.values()) == expected.utterances, name
        if expected.per_speaker:
            assert sum(expected.per_speaker.values()) == expected.utterances, name
            assert len(expected.per_speaker) == expected.speakers, name


def sample(**facts):
    defaults = {"id": "ravdess/x", "corpus": "ravdess", "audio": "x.wav", "speaker": "05"}
    return Utterance(**{**defaults, "start": 0.0, "end": 1.0, "sample_rate": 16000, **facts})


def test_canonical_label():
    assert canonical_label(sample(label="05")) == "angry"
    assert canonical_label(sample()) is None
    assert canonical_label(sample(gender="female"), "gender") == "female"
    assert canonical_label(sample(), "speaker") == "05"
    assert canonical_label(sample(), "language") is None
    assert canonical_label(sample(corpus="folder", label="Grumpy")) == "grumpy"
    assert canonical_label(sample(corpus="csv", labels={"Vote": "A"}), "Vote") == "a"
    with pytest.raises(DataError) as error:
        canonical_label(sample(label="09"))
    file, known = "configs/corpus/ravdess.yaml", "01, 02, 03, 04, 05, 06, 07, 08"
    assert tells(str(error.value), "label '09'", "ravdess/x", file, known, "null")
    with pytest.raises(DataError, match=says("'ravdess'", "'gendre'", "'gender'")):
        canonical_label(sample(label="05"), "gendre")
    with pytest.raises(ConfigError, match=says("'ravdes'", "crema_d", "'ravdess'")):
        canonical_label(sample(corpus="ravdes"))


def test_a_description_with_alternative_labels():
    info = CorpusInfo.from_dict(
        "c",
        {"labels": {1: "sad", "xx": None}, "alternative_labels": {"vote": {"A": "angry"}}},
    )
    assert info.labels == {"1": "sad", "xx": None}
    assert info.canonical_label(sample(label="xx")) is None
    assert info.canonical_label(sample(label="1", labels={"vote": "A"}), "vote") == "angry"
    assert info.canonical_label(sample(label="1"), "vote") is None
    with pytest.raises(DataError, match=says("vote 'B'", "ravdess/x", "known: A")):
        info.canonical_label(sample(labels={"vote": "B"}), "vote")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"lables": {}}, "'lables'.*'labels'"),
        ({"labels": {"x": "angri"}}, "'x' .*'angri'.*'angry'"),
        ({"labels": ["x"]}, r"'labels'.*\['x'\]"),
        ({"expected": {"utterence": 3}}, "'utterence'.*'utterances'"),
    ],
)
def test_a_misspelt_description_is_an_error(data, message):
    with pytest.raises(ConfigError, match=message):
        CorpusInfo.from_dict("c", data)
