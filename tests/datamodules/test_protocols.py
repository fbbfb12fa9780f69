from collections import Counter
from dataclasses import replace

import pytest
from facts import says, tells
from people import alternating, iemocap, utterances
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.manifest import Utterance
from serzoo.datamodules.protocols import PAIRS, Protocol, Split, speakers_of
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError, DataError

RAVDESS = {f"{i:02d}": "male" if i % 2 else "female" for i in range(1, 25)}
EMODB_MEN = {"03", "10", "11", "12", "15"}
EMODB = {
    s: "male" if s in EMODB_MEN else "female"
    for s in ["03", "08", "09", "10", "11", "12", "13", "14", "15", "16"]
}
CREMA_D = {str(1001 + i): "male" if i % 19 < 10 else "female" for i in range(91)}
SAVEE = dict.fromkeys(["DC", "JE", "JK", "KL"], "male")
EMOVO = {f"{g}{i}": {"f": "female", "m": "male"}[g] for g in "fm" for i in (1, 2, 3)}
NEMO = dict.fromkeys(["EB0", "IC0", "KD0", "MK0"], "female") | dict.fromkeys(
    ["KS0", "MP0", "SM0", "TP0", "WR0"], "male"
)


def corpora() -> dict[str, list[Utterance]]:
    """A small manifest of every corpus that has a protocol of its own with disjoint speakers."""
    return {
        "ravdess8-6fold": utterances("ravdess", RAVDESS),
        "emodb7-5fold": utterances("emodb", EMODB),
        "crema_d-5fold": utterances("crema_d", CREMA_D),
        "iemocap-loso": iemocap(),
        "savee-loso": utterances("savee", SAVEE),
        "emovo-6spk": utterances("emovo", EMOVO),
        "nemo6-3fold": utterances("nemo", NEMO),
        "synthetic-4fold": utterances("synthetic", alternating([f"v{i:02d}" for i in range(12)])),
        "kfold": utterances("mine", alternating([f"s{i}" for i in range(7)])),
        "loco": utterances("ravdess", RAVDESS) + utterances("emodb", EMODB) + iemocap(),
        "mixed-8fold": utterances("emodb", EMODB) + utterances("nemo", NEMO),
        "emodb7-text": utterances("emodb", EMODB, n=10),
        "crema_d-text": utterances("crema_d", CREMA_D, n=12),
        **{
            f"iemocap-{style}": [
                replace(u, labels={"style": ("improvised", "scripted")[i % 2]})
                for i, u in enumerate(iemocap())
            ]
            for style in ("improvised", "scripted")
        },
    }


FOLDS = {
    "ravdess8-6fold": 6,
    "emodb7-5fold": 5,
    "crema_d-5fold": 5,
    "iemocap-loso": 5,
    "savee-loso": 4,
    "emovo-6spk": 6,
    "nemo6-3fold": 3,
    "synthetic-4fold": 4,
    "kfold": 5,
    "loco": 3,
    "mixed-8fold": 8,
    "emodb7-text": 10,
    "crema_d-text": 15,
    "iemocap-improvised": 5,
    "iemocap-scripted": 5,
}
PARTIAL = ("emodb7-text", "crema_d-text", "iemocap-improvised", "iemocap-scripted")  # fmt: skip


def speakers(part: list[Utterance]) -> set[str]:
    return {u.speaker for u in part}


