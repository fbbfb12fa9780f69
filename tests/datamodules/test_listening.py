"""Listening: resumed after a kill, in one process or several, to the same bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import says, tells
from serzoo.datamodules import listening
from serzoo.datamodules.prepare import prepare
from serzoo.zoo.core.errors import ConfigError

FILES = ("manifest.jsonl", "manifest.json", "manifest.refused.jsonl")


@pytest.fixture
def root(tmp_path: Path, write_wave: Callable[..., Path]) -> Path:
    """Twelve recordings; one is silent, one is damaged, one has two channels, one two segments."""
    folder = tmp_path / "c"
    rng = np.random.default_rng(0)
    rows = ["audio,label,speaker,start,end"]
    for i in range(12):
        samples = 0.1 * rng.normal(size=(4000, 2) if i == 3 else 4000)
        write_wave(folder / f"{i}.wav", 0 * samples if i == 5 else samples)
        rows += [f"{i}.wav,angry,s{i % 3},0,0.25"]
    (folder / "7.wav").write_bytes(b"RIFF")
    rows += ["2.wav,sad,s2,0.05,0.2", "absent.wav,sad,s1,0,1"]
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    return folder


def made(root: Path, out: Path, **how: Any) -> list[str]:
    done = prepare("csv", root=root, out=out / "manifest.jsonl", progress=False, **how)
    assert len(done.utterances) == 11
    assert (
        done.refused == {"silent": 1, "unreadable": 1, "missing": 1}
        or sum(done.refused.values()) == 3
    )
    return [(out / name).read_text("utf-8") for name in FILES]


@pytest.mark.parametrize("at", [0, 1, 5, 11])
def test_killed_at_any_file_the_next_call_ends_in_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole = made(root, tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == sorted(FILES)
    heard: list[str] = []
    hear = listening.hear
    out = tmp_path / "out"

    def counting(group: Any, root: Path) -> Any:
        heard.append(group[0].audio)
        return hear(group, root)

    kept = listening.Journal.keep

    def killed(self: Any, group: Any, root: Path, result: Any) -> None:
        if self._kept >= at:
            raise KeyboardInterrupt
        kept(self, group, root, result)

    monkeypatch.setattr(listening, "hear", counting)
    monkeypatch.setattr(listening.Journal, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        made(root, out)
    monkeypatch.setattr(listening.Journal, "keep", kept)
    heard.clear()
    if at:
        assert (out / "manifest.heard").is_file()
        with pytest.warns(match=says("csv", at)):
            assert made(root, out) == whole
    else:
        assert made(root, out) == whole
    assert len(heard) == 13 - at  # the absent file is looked for again
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)


def test_only_the_same_file_and_utterance_count_as_heard(
    root: Path, tmp_path: Path, write_wave: Callable[..., Path]
) -> None:
    journal = tmp_path / "x.heard"
    u = [*prepare("csv", root=root, progress=False).utterances][:3]
    with listening.Journal(journal, 1) as kept:
        listening.listen(u, root, journal=kept)
    lines = journal.read_text("utf-8").splitlines()
    # as a killed process leaves it: a line that is cut, and one of something else
    journal.write_text("\n".join([*lines, '{"v": 1, "key"', "[]", '{"v": 1}']), "utf-8")
    with listening.Journal(journal, 1) as again:
        assert again.known == 3
        found = again.take([u[0]], root)
        assert found is not None
        assert found[0][0] == u[0]
        moved = [type(u[0])(**{f: getattr(u[0], f) for f in u[0].__slots__} | {"end": 0.1})]
        assert again.take(moved, root) is None
        write_wave(root / u[1].audio, seconds=0.25, hz=300)
        os.utime(root / u[1].audio, ns=(1, 1))
        assert again.take([u[1]], root) is None
    with listening.Journal(journal, 2) as newer:
        assert newer.known == 0
    # what is appended after a cut line can be read
    with listening.Journal(journal, 1) as third:
        third.keep([u[1]], root, listening.hear([u[1]], root))
    with listening.Journal(journal, 1) as fourth:
        assert fourth.take([u[1]], root) is not None


def test_several_processes_end_in_the_same_bytes(root: Path, tmp_path: Path) -> None:
    one = made(root, tmp_path / "one")
    assert made(root, tmp_path / "two", processes=2) == one


def test_processes_are_for_many_files_and_at_least_one() -> None:
    assert listening.processes_of(None, listening.MANY - 1) == 1
    assert listening.processes_of(None, listening.MANY) == listening._cores()
    assert listening.processes_of(3, 1) == 3
    for wrong in (0, -1, True):
        with pytest.raises(ConfigError, match=says("processes", wrong)):
            listening.processes_of(wrong, 1)


def test_a_journal_without_a_place_keeps_nothing(root: Path) -> None:
    u = prepare("csv", root=root, progress=False).utterances
    with listening.Journal(None, 1) as journal:
        found, losses = listening.listen(u, root, journal=journal)
    assert found == u
    assert list(losses) == ["3.wav"]
    assert journal.known == 0


def test_losses_and_refusals_are_kept_as_they_were(root: Path, tmp_path: Path) -> None:
    from serzoo.datamodules.prepare import read_corpus
    from serzoo.zoo.core import registry

    wanted, _ = read_corpus("csv", registry.get("corpora", "csv"), root, {})
    with listening.Journal(tmp_path / "j", 1) as journal:
        first = listening.listen(wanted, root, journal=journal)
    with listening.Journal(tmp_path / "j", 1) as journal:
        assert journal.known == 12
        assert listening.listen(wanted, root, journal=journal) == first
    rows = [json.loads(line) for line in (tmp_path / "j").read_text("utf-8").split("\n") if line]
    assert tells([r["heard"][0][1] for r in rows if not r["heard"][0][0]], "silent")
