"""What readers and engine give for fixed files, by their versions: prepared corpora are remembered
under these, so that an output that changes under an old version would never be seen."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from serzoo.datamodules import catalog, prepare
from serzoo.datamodules.info import CorpusInfo
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import DataWarning

EVALUATION = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
MELD = (
    "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
    '"Also, I\x92m sure",Chandler,neutral,neutral,0,0\nYes.,The Interviewer,joy,positive,0,1\n'
)
NEMO = (
    "file_id\temotion\traw_text\tspeaker_id\tgender\n"
    "EB0_anger_1.wav\tanger\tTak.\t        EB0\tfemale\n"
)
TABLE = "path;emotion;who;Gender;valence\na.wav;Angry;x;F;1\nb.wav;angry ;;m;\nc.wav;sad;y;nan;5\n"
TAKE = {"audio": "a.flac", "speaker": "s1", "gender": "female", "label": "angry", "text": "Go."}
SYNTHETIC = {"seed": 0, "utterances": 1, "speakers": 1, "takes": [{**TAKE, "worded": "sad"}]}

AUDFORMAT = """\
name: tiny
source: ''
usage: research
languages: [deu]
tables:
  emotion:
    type: filewise
    columns: {emotion: {}, speaker: {}}
"""
EMOBOX = "".join(
    json.dumps({"key": f"t-{who}", "wav": f"d/{who}.wav", "emo": "j", "type": "raw"}) + "\n"
    for who in ("01", "02")
)
RECORDING = json.dumps(
    {
        "id": "r",
        "sources": [{"type": "file", "channels": [0], "source": "r.wav"}],
        "duration": 2.0,
    }
)
SUPERVISION = json.dumps(
    {"id": "s", "recording_id": "r", "start": 0, "duration": 1, "custom": {"emotion": "sad"}}
)
SHARD = {"a.wav": b"RIFF", "a.json": b'{"emotion": "sad", "speaker": "x"}', "b.txt": b"no"}

TREES = {
    "ravdess": {
        "A/03-01-05-02-01-01-02.wav": "",
        "A/03-01-02-01-02-02-01.flac": "",
        "A/03-02-05-02-01-01-02.wav": "",
        "A/room.wav": "",
    },
    "emodb": {"wav/03a01Fa.wav": "", "wav/16b10Wb.wav": "", "wav/room.wav": ""},
    "nemo": {"samples/EB0_anger_1.wav": "", "samples/WR0_fear_38.wav": "", "data.tsv": NEMO},
    "crema_d": {
        "AudioWAV/1001_IEO_HAP_LO.wav": "",
        "AudioWAV/1002_WSI_ANG_XX.wav": "",
        "SentenceFilenames.csv": '"Stimulus_Number","Filename"\n1,"1001_IEO_HAP_LO"\n',
        "VideoDemographics.csv": '"ActorID","Sex"\n1001,"Male"\n1002,"Female"\n',
        "summaryTable.csv": '"FileName","VoiceVote"\n"1001_IEO_HAP_LO","N"\n',
    },
    "iemocap": {
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav": "",
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": EVALUATION,
        "Session1/dialog/transcriptions/Ses01F_impro01.txt": (
            "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n"
        ),
    },
    "savee": {"AudioData/DC/sa01.wav": "", "AudioData/KL/n30.wav": "", "a02.wav": ""},
    "tess": {"OAF_neutral/OA_bite_neutral.wav": "", "YAF_fear/YAF_Bite_FEAR.WAV": "", "x.wav": ""},
    "emovo": {"f1/dis-f1-b1.wav": "", "m3/NEU-m3-d2.wav": "", "m3/neu-m3-b4.wav": ""},
    "meld": {
        "data/MELD/train_sent_emo.csv": MELD,
        "MELD.Raw/train_splits/dia0_utt0.flac": "",
        "MELD.Raw/train_splits/dia9_utt9.flac": "",
    },
    "folder": {"angry/spk1/a.wav": "", "Angry/spk2/b.wav": "", "sad/spk1/c.wav": "", "d.wav": ""},
    "csv": {"table.csv": TABLE, "a.wav": "", "b.wav": "", "c.wav": ""},
    "synthetic": {"corpus.json": json.dumps(SYNTHETIC), "a.flac": ""},
    "synthetic_talk": {"corpus.json": json.dumps({**SYNTHETIC, "sentences": "talk"}), "a.flac": ""},
    "audformat": {
        "db.yaml": AUDFORMAT,
        "db.emotion.csv": "file,emotion,speaker\na.wav,joy,s1\nb.wav,anger,s2\n",
    },
    "emobox": {"data/tiny/tiny.jsonl": EMOBOX},
    "huggingface": {"train/metadata.csv": "file_name,emotion,speaker\na.wav,sad,x\nb.wav,joy,\n"},
    "kaldi": {"wav.scp": "a a.wav\nb b.wav\n", "utt2spk": "a x\nb y\n", "utt2emo": "a sad\n"},
    "lhotse": {"recordings.jsonl": RECORDING, "supervisions.jsonl": SUPERVISION},
    "speechbrain": {"train.json": '{"a": {"wav": "{data_root}/a.wav", "emo": "s", "spk_id": "x"}}'},
    "webdataset": {"train-0.tar": ""},
    "emotale": {
        "DK_001_B_3.wav": "",
        "annotations.csv": "file,"
        + ",".join(f"a{n}_{what}" for n in (1, 2, 3) for what in ("A", "V", "D", "cat"))
        + "\nDK_001_B_3.wav,2.0,2.0,2.5,B,2.0,1.5,1.0,S,3.5,2.0,3.5,A\n",
    },
    "msp_podcast": {
        "Audios/MSP_1.wav": "",
        "Labels/labels_consensus.csv": "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,"
        "Split_Set\nMSP_1.wav,N,2,4,3,Unknown,Male,Test1\n",
        "Labels/labels_detailed.csv": "FileName,EmoClass_Major,EmoAct,EmoVal,EmoDom\n"
        "MSP_1.wav,Neutral,2,4,3\nMSP_1.wav,Sad,2,3,3\n",
    },
    "cmu_mosei": {
        "Audio/Full/WAV_16000/x_1.wav": "",
        "Transcript/Segmented/Combined/x_1.txt": "x_1___0___0.5___2.0___Yes, yes.\n",
        "Labels/batch.csv": "Input.VIDEO_ID,Input.CLIP,Answer.anger,Answer.disgust,Answer.fear,"
        "Answer.happiness,Answer.sadness,Answer.sentiment,Answer.surprise\n"
        "x_1,0,0,0,0,2,0,1,0\nx_1,0,0,1,0,0,0,-1,0\n",
        "cmu_mosei_std_folds.py": "standard_train_fold=['x_1']\nstandard_valid_fold=['y']\n"
        "standard_test_fold=['z']\n",
    },
    "msp_improv": {
        "Audio/MSP-IMPROV-S01A-F01-S-FM01.wav": "",
        "Evalution.txt": "UTD-IMPROV-S01A-F01-S-FM01.avi; N; A:3.000000; V:3.500000; D:2.000000;\n",
    },
    "librispeech": {
        "dev-clean/84/121123/84-121123-0000.flac": "",
        "dev-clean/84/121123/84-121123.trans.txt": "84-121123-0000 GO DO YOU HEAR\n",
        "SPEAKERS.TXT": ";ID | SEX\n84   | F | dev-clean  |  8.02 | Christie Nowak\n",
    },
    "common_voice": {
        "validated.tsv": "client_id\tpath\tsentence\tgender\tlocale\n"
        'ab\ta.mp3\t"No," he said.\tmale_masculine\tsv-SE\n',
        "clips/a.mp3": "",
    },
    "voxpopuli": {
        "asr_test.tsv": "id\traw_text\tnormalized_text\tspeaker_id\tgender\n"
        "x_1\t\tyes\tNone\tfemale\n",
        "2009/x_1.ogg": "",
    },
    "speech": {"spk1/a.wav": "", "spk1/a.txt": "Yes.\n", "b.wav": ""},
    **{
        name: {naming.example: "", "other.wav": ""}
        for name in CorpusInfo.names()
        if (naming := CorpusInfo.load(name).naming) is not None
    },
}
OPTIONS = {
    "folder": {"speaker": r"spk(\d+)", "language": "en"},
    "csv": {"audio": "path", "label": "emotion", "speaker": "who", "scale": (1, 5)},
    "synthetic_talk": {"text": True},
    "emobox": {"dataset": "tiny", "speaker": r"t-(\d+)"},
    "speech": {"speaker": r"spk(\d+)"},
}
GIVEN = {
    ("ravdess", 1): "c878a4288bbc0d70",
    ("emodb", 1): "3dc9f86d49165044",
    ("nemo", 1): "d77e7f8f3fe0f8ec",
    ("crema_d", 2): "3caca97e2ccf7a1d",
    ("iemocap", 3): "84cb8d43fae93396",
    ("savee", 1): "1e9b57a7293b7730",
    ("tess", 1): "ab1a50a99d712358",
    ("emovo", 1): "d96fce59e9c372c1",
    ("meld", 1): "ed5c14230e49dc0c",
    ("folder", 1): "3a0fbc9c94f692a0",
    ("csv", 3): "89448aedc68ebd99",
    ("synthetic", 1): "04fa509fe7506db1",
    ("synthetic_talk", 1): "81afbb4bfd3f15bf",
    ("audformat", 1): "01d076d1ed7b43e2",
    ("emobox", 1): "9dbd3b4f6efb5064",
    ("huggingface", 1): "400b97722ccacd52",
    ("kaldi", 1): "db63214795472c9f",
    ("lhotse", 1): "d9310ce0216df861",
    ("speechbrain", 1): "bd0ee4a34e1b5472",
    ("emotale", 1): "46fc81dfed93d7b2",
    ("msp_podcast", 1): "6b9043e8b803fb7d",
    ("cmu_mosei", 1): "f506822a6a428c18",
    ("emogator", 1): "00ad284449ad74a9",
    ("cafe", 1): "95d5a805c12603f2",
    ("jl", 1): "caef4f7d53f10775",
    ("subesco", 1): "9a9d523cc4da239d",
    ("ased", 1): "ea5cb2654db52db0",
    ("urdu", 1): "00ad76350aafe298",
    ("turev", 1): "34553882f31afd8d",
    ("shemo", 1): "eb04a07a19b94132",
    ("emov_db", 1): "56be8c5c0518278e",
    ("esd", 1): "de7affd72818c15a",
    ("msp_improv", 1): "f5934b04194044a3",
    ("librispeech", 1): "96cdba6dc8e1ff8a",
    ("common_voice", 1): "eab08c83fe0f201d",
    ("voxpopuli", 1): "be482e8ec53b2be9",
    ("speech", 1): "d0f8263283bfd58e",
    ("webdataset", 1): "c974d0885128b677",
}
"""Reader and its version to the digest of what it gave."""

ENGINE = {4: "74a61be8381c88e4"}
"""Version of the engine to the digest of what it wrote."""


NEEDED = {"audformat": ["audformat"]}
"""Packages that a reader needs."""


def pack(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def digest(*facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize("corpus", registry.BUILT_IN["corpora"])
def test_a_reader_whose_output_changes_has_another_version(tree, corpus):
    for package in NEEDED.get(corpus, ()):
        pytest.importorskip(package, reason=f"no {package}: pip install 'serzoo[formats]'")
    for name, text in TREES[corpus].items():
        tree.write(name, text)
        if name.endswith(".tar"):
            pack(tree.root / name, SHARD)
    reader = registry.get("corpora", corpus)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [asdict(u) for u in reader(tree.root, **OPTIONS.get(corpus, {}))]
    for row in found:
        for key in ("votes", "raters", "dims_spread"):
            if not row[key]:  # is not written
                del row[key]
    ours = [w for w in caught if issubclass(w.category, DataWarning)]
    said = [str(w.message).replace(str(tree.root), "ROOT") for w in ours]
    assert found
    version = sys.modules[reader.__module__].VERSION
    assert digest(found, said) == GIVEN.get((corpus, version)), (
        f"{corpus} gives something else for the same files: raise VERSION in its reader, and put "
        f"the new digest into GIVEN: {digest(found, said)}"
    )


def test_an_engine_whose_output_changes_has_another_version(tmp_path, write_wave):
    noise = np.random.default_rng(0).integers(-3000, 3000, (8000, 2)).astype("int16")
    root = tmp_path / "root"
    write_wave(root / "angry" / "one.wav", noise[:, 0])
    write_wave(root / "angry" / "two.flac", noise, rate=8000)
    write_wave(root / "sad" / "short.wav", noise[:100, 0])
    write_wave(root / "sad" / "silent.wav", 0 * noise[:, 0])
    out = tmp_path / "out" / "folder.jsonl"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepare.prepare("folder", root=root, out=out)
    written = [p.read_text().replace(str(root), "ROOT") for p in sorted(out.parent.iterdir())]
    assert len(written) == 3
    found = digest(written)
    assert found == ENGINE.get(prepare.PREPARE_VERSION), (
        "prepare writes something else for the same files: raise PREPARE_VERSION, and put the new "
        f"digest into ENGINE: {found}"
    )


@pytest.mark.parametrize("raised", ["PREPARE_VERSION", "VERSION"])
def test_a_corpus_is_prepared_again_under_another_version(
    raised, tmp_path, write_wave, monkeypatch
):
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    write_wave(tmp_path / "root" / "angry" / "one.wav")
    reader = sys.modules[registry.get("corpora", "folder").__module__]

    def remembered() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            catalog.open_corpora(["folder"], root=str(tmp_path / "root"))
        return len([*(tmp_path / "cache" / "manifests").glob("folder-????????????????.jsonl")])

    assert [remembered(), remembered()] == [1, 1]
    monkeypatch.setattr(catalog if raised == "PREPARE_VERSION" else reader, raised, 99)
    assert remembered() == 2


def test_of_a_reader_without_a_version_the_file_counts(monkeypatch, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def prepare(root):\n    yield from ()\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own as module

    monkeypatch.setattr(registry, "get", lambda kind, name: module.prepare)
    before = catalog._version("own")
    assert before == catalog._version("own")
    own.write_text(own.read_text() + "# changed\n")
    assert catalog._version("own") != before