class TestEveryProtocol:
    def test_all_shipped_ones_load(self):
        shared = {"tess-2spk", "meld-official", "emobox-official", "official", "one-to-rest"}
        shared |= {"msp_improv-loso"}  # in corpora/test_msp_improv.py
        shared |= {"msp_podcast-challenge"}  # in test_rules.py
        shared |= {"nemo6-3fold-joined"}  # in TestSeveralCorpora
        weak = {"train-only", "weak-train"}  # in test_weak.py
        assert set(Protocol.names()) == set(FOLDS) | shared | weak
        for name in Protocol.names():
            protocol = Protocol.load(name)
            assert protocol.name == f"{name}@1"
            assert protocol == Protocol.load(f"{name}@1")
            assert protocol.about.endswith(".")

    @pytest.mark.parametrize("name", sorted(FOLDS))
    def test_partitions_disjoint_and_complete(self, name):
        everyone, protocol = corpora()[name], Protocol.load(name)
        assert protocol.n_folds(everyone) == FOLDS[name]
        tested: Counter[str] = Counter()
        for fold in range(FOLDS[name]):
            split = protocol.split(everyone, fold)
            parts = dict(split.parts())
            ids = [u.id for part in parts.values() for u in part]
            assert len(set(ids)) == len(ids)
            if name not in PARTIAL:
                assert sorted(ids) == sorted(u.id for u in everyone)
            for a, b in PAIRS:
                assert not speakers_of(parts[a]) & speakers_of(parts[b])
            assert all(parts.values())
            assert (split.protocol, split.fold) == (f"{name}@1", fold)
            tested.update(u.id for u in split.test)
        # over the folds, everyone is tested once
        style = name.partition("iemocap-")[2] if name in PARTIAL else ""
        meant = [u for u in everyone if not style or u.labels["style"] == style]
        assert tested == Counter(u.id for u in meant)

    @pytest.mark.parametrize("name", sorted(FOLDS))
    def test_lines_in_another_order_give_the_same_split(self, name):
        everyone, protocol = corpora()[name], Protocol.load(name)
        for fold in (0, FOLDS[name] - 1):
            a = protocol.split(everyone, fold).fingerprint()
            assert a == protocol.split(everyone[::-1], fold).fingerprint()

    @pytest.mark.parametrize("name", sorted(FOLDS))
    def test_no_such_fold(self, name):
        for fold in (-1, FOLDS[name]):
            with pytest.raises(ConfigError, match=says(f"fold {fold}", f"0 to {FOLDS[name] - 1}")):
                Protocol.load(name).split(corpora()[name], fold)


class TestExplicit:
    def test_ravdess_fold_2(self):
        split = Protocol.load("ravdess8-6fold@1").split(utterances("ravdess", RAVDESS), 2)
        assert speakers(split.test) == {"09", "10", "11", "12"}
        assert speakers(split.valid) == {"13", "14"}
        assert "05" in speakers(split.train)
        assert len(speakers(split.train)) == 18
        assert split.notes == []

    def test_ravdess_last_fold_validates_on_the_first(self):
        split = Protocol.load("ravdess8-6fold").split(utterances("ravdess", RAVDESS), 5)
        assert speakers(split.valid) == {"01", "02"}

    @pytest.mark.parametrize(
        ("name", "women", "men"), [("ravdess8-6fold", 2, 2), ("emodb7-5fold", 1, 1)]
    )
    def test_folds_are_balanced_by_sex(self, name, women, men):
        for fold in range(FOLDS[name]):
            split = Protocol.load(name).split(corpora()[name], fold)
            for part, n_women, n_men in ((split.test, women, men), (split.valid, 1, 1)):
                sexes = Counter(g for _, g in {(u.speaker, u.gender) for u in part})
                assert sexes == {"female": n_women, "male": n_men}

    def test_nemo_has_both_sexes_in_every_fold(self):
        for fold in range(3):
            split = Protocol.load("nemo6-3fold").split(corpora()["nemo6-3fold"], fold)
            assert len(speakers(split.test)) == 3
            assert {u.gender for u in split.test} == {"female", "male"}

    def test_emodb_pairs(self):
        tests = [
            speakers(Protocol.load("emodb7-5fold").split(corpora()["emodb7-5fold"], k).test)
            for k in range(5)
        ]
        assert tests == [{"03", "08"}, {"10", "09"}, {"11", "13"}, {"12", "14"}, {"15", "16"}]

    def test_savee_trains_on_two(self):
        split = Protocol.load("savee-loso").split(corpora()["savee-loso"], 3)
        assert [speakers(p) for _, p in split.parts()] == [{"JE", "JK"}, {"DC"}, {"KL"}]

    def test_iemocap_leaves_a_session_out(self):
        split = Protocol.load("iemocap-loso").split(iemocap(), 4)
        assert {u.session for u in split.test} == {"Ses05"}
        assert {u.session for u in split.valid} == {"Ses01"}
        with pytest.raises(
            DataError, match=says("iemocap-loso@1", "30 of 30", "session", "iemocap/Ses01F-0")
        ):
            Protocol.load("iemocap-loso").split([replace(u, session=None) for u in iemocap()], 0)

    def test_unknown_speakers_are_named(self):
        more = utterances("ravdess", RAVDESS | {"25": "male", "99": "female"})
        with pytest.raises(DataError, match=says(2, "ravdess/25, ravdess/99", "protocol=kfold")):
            Protocol.load("ravdess8-6fold").split(more, 0)

    def test_absent_speakers_are_reported(self):
        fewer = utterances("ravdess", {s: g for s, g in RAVDESS.items() if s not in ("03", "20")})
        split = Protocol.load("ravdess8-6fold").split(fewer, 0)
        assert speakers(split.test) == {"01", "02", "04"}
        assert len(split.notes) == 1
        assert tells(split.notes, "2 speakers", "ravdess8-6fold@1", "ravdess/03, ravdess/20")

    def test_an_empty_part_is_refused(self):
        fewer = utterances("ravdess", {s: RAVDESS[s] for s in ("01", "02", "09", "10")})
        with pytest.raises(DataError, match=says("fold 0", "valid", 12, "protocol=kfold")):
            Protocol.load("ravdess8-6fold").split(fewer, 0)

    def test_another_corpus_is_refused(self):
        both = utterances("ravdess", RAVDESS) + utterances("emodb", EMODB)
        with pytest.raises(DataError, match=says("ravdess8-6fold@1", "emodb", "protocol=loco")):
            Protocol.load("ravdess8-6fold").split(both, 0)


