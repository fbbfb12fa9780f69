import time
from collections import Counter
from dataclasses import replace

import pytest
from serzoo.datamodules.folds import balanced, held_out_sentences, held_out_speakers, sentence
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.manifest import Utterance
from serzoo.datamodules.protocols import Protocol
from serzoo.datamodules.split import PAIRS, Sharing, Split, speaker_of, speakers_of
from serzoo.zoo import registry
from serzoo.zoo.errors import ConfigError, DataError


def utterances(corpus: str, speakers: dict[str, str], n: int = 3, **fields) -> list[Utterance]:
    """``n`` utterances of each speaker, given with their sex."""
    return [
        Utterance(
            f"{corpus}/{s}-{i}", corpus, f"{s}-{i}.wav", 0, 1, 16000, s,
            gender=g or None, text=f"Sentence {i}.", **fields,
        )
        for s, g in speakers.items()
        for i in range(n)
    ]  # fmt: skip


def alternating(names: list[str]) -> dict[str, str]:
    return {s: ("male", "female")[i % 2] for i, s in enumerate(names)}


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


def iemocap() -> list[Utterance]:
    return [
        replace(u, session=u.speaker[:5])
        for u in utterances(
            "iemocap",
            {f"Ses0{i}{g}": {"F": "female", "M": "male"}[g] for i in range(1, 6) for g in "FM"},
        )
    ]


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
    }


FOLDS = {
    "ravdess8-6fold": 6, "emodb7-5fold": 5, "crema_d-5fold": 5, "iemocap-loso": 5, "savee-loso": 4,
    "emovo-6spk": 6, "nemo6-3fold": 3, "synthetic-4fold": 4, "kfold": 5, "loco": 3,
}  # fmt: skip


def speakers(part: list[Utterance]) -> set[str]:
    return {u.speaker for u in part}


class TestEveryProtocol:
    def test_all_shipped_ones_load(self):
        shared = {"tess-2spk", "meld-official", "official"}
        assert set(Protocol.names()) == set(FOLDS) | shared
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
            assert sorted(ids) == sorted(u.id for u in everyone)
            for a, b in PAIRS:
                assert not speakers_of(parts[a]) & speakers_of(parts[b])
            assert all(parts.values())
            assert (split.protocol, split.fold) == (f"{name}@1", fold)
            tested.update(u.id for u in split.test)
        # over the folds, everyone is tested once
        assert tested == Counter(u.id for u in everyone)

    @pytest.mark.parametrize("name", sorted(FOLDS))
    def test_lines_in_another_order_give_the_same_split(self, name):
        everyone, protocol = corpora()[name], Protocol.load(name)
        for fold in (0, FOLDS[name] - 1):
            a = protocol.split(everyone, fold).fingerprint()
            assert a == protocol.split(everyone[::-1], fold).fingerprint()

    @pytest.mark.parametrize("name", sorted(FOLDS))
    def test_no_such_fold(self, name):
        for fold in (-1, FOLDS[name]):
            with pytest.raises(ConfigError, match=rf"no fold {fold}; have 0 to {FOLDS[name] - 1}"):
                Protocol.load(name).split(corpora()[name], fold)


class TestExplicit:
    def test_ravdess_fold_2(self):
        split = Protocol.load("ravdess8-6fold@1").split(utterances("ravdess", RAVDESS), 2)
        assert speakers(split.test) == {"09", "10", "11", "12"}
        assert speakers(split.valid) == {"13", "14", "15", "16"}
        assert "05" in speakers(split.train)
        assert len(speakers(split.train)) == 16
        assert split.notes == []

    def test_ravdess_last_fold_validates_on_the_first(self):
        split = Protocol.load("ravdess8-6fold").split(utterances("ravdess", RAVDESS), 5)
        assert speakers(split.valid) == {"01", "02", "03", "04"}

    @pytest.mark.parametrize(
        ("name", "women", "men"), [("ravdess8-6fold", 2, 2), ("emodb7-5fold", 1, 1)]
    )
    def test_folds_are_balanced_by_sex(self, name, women, men):
        for fold in range(FOLDS[name]):
            split = Protocol.load(name).split(corpora()[name], fold)
            for part in (split.test, split.valid):
                sexes = Counter(g for _, g in {(u.speaker, u.gender) for u in part})
                assert sexes == {"female": women, "male": men}

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
        with pytest.raises(DataError, match="30 of 30 utterances have no session"):
            Protocol.load("iemocap-loso").split([replace(u, session=None) for u in iemocap()], 0)

    def test_unknown_speakers_are_named(self):
        more = utterances("ravdess", RAVDESS | {"25": "male", "99": "female"})
        with pytest.raises(DataError, match=r"know 2 speakers.*\(ravdess/25, ravdess/99\)"):
            Protocol.load("ravdess8-6fold").split(more, 0)

    def test_absent_speakers_are_reported(self):
        fewer = utterances("ravdess", {s: g for s, g in RAVDESS.items() if s not in ("03", "20")})
        split = Protocol.load("ravdess8-6fold").split(fewer, 0)
        assert speakers(split.test) == {"01", "02", "04"}
        assert split.notes == [
            "2 speakers of ravdess8-6fold@1 are not in the manifest: ravdess/03, ravdess/20"
        ]

    def test_an_empty_part_is_refused(self):
        fewer = utterances("ravdess", {s: RAVDESS[s] for s in ("01", "02", "09", "10")})
        with pytest.raises(DataError, match=r"fold 0: valid of 12 utterances is empty"):
            Protocol.load("ravdess8-6fold").split(fewer, 0)

    def test_another_corpus_is_refused(self):
        both = utterances("ravdess", RAVDESS) + utterances("emodb", EMODB)
        with pytest.raises(DataError, match=r"is for ravdess; the manifest also holds emodb"):
            Protocol.load("ravdess8-6fold").split(both, 0)


