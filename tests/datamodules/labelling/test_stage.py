"""The engine of labelling stages: rows do not depend on kills, on shards or on who began."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from facts import says
from serzoo.datamodules.labelling import stage as engine
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError, DataError


def items(n: int = 10) -> list[Utterance]:
    return [
        Utterance(f"a/{i}", "a", f"{i}.wav", 0.0, 1.0 + i * 7 % 5, 16000, "s") for i in range(n)
    ]


class Neighbours(engine.Stage):
    """A row tells who was in the chunk, as the last bits of a batch do; may die on the way."""

    name = "rows"

    def __init__(self, die_after: int = 10**9, chunk: int = 3, kind: object = "x", kill=False):
        self.left, self.chunk, self.kind, self.kill = die_after, chunk, kind, kill

    def settings(self):
        return {"kind": self.kind, "deep": {"a": [1, 2]}}

    def rows(self, items):
        for u in reversed(items):
            if self.left == 0:
                if self.kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise KeyboardInterrupt
            self.left -= 1
            yield {"id": u.id, "with": [v.id for v in items], "text": "é\u2028\n"}


def whole(folder: Path) -> bytes:
    done = engine.run(Neighbours(), items(), folder)
    assert done.complete
    return done.path.read_bytes()


def test_rows_come_in_the_order_of_the_manifest_and_chunks_are_of_like_size(tmp_path):
    done = engine.run(Neighbours(), items(), tmp_path)
    assert (done.total, done.found, done.computed, done.complete) == (10, 0, 10, True)
    rows = list(engine.rows_of(done.path))
    assert [r["id"] for r in rows] == [f"a/{i}" for i in range(10)]
    assert rows[0]["text"] == "é\u2028\n"
    # sizes 1 3 5 2 4 1 3 5 2 4, the largest first, equal ones by id
    assert rows[2]["with"] == ["a/2", "a/7", "a/4"]
    assert rows[0]["with"] == ["a/3", "a/8", "a/0"]
    assert rows[5]["with"] == ["a/5"]


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 7, 9])
def test_killed_after_k_rows_and_started_again_it_ends_the_same(tmp_path, k):
    with pytest.raises(KeyboardInterrupt):
        engine.run(Neighbours(die_after=k), items(), tmp_path / "cut")
    assert not (tmp_path / "cut" / "rows.jsonl").exists()
    again = engine.run(Neighbours(), items(), tmp_path / "cut")
    assert again.found == k // 3 * 3
    assert again.path.read_bytes() == whole(tmp_path / "whole")


def test_a_process_that_is_killed_leaves_its_shard_to_the_next(tmp_path):
    context = multiprocessing.get_context("fork")
    process = context.Process(
        target=engine.run, args=(Neighbours(die_after=5, kill=True), items(), tmp_path / "cut")
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    again = engine.run(Neighbours(), items(), tmp_path / "cut")
    assert (again.found, again.computed) == (3, 7)
    assert again.path.read_bytes() == whole(tmp_path / "whole")


def test_torn_at_any_byte_it_ends_the_same(tmp_path):
    expected = whole(tmp_path)
    file = tmp_path / "rows" / "shard-1-of-1.jsonl"
    full = file.read_bytes()
    for cut in range(0, len(full), 41):
        file.write_bytes(full[:cut])
        assert engine.run(Neighbours(), items(), tmp_path).path.read_bytes() == expected
        assert file.read_bytes() == full


@pytest.mark.parametrize("n", [2, 3, 7])
def test_shards_in_any_order_end_the_same_and_the_last_merges(tmp_path, n):
    for k in range(n, 0, -1):
        done = engine.run(Neighbours(), items(), tmp_path / "cut", shard=(k, n))
        assert done.complete == (k == 1)
    assert done.path.read_bytes() == whole(tmp_path / "whole")


def test_another_number_of_shards_goes_on_where_the_first_stopped(tmp_path):
    first = engine.run(Neighbours(), items(), tmp_path / "cut", shard=(2, 2))
    assert (first.computed, first.present, first.complete) == (4, 4, False)
    with pytest.raises(KeyboardInterrupt):
        engine.run(Neighbours(die_after=4), items(), tmp_path / "cut", shard=(1, 2))
    last = engine.run(Neighbours(), items(), tmp_path / "cut")
    assert (last.found, last.computed, last.complete) == (7, 3, True)
    assert last.path.read_bytes() == whole(tmp_path / "whole")


def test_what_is_finished_is_not_computed_again(tmp_path):
    expected = whole(tmp_path)
    done = engine.run(Neighbours(die_after=0), items(), tmp_path)
    assert (done.found, done.computed) == (10, 0)
    assert done.path.read_bytes() == expected


def test_progress_is_told_after_each_chunk(tmp_path):
    told: list[tuple[int, int]] = []
    engine.run(Neighbours(), items(), tmp_path, report=lambda done, of: told.append((done, of)))
    assert told == [(0, 10), (3, 10), (6, 10), (9, 10), (10, 10)]


def test_no_utterances_are_an_empty_file(tmp_path):
    done = engine.run(Neighbours(), [], tmp_path)
    assert done.complete
    assert list(engine.rows_of(done.path)) == []


def test_other_settings_are_refused_with_what_differs(tmp_path):
    engine.run(Neighbours(), items(), tmp_path)
    with pytest.raises(ConfigError, match=r'kind: "x".*"y".*out='):
        engine.run(Neighbours(kind="y"), items(), tmp_path)
    with pytest.raises(ConfigError, match=r"chunk: 3\b.* 4\b"):
        engine.run(Neighbours(chunk=4), items(), tmp_path)
    with pytest.raises(ConfigError, match=r"utterances\.count: 10\b.* 11\b.*utterances\.digest"):
        engine.run(Neighbours(), items(11), tmp_path)


def test_two_processes_on_one_shard_are_refused(tmp_path):
    class Twice(Neighbours):
        def rows(self, items_):
            with pytest.raises(ConfigError, match=r"\(\d+\).* shard-1-of-2"):
                engine.run(Neighbours(), items(), tmp_path, shard=(1, 2))
            engine.run(Neighbours(), items(), tmp_path, shard=(2, 2))  # another shard is not
            return super().rows(items_)

    assert engine.run(Twice(), items(), tmp_path, shard=(1, 2)).complete


@pytest.mark.parametrize("shard", [(0, 2), (3, 2)])
def test_a_shard_that_does_not_exist_is_refused(tmp_path, shard):
    with pytest.raises(ConfigError, match=says("1/2", "2/2")):
        engine.run(Neighbours(), items(), tmp_path, shard=shard)


def test_an_id_that_occurs_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match=says("a/0", "serzoo prepare")):
        engine.run(Neighbours(), [*items(), items()[0]], tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a/0"}], r"rows.* a/1 \(1\b"),
        ([{"id": "a/0"}, {"id": "a/0"}], "rows.* second .*'a/0'"),
        ([{"id": "b"}], "rows.* 'b'"),
        ([{"id": "a/0"}, {"id": "a/1", "x": float("nan")}], "a/1 .*JSON"),
    ],
)
def test_rows_that_do_not_fit_their_chunk_are_refused(tmp_path, rows, message):
    class Wrong(Neighbours):
        def rows(self, items):
            return iter(rows)

    with pytest.raises(DataError, match=message):
        engine.run(Wrong(), items(2), tmp_path)
    assert engine.run(Neighbours(), items(2), tmp_path).found == 0  # none of it was written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:1], "{", *lines[1:]], r"shard-1-of-1\.jsonl.* line 2\b"),
        (lambda lines: lines[1:], r"shard-1-of-1\.jsonl.* a/7\b"),
        (lambda lines: [lines[0], *lines[2:]], r"shard-1-of-1\.jsonl.* a/2\b"),
    ],
)
def test_a_damaged_shard_is_refused(tmp_path, change, message):
    whole(tmp_path)
    file = tmp_path / "rows" / "shard-1-of-1.jsonl"
    file.write_text("\n".join(change(file.read_text("utf-8").split("\n"))), "utf-8")
    with pytest.raises(DataError, match=message):
        engine.run(Neighbours(), items(), tmp_path)


def test_rows_of_a_missing_or_broken_file_are_refused(tmp_path):
    with pytest.raises(DataError, match=says("rows.jsonl", "serzoo label")):
        list(engine.rows_of(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": 1}) + "\n{\n")
    with pytest.raises(DataError, match=says("rows.jsonl", "line 2", "serzoo label")):
        list(engine.rows_of(tmp_path / "rows.jsonl"))