class TestSeveralCorpora:
    def everyone(self):
        return (
            utterances("ravdess", RAVDESS) + utterances("emodb", EMODB) + utterances("nemo", NEMO)
        )

    @pytest.mark.parametrize(("fold", "own"), [(0, "emodb"), (1, "nemo"), (2, "ravdess")])
    def test_one_to_rest_trains_on_one_corpus_and_tests_all_others(self, fold, own):
        protocol = Protocol.load("one-to-rest")
        assert protocol.n_folds(self.everyone()) == 3
        split = protocol.split(self.everyone(), fold)
        assert {u.corpus for u in split.train} == {u.corpus for u in split.valid} == {own}
        assert {u.corpus for u in split.test} == {"emodb", "nemo", "ravdess"} - {own}
        for a, b in PAIRS:
            assert not speakers_of(getattr(split, a)) & speakers_of(getattr(split, b))
        assert sum(len(part) for _, part in split.parts()) == len(self.everyone())
        # both sexes validate, and a fifth of them each
        share = {"emodb": 1 + 1, "nemo": 1 + 1, "ravdess": 2 + 2}
        assert len(speakers_of(split.valid)) == share[own]
        assert len({u.gender for u in split.valid}) == 2

    def test_one_to_rest_trains_as_loco_tests(self):
        everyone = self.everyone()
        for fold in range(3):
            one = Protocol.load("one-to-rest").split(everyone, fold)
            rest = Protocol.load("loco").split(everyone, fold)
            assert {u.id for u in one.train + one.valid} == {u.id for u in rest.test}

    def test_what_an_encoder_for_others_is_trained_on_has_both_corpora_in_every_part(self):
        for pair in ((EMODB, "emodb"), (RAVDESS, "ravdess")):
            everyone = utterances(pair[1], pair[0]) + utterances("nemo", NEMO)
            split = Protocol.load("mixed-8fold").split(everyone, 0)
            for _, part in split.parts():
                assert {u.corpus for u in part} == {pair[1], "nemo"}
            valid = speakers_of(split.valid)
            sexes = {(u.corpus, u.gender) for u in split.valid}
            assert len(sexes) == 4  # men and women of each corpus
            assert len(valid) == {"emodb": 4, "ravdess": 6}[pair[1]]

    def test_corpora_that_also_train_change_the_training_part_only(self):
        alone, joined = Protocol.load("nemo6-3fold"), Protocol.load("nemo6-3fold-joined")
        nemo, everyone = utterances("nemo", NEMO), self.everyone()
        others = [u for u in everyone if u.corpus != "nemo"]
        assert joined.n_folds(everyone) == 3
        for fold in range(3):
            one, more = alone.split(nemo, fold), joined.split(everyone, fold)
            assert more.test == one.test
            assert more.valid == one.valid
            assert more.train == one.train + others
            assert more.notes == []

    def test_corpora_that_also_train_must_be_there_and_no_others(self):
        joined = Protocol.load("nemo6-3fold-joined")
        with pytest.raises(DataError, match=says("emodb", "corpus=[nemo,ravdess,emodb]")):
            joined.split(utterances("nemo", NEMO) + utterances("ravdess", RAVDESS), 0)
        with pytest.raises(DataError, match=says("nemo, ravdess, emodb", "savee")):
            joined.split(self.everyone() + utterances("savee", SAVEE), 0)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"also_train": "emodb"},
            {"also_train": ["emodb"], "corpora": None},
            {"also_train": ["emodb"], "by": "corpus", "folds": "each"},
            {"also_train": ["emodb", "nemo"]},
        ],
    )
    def test_rules_of_corpora_that_also_train(self, wrong):
        file = {"corpora": ["nemo"], "by": "speaker", "folds": "each", "validation": "next"}
        assert Protocol.from_dict("p", {**file, "also_train": ["emodb"]}).also_train == ("emodb",)
        with pytest.raises(ConfigError, match=says("also_train", "corpora")):
            Protocol.from_dict("p", {**file, **wrong})

    def test_speakers_of_one_name_in_two_corpora_are_two(self):
        everyone = utterances("emodb", EMODB) + utterances("mine", EMODB)
        split = Protocol.load("mixed-8fold").split(everyone, 0)
        assert len(set.union(*(speakers_of(part) for _, part in split.parts()))) == 20


