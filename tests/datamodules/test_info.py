import pytest
from facts import says, tells
from serzoo.datamodules.info import CLUSTERS, CorpusInfo, canonical_label, cluster_of
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy, canonical
from serzoo.zoo.run.record import attributes_of
from serzoo.zoo.statistics import contrasts


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
        ({"cluster": "sesion"}, "'cluster'.*'sesion'.*'session'"),
        ({"cluster": None}, "'cluster'.*None"),
        ({"sentences": 0}, "'sentences'.* 0"),
        ({"sentences": "2"}, "'sentences'.*'2'"),
        ({"sentences": True}, "'sentences'.*True"),
    ],
)
def test_a_misspelt_description_is_an_error(data, message):
    with pytest.raises(ConfigError, match=message):
        CorpusInfo.from_dict("c", data)


@pytest.mark.parametrize(
    ("corpus", "cluster", "remark"),
    [
        ("ravdess", "speaker", "the interval is to new speakers of these 2 sentences"),
        ("crema_d", "speaker", "the interval is to new speakers of these 12 sentences"),
        (
            "iemocap",
            "session",
            "the interval is to new sessions, whose speakers are not independent",
        ),
        (
            "meld",
            "dialogue",
            "the interval is to new dialogues, whose speakers are not independent",
        ),
        ("nemo", "speaker", ""),
        ("csv", "speaker", ""),
    ],
)
def test_what_an_interval_is_about(corpus, cluster, remark):
    info = CorpusInfo.load(corpus)
    assert info.cluster == cluster
    assert info.interval_remark() == remark


def test_kinds_of_clusters_are_those_of_the_statistics():
    assert CLUSTERS == contrasts.CLUSTERS
    one = CorpusInfo.from_dict("c", {"cluster": "session", "sentences": 1})
    assert one.interval_remark() == "the interval is to new sessions of this sentence"


def test_a_cluster_is_reached_from_an_utterance():
    facts = [
        sample(id="ravdess/1"),
        sample(id="ravdess/2", speaker=None),
        sample(id="iemocap/1", corpus="iemocap", speaker="Ses01F", session="Ses01"),
        sample(id="meld/1", corpus="meld", speaker="Joey", session="test-dia3"),
        sample(id="meld/2", corpus="meld", speaker="Joey"),
    ]
    assert [cluster_of(u) for u in facts] == [
        ("speaker", "ravdess/05"),
        ("speaker", ""),
        ("session", "iemocap/Ses01"),
        ("dialogue", "meld/test-dia3"),
        ("dialogue", ""),
    ]
    known = attributes_of(facts)
    assert "speaker" not in known["ravdess/1"]  # a table has it
    assert known["iemocap/1"]["session"] == "iemocap/Ses01"
    assert known["meld/1"]["dialogue"] == "meld/test-dia3"
    assert known["meld/2"]["dialogue"] is None
