"""Shards and claims: what is believed, what is removed, who makes what."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from facts import says
from serzoo.datamodules.store import (
    Claim,
    Shards,
    claimed,
    complete,
    digest,
    locked,
    remove,
    stores,
)
from serzoo.zoo.core.errors import ConfigError, DataWarning

FACTS = {"dtype": "float32", "extraction": {"model_type": "toy", "layers": [1, 2, 3]}}
KEYS = [f"k{i}" for i in range(6)]


def value(key):
    """``[2, T, 3]`` that belongs to a key."""
    number = int(key[1:])
    return np.full((2, number + 1, 3), number, np.float32)


def make(keys):
    return [(key, value(key), 0.5) for key in keys]


def two(free):
    return free[:2]


def fill(folder, keys=KEYS, make=make, take=two):
    shards = Shards(folder)
    return shards, complete(shards, keys, FACTS, take, make)


def holds(folder, keys=KEYS):
    """Whether a fresh look finds exactly these rows, with their values."""
    shards = Shards(folder)
    shards.refresh()
    if set(shards.rows) != set(keys):
        return False
    for key, row in shards.rows.items():
        flat = np.fromfile(shards.data(row.shard), "<f4")[row.start : row.start + row.size]
        assert np.array_equal(flat.reshape(row.shape), value(key))
    return True


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features" / "abc"


def test_rows_come_back_as_they_were_written(folder):
    _, done = fill(folder)
    assert done == set(KEYS)
    assert holds(folder)
    assert len(list(folder.glob("*.bin"))) == 3  # two rows each
    assert not list(folder.glob("*.claim")) + list(folder.glob("*.part"))
    facts = json.loads((folder / "store.json").read_text())
    assert facts["extraction"] == FACTS["extraction"]
    assert "layers, frames, width" in facts["about"]


def test_data_files_hold_little_endian_values_and_nothing_else(folder):
    fill(folder, ["k3"])
    (path,) = folder.glob("*.bin")
    assert path.read_bytes() == np.full(24, 3, "<f4").tobytes()


def test_what_is_there_is_not_made_again(folder):
    fill(folder, KEYS[:3])
    asked = []
    _, done = fill(folder, KEYS, lambda keys: asked.append(keys) or make(keys))
    assert asked == [["k3", "k4"], ["k5"]]
    assert done == {"k3", "k4", "k5"}


@pytest.mark.parametrize("damage", ["cut", "grown", "no data", "garbage", "other shapes", "half"])
def test_a_damaged_shard_is_not_believed_and_is_replaced(folder, damage):
    fill(folder)
    index = next(p for p in folder.glob("*.json") if p.stem != "store" and "k0" in p.read_text())
    data = index.with_suffix(".bin")
    content = index.read_text()
    if damage == "cut":
        os.truncate(data, data.stat().st_size - 1)
    elif damage == "grown":
        data.write_bytes(data.read_bytes() + b"1234")
    elif damage == "no data":
        data.unlink()
    elif damage == "garbage":
        index.write_bytes(b"\x80\x04not json")
    elif damage == "other shapes":
        index.write_text(content.replace("[2, 1, 3]", "[2, 2, 3]"))
    else:
        index.write_text(content[: len(content) // 2])
    assert holds(folder, KEYS[2:])
    with pytest.warns(DataWarning, match=says(f"shard {index.stem}")):
        _, done = fill(folder)
    assert done == {"k0", "k1"}
    assert holds(folder)
    assert not index.exists()
    assert len(list(folder.glob("*.bin"))) == 3


WRITER = """
import os, pathlib, sys, time
import numpy as np
from serzoo.datamodules.store import complete
from serzoo.datamodules.store import Shards

folder, moment = pathlib.Path(sys.argv[1]), sys.argv[2]

def stop(*_):
    print("now", flush=True)
    time.sleep(600)

def make(keys):
    if moment == "encoding":
        stop()
    return [(k, np.full((2, int(k[1:]) + 1, 3), int(k[1:]), np.float32), 0.5) for k in keys]

if moment == "data":
    os.fsync = stop
if moment == "index":
    replace = pathlib.Path.replace
    def choose(self, target):
        if target.suffix == ".json" and target.stem != "store":
            stop()
        return replace(self, target)
    pathlib.Path.replace = choose