class TestNames:
    def test_wrong_version_says_which_exists(self):
        with pytest.raises(ConfigError, match="'ravdess8-6fold' has version 1, not '2'"):
            Protocol.load("ravdess8-6fold@2")

    def test_unknown_name(self):
        with pytest.raises(ConfigError, match=r"have crema_d.*did you mean 'ravdess8-6fold'\?"):
            Protocol.load("ravdess-6fold@1")


class TestBalanced:
    def test_crema_d_folds_differ_by_one_of_each_sex(self):
        everyone, protocol = corpora()["crema_d-5fold"], Protocol.load("crema_d-5fold")
        sizes, women = [], []
        for fold in range(5):
            test = {(u.speaker, u.gender) for u in protocol.split(everyone, fold).test}
            sizes.append(len(test))
            women.append(sum(g == "female" for _, g in test))
        assert sorted(sizes) == [18, 18, 18, 18, 19]
        assert max(women) - min(women) == 1
        assert protocol.split(everyone, 0).notes == []

    def test_crema_d_folds_do_not_hang_on_how_much_each_actor_says(self):
        everyone, protocol = corpora()["crema_d-5fold"], Protocol.load("crema_d-5fold")
        fewer = [u for i, u in enumerate(everyone) if i % 7 or u.id.endswith("-0")]
        for fold in range(5):
            a, b = protocol.split(everyone, fold), protocol.split(fewer, fold)
            assert speakers(a.test) == speakers(b.test)
            assert speakers(a.valid) == speakers(b.valid)

    def test_an_incomplete_crema_d_says_so(self):
        fewer = utterances("crema_d", {s: g for s, g in CREMA_D.items() if s != "1050"})
        notes = Protocol.load("crema_d-5fold").split(fewer, 0).notes
        assert notes == [
            "90 of 91 speakers are in the manifest: the folds are not those of crema_d-5fold@1 on "
            "the whole corpus"
        ]

    def test_dealt_in_order(self):
        us = utterances(
            "c", {"a": "female", "b": "male", "c": "female", "d": "male", "e": "female"}
        )
        folds = balanced(us, 3, by_utterances=False)
        # women a, c, e go round; the men start where the fewest speakers are
        assert folds == [["c/a", "c/b"], ["c/c", "c/d"], ["c/e"]]

    def test_totals_differ_by_one(self):
        for women in range(8):
            for men in range(8):
                sex = {f"f{i}": "female" for i in range(women)} | {
                    f"m{i}": "male" for i in range(men)
                }
                if sum(map(bool, sex)) >= 3:
                    sizes = [len(f) for f in balanced(utterances("c", sex), 3, by_utterances=True)]
                    assert max(sizes) - min(sizes) <= 1

    def test_by_utterances(self):
        # four who say a lot and four who say little: two folds of a loud and a quiet pair each
        us = [
            u
            for s, n in zip("abcdefgh", (40, 40, 40, 40, 2, 2, 2, 2), strict=True)
            for u in utterances("c", {s: "female"}, n)
        ]
        counts = Counter(map(speaker_of, us))
        loads = [sum(counts[s] for s in f) for f in balanced(us, 4, by_utterances=True)]
        assert loads == [42, 42, 42, 42]
        assert [sum(counts[s] for s in f) for f in balanced(us, 4, by_utterances=False)] == loads
        us = [u for u in us if u.speaker != "d"]
        loads = [sum(counts[s] for s in f) for f in balanced(us, 3, by_utterances=True)]
        assert sorted(loads) == [42, 42, 44]

    def test_thousands_of_speakers_are_dealt_quickly(self):
        # a folder without speakers takes every file for a speaker of its own
        us = utterances("mine", dict.fromkeys((f"s{i:05d}" for i in range(20_000)), ""), n=1)
        start = time.perf_counter()
        assert {len(f) for f in balanced(us, 5, by_utterances=True)} == {4000}
        assert time.perf_counter() - start < 2

    def test_unknown_sex_is_dealt_too_and_said(self):
        us = utterances("mine", dict.fromkeys("abcdef", ""))
        split = Protocol.load("kfold-3").split(us, 0)
        assert len(speakers(split.test)) == 2
        assert split.notes[0].startswith("sex of 6 speakers unknown, not balanced by it: mine/a")


