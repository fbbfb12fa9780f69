"""What is damaged in the cache is ours: it is made again, with one line, and nobody is asked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from serzoo.datamodules.catalog import open_corpora, recheck
from serzoo.datamodules.synthetic.generate import ensure_synthetic
from serzoo.zoo.core.errors import DataWarning

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "half": lambda b: b[: len(b) // 2],
    "zeros": lambda b: bytes(len(b)),
    "an older version": lambda b: b"{}\n",
    "a list": lambda b: b"[]\n",
    "no UTF-8": lambda b: b"\xff\xfe" + b,
}


@pytest.fixture
def corpus(
    tmp_path: Path, write_wave: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    for label, hz in (("angry", 200), ("sad", 100)):
        for speaker in "ab":
            write_wave(tmp_path / "speech" / label / f"{speaker}.wav", seconds=0.2, hz=hz)
    return tmp_path / "speech"


def said(work: Callable[[], object], about: str = "damaged") -> int:
    """How many warnings say so."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return sum(about in str(w.message) for w in caught if w.category is DataWarning)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".refused.jsonl"])
def test_a_damaged_manifest_is_prepared_again(corpus: Path, suffix: str, how: str) -> None:
    first = open_corpora(["folder"], root=str(corpus))
    (manifest,) = (
        p
        for p in (corpus.parent / "cache" / "manifests").glob("*.jsonl")
        if "refused" not in p.name
    )
    path = manifest.with_name(manifest.stem + suffix)
    before = path.read_bytes()
    path.write_bytes(DAMAGE[how](before))
    again = []
    told = said(lambda: again.append(open_corpora(["folder"], root=str(corpus))))
    assert again == [first]
    if suffix != ".refused.jsonl":  # a list to read, which no program does
        assert told == 1
        assert path.read_bytes() == before
    assert said(lambda: open_corpora(["folder"], root=str(corpus))) == 0


@pytest.mark.parametrize("how", DAMAGE)
def test_what_was_heard_before_is_heard_again(corpus: Path, tmp_path: Path, how: str) -> None:
    utterances = open_corpora(["folder"], root=str(corpus)).utterances
    first = recheck(utterances, corpus, tmp_path)
    (path,) = tmp_path.glob("heard-*.json")
    path.write_bytes(DAMAGE[how](before := path.read_bytes()))
    again = []
    told = said(lambda: again.append(recheck(utterances, corpus, tmp_path)))
    assert again == [first]
    assert told == (how != "an older version")  # which is whole, and knows no file
    assert path.read_bytes() == before
    # files are known by their place: in another manifest they may have other names
    other = [replace(u, id=f"other/{u.id}") for u in utterances]
    assert said(lambda: recheck(other, corpus, tmp_path)) == 0


@pytest.mark.parametrize(
    "damage", ["no listing", "half a listing", "no file", "an empty file", "a file"]
)
def test_a_damaged_embedded_corpus_is_generated_again(tmp_path: Path, damage: str) -> None:
    small = {"utterances": 1, "speakers": 2}
    root = ensure_synthetic(tmp_path, **small)
    before = {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    takes = json.loads((root / "corpus.json").read_text())["takes"]
    if damage == "no listing":
        (root / "corpus.json").unlink()
    elif damage == "half a listing":
        (root / "corpus.json").write_text((root / "corpus.json").read_text()[:300])
    elif damage == "no file":
        (root / takes[3]["audio"]).unlink()
    elif damage == "an empty file":
        (root / takes[3]["audio"]).write_bytes(b"")
    else:
        root.rename(tmp_path / "away")
        root.write_text("")
    assert said(lambda: ensure_synthetic(tmp_path, **small), "generated again") == 1
    assert {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()} == before
    assert said(lambda: ensure_synthetic(tmp_path, **small), "again") == 0
    assert not list(tmp_path.glob(".*"))