facts = {"dtype": "float32", "extraction": {}}
complete(Shards(folder), [f"k{i}" for i in range(6)], facts, lambda free: free[:2], make)
"""


@pytest.fixture
def writer(folder):
    """``writer(moment)``: a process that fills the store, and stops at that moment."""
    started = []

    def start(moment):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), moment], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    folder.mkdir(parents=True)
    (folder / "store.json").write_text(json.dumps(FACTS))  # so that its first write is a shard
    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("moment", ["encoding", "data", "index"])
def test_a_killed_writer_leaves_nothing_that_is_believed(folder, writer, moment):
    process = writer(moment)
    assert process.stdout.readline() == "now\n"
    with locked(folder):
        assert list(claimed(folder).values()) == [{"k0", "k1"}]
    with pytest.raises(ConfigError, match=says(folder, "writing")):
        remove(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = {p.suffix for p in folder.iterdir()} - {""}
    assert left == {".json", ".claim"} | {
        "encoding": set(), "data": {".part"}, "index": {".bin", ".part"}
    }[moment]  # fmt: skip
    assert holds(folder, [])
    _, done = fill(folder)
    assert done == set(KEYS)
    assert holds(folder)
    assert len(list(folder.iterdir())) == 1 + 1 + 3 * 2  # lock, store.json, three shards


def test_who_finds_all_claimed_waits_and_takes_over(folder, writer):
    """The owner dies while we wait: its chunk falls to us."""
    process = writer("encoding")
    assert process.stdout.readline() == "now\n"
    looks = []

    def look(missing):
        looks.append(missing)
        if len(looks) == 5:  # all but its two rows are made, and we have waited
            process.kill()
            process.wait()

    shards = Shards(folder)
    done = complete(shards, KEYS, FACTS, two, make, look)
    assert looks[:5] == [6, 4, 2, 2, 2]
    assert done == set(KEYS)
    assert holds(folder)


def test_a_living_claim_is_left_to_its_owner(folder):
    folder.mkdir(parents=True)
    with locked(folder):
        claim = Claim(folder, ["k0"])
    (folder / f"{claim.name}.bin.part").write_bytes(b"half")
    asked = []

    def others(keys):
        asked.append(keys)
        if len(asked) == 3:  # the owner ends well while we make the last of ours
            Shards(folder).write(claim.name, make(["k0"]))
            claim.release()
        return make(keys)

    _, done = fill(folder, make=others)
    assert done == set(KEYS[1:])
    assert holds(folder)


def test_an_error_gives_the_claim_back(folder):
    def broken(keys):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill(folder, make=broken)
    with locked(folder):
        assert claimed(folder) == {}
    fill(folder)
    assert holds(folder)


def test_a_failed_write_leaves_no_file(folder, monkeypatch):
    fill(folder, ["k5"])

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=says("Errno 28")):
            fill(folder)
    assert len(list(folder.iterdir())) == 1 + 1 + 2  # as before
    assert holds(folder, ["k5"])


def test_a_store_is_named_by_all_of_its_extraction():
    base = {"model_type": "hubert", "weights": "ab", "layers": [1, 2]}
    assert digest(base) == digest(dict(reversed(base.items())))
    others = [{**base, "weights": "ac"}, {**base, "layers": [1]}, {**base, "dtype": "bfloat16"}]
    assert len({digest(e) for e in [base, *others]}) == 4


def test_stores_are_listed_and_removed(folder):
    fill(folder)
    (folder.parent / "strange").mkdir()
    (folder.parent / "strange" / "store.json").write_text("[]")
    (found,) = stores(folder.parent)
    assert found["store"] == "abc"
    assert (found["encoder"], found["layers"], found["rows"]) == ("toy", [1, 2, 3], 6)
    assert found["hours"] == pytest.approx(6 * 0.5 / 3600)
    data = sum(p.stat().st_size for p in folder.iterdir())
    assert found["bytes"] == data > 4 * sum(value(k).size for k in KEYS)
    assert remove(folder) == data
    assert not folder.exists()
    fill(folder)  # and begins anew
    assert holds(folder)


def test_a_store_whose_description_is_damaged_is_listed_cleared_and_described_anew(folder):
    fill(folder)
    for content in ("", '{"dtype": "flo', "\x00\x00"):
        (folder / "store.json").write_text(content)
        (found,) = stores(folder.parent)
        assert "damaged" in found["encoder"]
        fill(folder, keys=[*KEYS, f"k{10 + len(content)}"])
        assert stores(folder.parent)[0]["encoder"] == "toy"
    (folder / "store.json").write_text("")
    assert remove(folder) > 0
    assert not folder.exists()


def test_a_claim_that_a_full_disk_cut_off_stops_nobody(folder, monkeypatch):
    """Its owner is told and lets go; who finds such a claim does not wait for its rows."""
    folder.mkdir(parents=True)

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            Claim(folder, ["a"])
    assert not list(folder.glob("*.claim"))
    living = Claim(folder, ["a"])
    living.path.write_text('["a')
    with locked(folder):
        assert claimed(folder) == {living.name: set()}
    living.release()
    fill(folder)
    assert holds(folder)


FAR = """
import fcntl, json, os, socket, sys, time
from pathlib import Path
import numpy as np
name, folder, moment = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
fcntl.flock = lambda *_: None  # a network disk on which other machines do not see a lock
socket.gethostname = lambda: name
from serzoo.datamodules.store import Shards, complete
from serzoo.zoo.core import files
files.LEASE = 1.5
def make(keys):
    with (folder.parent / "made").open("a") as log:
        log.write("".join(f"{key} {name}\\n" for key in keys))
    if moment == "hang":
        print("hangs", flush=True)
        time.sleep(60)
    time.sleep(0.05)
    return [(key, np.zeros((1, 2, 3), np.float32), 0.5) for key in keys]