class TestKfold:
    def test_any_number_of_folds(self):
        us = utterances("mine", alternating([f"s{i}" for i in range(8)]))
        protocol = Protocol.load("kfold-8")
        assert protocol.name == "kfold-8@1"
        assert protocol.n_folds(us) == 8
        assert protocol == Protocol.load("kfold-8@1")
        assert Protocol.load("kfold-5") == Protocol.load("kfold")

    def test_too_few_speakers(self):
        with pytest.raises(
            DataError, match=r"needs 5 speakers.*there are 3.*protocol=kfold-3 would do"
        ):
            Protocol.load("kfold").split(utterances("mine", alternating(["a", "b", "c"])), 0)
        with pytest.raises(DataError, match="test need 3$"):
            Protocol.load("kfold").n_folds(utterances("mine", alternating(["a", "b"])))
        with pytest.raises(ConfigError, match="too few folds"):
            Protocol.load("kfold-2")

    def test_a_speaker_must_be_named(self):
        us = utterances("mine", alternating(["a", "b", "", "d", "e", "f"]))
        with pytest.raises(DataError, match=r"3 of 18 utterances have no speaker \(mine/-0"):
            Protocol.load("kfold").split(us, 0)

    def test_speakers_of_two_corpora_with_one_name_are_two(self):
        us = utterances("x", alternating(["1", "2", "3"])) + utterances(
            "y", alternating(["1", "2"])
        )
        assert Protocol.load("kfold").n_folds(us) == 5
        for fold in range(5):
            split = Protocol.load("kfold").split(us, fold)
            assert len(speakers_of(split.test)) == 1


class TestLoco:
    def test_tests_the_corpora_by_name(self):
        us = corpora()["loco"]
        splits = [Protocol.load("loco").split(us, k) for k in range(3)]
        assert [{u.corpus for u in s.test} for s in splits] == [{"emodb"}, {"iemocap"}, {"ravdess"}]
        assert all({u.corpus for u in s.valid} == {u.corpus for u in s.train} for s in splits)

    def test_validation_is_a_fifth_of_the_speakers_of_each_corpus_and_sex(self):
        split = Protocol.load("loco").split(corpora()["loco"], 0)
        found = Counter(
            (c, g) for c, _, g in {(u.corpus, u.speaker, u.gender) for u in split.valid}
        )
        assert found == {
            ("ravdess", "female"): 2, ("ravdess", "male"): 2,
            ("iemocap", "female"): 1, ("iemocap", "male"): 1,
        }  # fmt: skip

    def test_the_choice_hangs_on_the_corpus_alone(self):
        a = held_out_speakers(utterances("ravdess", RAVDESS), 0.2)
        b = held_out_speakers(corpora()["loco"], 0.2)
        assert a == {s for s in b if s.startswith("ravdess/")}

    def test_the_only_speaker_of_a_sex_stays_in_training(self):
        us = utterances("x", {"a": "female", "b": "male", "c": "male"})
        assert len(held_out_speakers(us, 0.5)) == 1
        assert "x/a" not in held_out_speakers(us, 0.5)

    def test_one_corpus_is_too_few(self):
        with pytest.raises(DataError, match="one corpus at a time and needs 2"):
            Protocol.load("loco").split(utterances("ravdess", RAVDESS), 0)


def tess() -> list[Utterance]:
    return [
        Utterance(f"tess/{s}_{w}_{e}", "tess", "x.wav", 0, 1, 16000, s, text=f"Say the word w{w}.")
        for s in ("OAF", "YAF")
        for w in range(20)
        for e in ("angry", "sad")
    ]