class TestFingerprint:
    def test_of_the_ids_of_each_part(self):
        a, b, c, d = utterances("x", {"s": "male"}, n=4)
        one = Split([a, b], [c], [d]).fingerprint()
        assert one == Split([b, a], [c], [d]).fingerprint()
        other = Split([a], [c, b], [d]).fingerprint()
        assert one["test"] == other["test"]
        assert one["train"] != other["train"]
        assert one["valid"] != other["valid"]
        assert all(len(v) == 12 for v in one.values())


# -- real corpora ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corpus", "sizes"),
    [
        ("ravdess", [240] * 6),
        # from the publisher's file names: 03+08, 09+10, 11+13, 12+14, 15+16
        ("emodb", [49 + 58, 43 + 38, 55 + 61, 35 + 69, 56 + 71]),
    ],
)
def test_real_folds(real_data, corpus, sizes):
    us = list(registry.get("corpora", corpus)(real_data(corpus)))
    protocol = Protocol.load(CorpusInfo.load(corpus).protocol)
    splits = [protocol.split(us, fold) for fold in range(protocol.n_folds(us))]
    assert [len(s.test) for s in splits] == sizes
    for split in splits:
        assert split.notes == []
        for part in (split.test, split.valid):
            sexes = Counter(g for _, g in {(u.speaker, u.gender) for u in part})
            assert sexes["female"] == sexes["male"] > 0


@pytest.mark.filterwarnings("ignore:nemo. no data.tsv")
def test_real_nemo_by_its_readers_names(real_data):
    us = list(registry.get("corpora", "nemo")(real_data("nemo")))
    split = Protocol.load("nemo6-3fold").split(us, 0)
    assert speakers(split.test) == {"EB0", "KS0", "MP0"}
    assert split.notes == []
