"""The kit for corpus readers: a sound one passes, a broken one is told by the right name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from facts import says
from serzoo.datamodules.catalog import open_corpora
from serzoo.datamodules.checking import check_reader
from serzoo.zoo.core import own, registry
from serzoo.zoo.core.errors import ConfigError, ContractError, DataError

SOUND = """
from pathlib import Path
from serzoo.datamodules.corpora import find_files, utterance

INFO = {"licence": "cc0-1.0", "labels": {"a": "angry", "h": "happy"}}


def prepare(root: Path):
    for path in find_files(root):
        label, speaker = path.stem.split("_")
        yield utterance("tiny", path, root, speaker=speaker, label=label)
"""
YIELD = 'yield utterance("tiny", path, root, speaker=speaker, label=label)'


@pytest.fixture
def corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_wave: Callable[..., Path]
) -> Callable[[str], str]:
    """``corpus(code)``: the reader of a file, for a folder with two recordings."""
    for kind in registry._ADDED:
        monkeypatch.setitem(registry._ADDED, kind, {})
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    for name in ("a_1", "h_2"):
        write_wave(tmp_path / "audio" / f"{name}.wav")

    def write(code: str) -> str:
        (tmp_path / "tiny.py").write_text(code)
        return f"{tmp_path}/tiny.py:prepare"

    return write


def test_a_sound_reader_passes(corpus: Callable[[str], str], tmp_path: Path) -> None:
    found = check_reader(corpus(SOUND), tmp_path / "audio")
    assert [(u.id, u.label, u.speaker) for u in found] == [
        ("tiny/a_1", "a", "1"),
        ("tiny/h_2", "h", "2"),
    ]


def test_a_registered_reader_passes_too(tmp_path: Path, write_wave: Callable[..., Path]) -> None:
    write_wave(tmp_path / "Actor_01" / "03-01-05-01-01-01-01.wav")
    assert len(check_reader("ravdess", tmp_path)) == 1


@pytest.mark.parametrize(
    ("old", "new", "failed"),
    [
        (YIELD, "yield path", {"kind"}),
        (YIELD, "continue\n        yield", {"kind"}),
        ("root, speaker", "root, id='tiny/x', speaker", {"ids"}),
        ('"tiny", path', '"other", path', {"corpus"}),
        ("find_files(root)", "[root / 'a_1.wav', root / 'h_9.wav']", {"audio"}),
        ("speaker=speaker", "speaker=None", {"speakers"}),
        ("label=label", "label=label + 'x'", {"labels"}),
        ("find_files(root)", "sorted(find_files(root), key=lambda _: _next())", {"order"}),
    ],
)
def test_a_broken_reader_is_told_by_its_own_check(
    corpus: Callable[[str], str], tmp_path: Path, old: str, new: str, failed: set[str]
) -> None:
    count = "import itertools\n_next = iter([1, 2, 4, 3]).__next__\n"
    with pytest.raises(ContractError) as caught:
        check_reader(corpus(count + SOUND.replace(old, new)), tmp_path / "audio")
    assert set(caught.value.failures) == failed, str(caught.value)


def test_speakers_may_be_unknown(corpus: Callable[[str], str], tmp_path: Path) -> None:
    code = SOUND.replace("speaker=speaker", "speaker=None")
    assert len(check_reader(corpus(code), tmp_path / "audio", speakers=False)) == 2


def test_an_edited_reader_prepares_anew(corpus: Callable[[str], str], tmp_path: Path) -> None:
    name, root = own.adopt("corpora", corpus(SOUND)), str(tmp_path / "audio")
    assert [u.gender for u in open_corpora([name], root=root).utterances] == [None, None]
    own.adopt("corpora", corpus(SOUND.replace("label=label", "label=label, gender='male'")))
    assert [u.gender for u in open_corpora([name], root=root).utterances] == ["male", "male"]


def test_what_a_reader_of_one_s_own_yields_is_checked_in_a_run(
    corpus: Callable[[str], str], tmp_path: Path
) -> None:
    root = str(tmp_path / "audio")
    name = own.adopt("corpora", corpus(SOUND.replace('"tiny", path', '"other", path')))
    with pytest.raises(DataError, match=says("'other'", "corpus='tiny'")):
        open_corpora([name], root=root)
    own.adopt("corpora", corpus(SOUND.replace(YIELD, "yield path")))
    with pytest.raises(DataError, match=says("tiny", "Utterance")):
        open_corpora([name], root=root)


def test_a_label_map_must_be_of_the_vocabulary(corpus: Callable[[str], str]) -> None:
    own.adopt("corpora", corpus(SOUND.replace('"angry"', '"angri"')))
    with pytest.raises(ConfigError, match=says("'angri'", "'angry'")):
        check_reader("tiny", ".")