class TestSharing:
    def test_tess_says_in_words_that_validation_shares_the_speaker(self):
        split = Protocol.load("tess-2spk").split(tess(), 1)
        assert [speakers(p) for _, p in split.parts()] == [{"OAF"}, {"OAF"}, {"YAF"}]
        assert split.notes[0].startswith("train and valid share 1 speakers: TESS has two speakers")
        assert split.sharing is not None
        assert not split.sharing.allows("train", "test")
        # 4 of 20 words, in both emotions, and none of them is heard in training
        assert len(split.valid) == 8
        assert not {u.text for u in split.valid} & {u.text for u in split.train}

    def test_meld_by_its_published_split(self):
        def us(split: str) -> list[Utterance]:
            return [
                replace(u, id=f"{u.id}-{split}", labels={"split": split})
                for u in utterances("meld", {"Joey": "male", "Monica": "female"})
            ]

        split = Protocol.load("meld-official@1").split(us("train") + us("dev") + us("test"), 0)
        assert [{u.labels["split"] for u in p} for _, p in split.parts()] == [
            {"train"}, {"dev"}, {"test"},
        ]  # fmt: skip
        assert len(split.notes) == 3
        assert (
            "train and test share 2 speakers: MELD's published split is by dialogue"
            in split.notes[1]
        )
        bad = [*us("train")[:3], *us("dev2")[:3]]
        with pytest.raises(DataError, match=r"3 of 6.*first: meld/Joey-0-dev2, 'dev2'.*training"):
            Protocol.load("meld-official").split(bad, 0)
        with pytest.raises(ConfigError, match="no fold 1; have 0 to 0"):
            Protocol.load("meld-official").split(us("train"), 1)

    def test_a_brought_split_that_shares_speakers_is_refused(self):
        us = utterances("mine", alternating(["a", "b", "c"]))
        fine = [
            replace(u, labels={"split": {"a": "train", "b": "validation", "c": "Test"}[u.speaker]})
            for u in us
        ]
        split = Protocol.load("official").split(fine, 0)
        assert [speakers(p) for _, p in split.parts()] == [{"a"}, {"b"}, {"c"}]
        leaky = [replace(fine[0], labels={"split": "test"}), *fine[1:]]
        with pytest.raises(DataError, match=r"train and test share 1 speakers \(mine/a\)"):
            Protocol.load("official").split(leaky, 0)

    def test_sessions_that_share_a_speaker_are_refused(self):
        us = [replace(u, speaker="Ses01F") if u.speaker == "Ses04F" else u for u in iemocap()]
        with pytest.raises(DataError, match=r"share 1 speakers \(iemocap/Ses01F\)"):
            Protocol.load("iemocap-loso").split(us, 0)

    def test_sharing_takes_words(self):
        rule = {
            "version": 1, "by": "speaker", "folds": [["a"], ["b"]], "corpora": ["mine"],
            "validation": {"sentences": 0.3},
        }  # fmt: skip
        us = utterances("mine", alternating(["a", "b"]))
        with pytest.raises(DataError, match="train and valid share 1 speakers"):
            Protocol.from_dict("mine", rule).split(us, 0)
        with pytest.raises(ConfigError, match="shares must say why in words"):
            Protocol.from_dict("mine", rule | {"shares": {"parts": ["train", "valid"], "why": " "}})
        words = Protocol.from_dict("mine", rule | {"shares": "there is nobody else"})
        assert words.sharing == Sharing(("train", "valid", "test"), "there is nobody else")
        assert words.split(us, 0).notes == [
            "train and valid share 1 speakers: there is nobody else"
        ]


class TestFiles:
    GOOD = {"version": 1, "by": "speaker", "folds": [["a"], ["b"], ["c"]], "validation": "next"}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"validations": "next"}, "unknown key 'validations'.*did you mean 'validation'"),
            ({"by": "gender"}, "by is 'gender'; have speaker, session, corpus, official"),
            ({"folds": [["a"], ["a"], ["c"]]}, "name a speaker twice"),
            ({"folds": "some"}, "folds is 'some'; want lists"),
            ({"folds": {"balanced": 2}}, "needs 3 folds"),
            ({"validation": "random"}, "validation is 'random'; want next"),
            ({"validation": {"speakers": 1.5}}, "share is 1.5"),
        ],
    )
    def test_bad_rules_are_refused(self, change, message):
        assert Protocol.from_dict("mine", self.GOOD).n_folds([]) == 3
        with pytest.raises(ConfigError, match=message):
            Protocol.from_dict("mine", self.GOOD | change)


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


def test_sentences_are_compared_without_case_and_punctuation():
    assert sentence("Don't forget a  jacket!") == sentence("dont forget — a JACKET.")
    assert sentence("Straße") == sentence("STRASSE")
    assert sentence("Kwiecień") != sentence("Kwiecien")
    assert sentence(None) == sentence("...") == ""


def test_held_out_sentences_keep_one_in_training():
    us = utterances("x", {"s": "male"}, n=2)
    assert len(held_out_sentences(us, 0.9)) == 1


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