print("begins", flush=True)
sys.stdin.readline()
keys = [f"k{i}" for i in range(12)]
complete(Shards(folder), keys, {"dtype": "float32", "extraction": {}}, lambda free: free[:2], make)
"""


@pytest.fixture
def machines(folder):
    """``machines("one", "two")``: processes that seem to run on several machines, and wait."""
    started = []

    def start(*names, moment="", locks="lease"):
        for name in names:
            process = subprocess.Popen(
                [sys.executable, "-c", FAR, name, str(folder), moment],
                env={**os.environ, "SERZOO_LOCKS": locks},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            started.append(process)
        for process in started[-len(names) :]:
            assert process.stdout.readline() == "begins\n"
        for process in started[-len(names) :]:
            process.stdin.write("\n")
            process.stdin.flush()
        return started[-len(names) :]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def made_by(folder):
    rows = (folder.parent / "made").read_text().split("\n")[:-1]
    keys, names = zip(*(row.split() for row in rows), strict=True)
    return list(keys), set(names)


@pytest.mark.slow
def test_machines_that_do_not_see_each_others_locks_share_the_work_by_leases(folder, machines):
    for process in machines("one", "two"):
        assert process.wait(60) == 0
    keys, names = made_by(folder)
    assert sorted(keys) == sorted(f"k{i}" for i in range(12))  # each once
    assert names == {"one", "two"}
    assert not list(folder.glob("*.lease"))
    assert remove(folder) > 0
    assert not folder.exists()


@pytest.mark.slow
def test_without_leases_such_machines_do_the_work_twice(folder, machines):
    """The reason for leases: the test above would not pass by chance."""
    codes = [process.wait(60) for process in machines("one", "two", locks="system")]
    # rows are made twice, or a process removes what the other is writing
    assert len(made_by(folder)[0]) > 12 or any(codes)


@pytest.mark.slow
def test_the_lease_of_a_machine_that_died_runs_out(folder, machines):
    (first,) = machines("one", moment="hang")
    assert first.stdout.readline() == "hangs\n"
    first.kill()
    (second,) = machines("two")
    assert second.wait(60) == 0
    keys, _ = made_by(folder)
    assert sorted(keys) == sorted([*(f"k{i}" for i in range(12)), "k0", "k1"])


def test_a_store_is_removed_with_leases(folder, monkeypatch):
    monkeypatch.setenv("SERZOO_LOCKS", "lease")
    fill(folder)
    claim = Claim(folder, ["k9"])
    assert claimed(folder) == {claim.name: {"k9"}}
    with pytest.raises(ConfigError, match=says(str(folder))):
        remove(folder)
    claim.release()
    assert remove(folder) > 0
    assert not folder.exists()


def test_an_unknown_kind_of_locks_is_told(folder, monkeypatch):
    monkeypatch.setenv("SERZOO_LOCKS", "soft")
    with pytest.raises(ConfigError, match=says("SERZOO_LOCKS", "soft", "system", "lease")):
        fill(folder)
