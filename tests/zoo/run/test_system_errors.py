"""What the system refuses is one line, exit code 2, and nothing half-written: for every verb."""

from __future__ import annotations

import errno
import importlib
import json
import os
import pwd
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from serzoo.datamodules.prepare import prepare
from serzoo.zoo import cli
from serzoo.zoo.cli import main
from serzoo.zoo.compare import pool
from serzoo.zoo.core.errors import DataError, system_error
from serzoo.zoo.run import predict as prediction
from serzoo.zoo.run.config import load
from serzoo.zoo.run.record import read_record
from serzoo.zoo.run.train import run_folder, train

NUMBERS = [
    errno.ENOSPC, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EMFILE,
    errno.ENAMETOOLONG, errno.ENOENT, errno.EEXIST, errno.ELOOP, errno.EIO, errno.EDQUOT,
]  # fmt: skip


# The text.


@pytest.mark.parametrize("number", NUMBERS)
def test_an_error_says_what_where_and_what_to_do(number: int) -> None:
    said = system_error(OSError(number, os.strerror(number), "runs/a.csv"))
    assert said is not None
    where, what, remedy = said.replace(": ", "; ", 1).split("; ", 2)
    assert where == "runs/a.csv"
    assert what
    assert remedy
    assert not {"\n", "Errno"} & set(said.split(" "))


def test_what_libraries_make_of_it_is_understood() -> None:
    full = "the disk is full"
    hidden = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")
    hidden.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert full in str(system_error(hidden))
    assert full in str(system_error(Exception("I/O error: No space left on device (os error 28)")))
    worker = "Caught FileNotFoundError in DataLoader worker process 0.\n"
    worker += "Original Traceback ...\n[Errno 2] No such file or directory: 'x.wav'\n"
    assert str(system_error(OSError(worker))).startswith("x.wav: ")
    assert system_error(OSError("cannot reach\nthe hub")) == "cannot reach the hub"
    assert "NUL" in str(system_error(ValueError("embedded null byte")))


def test_faults_of_the_program_and_our_own_errors_are_left_alone() -> None:
    for error in (ZeroDivisionError(), ValueError("shapes"), RuntimeError("size mismatch")):
        assert system_error(error) is None
    ours = DataError("the store is full")
    ours.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert system_error(ours) is None


def test_names_are_shown_in_one_line_and_not_at_length() -> None:
    said = str(system_error(OSError(errno.ENAMETOOLONG, "", "a" * 5000)))
    assert len(said) < 300
    assert "\n" not in str(system_error(OSError(errno.ENOENT, "", "a\nb")))


# Every verb.


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_tells_it_in_one_line(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "out.csv")

    monkeypatch.setattr(cli.app[verb], "default_command", refused)
    assert main([verb, *MINIMAL[verb]]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"serzoo {verb}: out.csv: the disk is full; ")
    assert err.count("\n") == 1
    assert out == ""


MINIMAL: dict[str, list[str]] = {
    "list": [], "config": ["x"], "prepare": ["x"], "audit": ["x"], "label": ["x"], "doctor": ["x"],
    "corpus": [],
    "train": ["x"], "eval": ["x"], "adapt": ["x"], "probe": ["x"], "predict": ["x", "y"],
    "demo": ["x"],
    "compare": ["x"], "report": ["x"], "tensorboard": ["x"], "save": ["x", "y"],
    "push": ["x", "me/y"], "export": ["x", "y"], "cache": ["list"], "lock": ["x"],
    "show": ["x"], "distil": ["x"], "replicate": ["x"], "completion": ["bash"],
}  # fmt: skip


def test_the_sweeps_know_all_verbs() -> None:
    assert set(MINIMAL) == set(cli.VERBS)
    assert {case.split()[0] for case in PLACES} | SILENT == set(cli.VERBS)
    assert len(cli.VERBS) == 25


@pytest.fixture(scope="module")
def model(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a trained model."""
    cfg = load(tiny_recipe, [f"trainer.out={tmp_path_factory.mktemp('run')}", "optim.epochs=1"])
    train(cfg)
    return str(run_folder(cfg))


# what each verb is to write to: a folder where a file is meant, or a file where a folder is
PLACES = (
    "config FOLDER.yaml", "prepare folder root=SPEECH out=FOLDER.jsonl",
    "prepare folder root=SPEECH out=FILE/x.jsonl", "audit FOLDER.jsonl", "audit FILE/x.jsonl",
    "label MANIFEST taxonomy=basic7 scorer=lexicon out=FILE/x",
    "label MANIFEST taxonomy=basic7 scorer=lexicon out=FILE",
    "doctor FOLDER.yaml", "train RECIPE trainer.out=FILE", "train RECIPE trainer.out=FILE/x",
    "eval MODEL out=FOLDER.jsonl", "eval MODEL out=FILE/x.jsonl", "eval MODEL record=FOLDER",
    "adapt MODEL data=csv root=SPEECH shots=1 steps=1 out=FILE", "probe MODEL data=csv out=FILE",
    "adapt MODEL data=csv root=SPEECH shots=1 steps=1 out=FILE/x", "probe FILE/x data=csv",
    "predict MODEL WAV --out FOLDER.csv", "predict MODEL WAV --out FILE/x.csv",
    "predict MODEL WAV --plot FILE/x.png",
    "predict MODEL WAV --plot FILE", "predict MODEL WAV --textgrid FILE/x.TextGrid",
    "predict MODEL WAV --textgrid FILE",
    "compare smoke --out FILE", "report smoke --out FILE",
    "tensorboard smoke --out FILE", "save MODEL FILE", "save MODEL FILE/x",
    "export MODEL FOLDER.onnx", "export MODEL FILE/x.onnx", "push FILE/x me/y",
    "lock PUBLISHED --file FOLDER", "lock PUBLISHED --file FILE/x", "lock --file FOLDER",
    "show FILE/x", "distil serzoo-small data=[FOLDER] out=FILE/x",
    "replicate selm_names --record FOLDER", "replicate selm_names --record FILE/x",
    "corpus export MANIFEST FILE --format lhotse", "corpus export MANIFEST FILE/x",
    "predict MODEL WAV --format audformat --out FILE",
    "predict MODEL WAV --format label-studio --out FOLDER.jsonl",
)  # fmt: skip
# they read no path of the user's (full output: below); demo, whose package may lack: test_demo.py
SILENT = {"list", "cache", "completion", "demo"}


@pytest.fixture
def words(
    tmp_path: Path, model: str, tiny_recipe: str, tiny_speech: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[str]]:
    """A case's words as a command line, in a folder that holds what it needs."""
    monkeypatch.chdir(tmp_path)
    for suffix in ("", ".yaml", ".jsonl", ".csv", ".onnx"):
        (tmp_path / f"FOLDER{suffix}").mkdir()
        (tmp_path / f"FOLDER{suffix}" / "mine").write_text("mine")
    (tmp_path / "FILE").write_text("mine")
    (tmp_path / "PUBLISHED").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "PUBLISHED" / name).write_text("a model")
    row = {"id": "a", "corpus": "folder", "audio": "angry-0.wav", "start": 0.0, "end": 0.3}
    row |= {"sample_rate": 16000, "speaker": "s", "text": "so happy", "text_source": "human"}
    (tmp_path / "MANIFEST.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"root": str(tiny_speech), "notes": {}}))
    known = {"MODEL": model, "RECIPE": tiny_recipe, "MANIFEST": "MANIFEST.jsonl"}
    known |= {"WAV": str(next(tiny_speech.glob("*.wav"))), "root=SPEECH": f"root={tiny_speech}"}
    return lambda case: [known.get(word, word) for word in case.split()]


def tree(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in paths}


@pytest.mark.parametrize("case", PLACES)
def test_a_place_that_cannot_be_written_is_told_and_left_as_it_was(
    case: str, words: Callable[[str], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(tmp_path)
    assert main(words(case)) == 2
    _, err = capsys.readouterr()
    verb = " ".join(case.split()[: 2 if case.startswith("corpus") else 1])
    assert err.startswith(f"serzoo {verb}: ")
    assert err.count("\n") == 1, err
    assert "FILE" in err or "FOLDER" in err
    assert "Errno" not in err
    assert tree(tmp_path) == before


@contextmanager
def full(size: int) -> Iterator[None]:
    """As if the disk took no more than this many bytes in a file: the system's own refusal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Program:
    """What torch makes of a model for ONNX; making it takes seconds."""

    model = SimpleNamespace(metadata_props={})

    def save(self, path: str) -> None:
        Path(path).write_bytes(bytes(1000))


@pytest.mark.parametrize(
    "case",
    [
        "prepare csv root=SPEECH out=new/x.jsonl", "eval MODEL out=new/x.jsonl",
        "eval MODEL record=new/x.json", "predict MODEL WAV --out new/x.csv",
        "predict MODEL WAV --plot new/x.png", "predict MODEL WAV --plot new",
        "predict MODEL WAV --textgrid new",
        "save MODEL new/x", "export MODEL new/x.onnx", "train RECIPE trainer.out=new",
        "probe RECIPE data=csv root=SPEECH out=new",
        "adapt MODEL data=csv root=SPEECH shots=1 steps=1 out=new/a",
        "label MANIFEST taxonomy=basic7 scorer=lexicon out=new",
    ],
)  # fmt: skip
def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    case: str,
    words: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needed = {"export": "onnxscript", "probe": "pyworld"}.get(case.split()[0])
    if needed:
        pytest.importorskip(needed)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    command = words(case)
    with full(20):
        assert main(command) == 2
    _, err = capsys.readouterr()
    assert err.startswith(f"serzoo {case.split()[0]}: ")
    assert "ulimit" in err
    rows_kept = "--out" in case  # where they are is a second line
    assert err.count("\n") == 1 + rows_kept, err
    assert "new" in err
    left = [p for p in tmp_path.rglob("new/**/*") if p.is_file() and p.suffix != ".lock"]
    assert len([p for p in left if p.stat().st_size]) == rows_kept


def test_standard_output_that_is_full_is_told(tmp_path: Path) -> None:
    code = "import sys\nfrom serzoo.zoo.cli import main\nsys.exit(main(sys.argv[1:]))"
    for arguments in (["list"], ["cache", "list"]):
        with open("/dev/full", "w") as out:
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments], stdout=out, stderr=subprocess.PIPE,
                text=True, timeout=60, env={**os.environ, "SERZOO_CACHE": str(tmp_path)},
            )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith(f"serzoo {arguments[0]}: the disk is full")
        assert done.stderr.count("\n") == 1


def test_without_a_home_the_cache_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(_: int) -> Any:
        raise KeyError

    for name in ("HOME", "SERZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for arguments in (["cache", "list"], ["cache", "clear", "all"], ["audit", "synthetic"]):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert {"HOME,", "SERZOO_CACHE"} <= set(err.split())
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "a\0.yaml"], ["train", "a\0.yaml"], ["compare", "a\0.yaml"], ["eval", "a\0"],
        ["predict", "MODEL", "a\0.wav"], ["predict", "MODEL", "WAV", "--out", "a\0.csv"],
        ["save", "MODEL", "a\0"], ["export", "MODEL", "a\0.onnx"], ["report", "a\0"],
        ["tensorboard", "a\0"], ["audit", "a\0.jsonl"], ["doctor", "a\0.yaml"],
        ["cache", "clear", ""],
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_is_one_line(
    arguments: list[str], words: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([words(word)[0] if word else word for word in arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"serzoo {arguments[0]}: ")
    assert "Traceback" not in err


# One recording of many.


def test_a_recording_that_is_refused_is_a_row_and_the_others_go_on(
    words: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = words("predict MODEL WAV")
    of_path = prediction.recordings

    def with_locked(inputs: Any, **rest: Any) -> Any:
        first, *others = of_path(inputs, **rest)

        def refused() -> Any:
            raise PermissionError(errno.EACCES, "Permission denied", "locked.wav")

        return [type(first)("locked.wav", refused), first, *others]

    monkeypatch.setattr(prediction, "recordings", with_locked)
    assert main([*command, "--out", "x.jsonl"]) == 1
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert rows[0]["error"].startswith("locked.wav: permission is denied")
    assert rows[1]["label"] is not None
    assert "locked.wav: permission" in capsys.readouterr().err


@pytest.mark.parametrize("how", [KeyboardInterrupt, OSError(errno.EIO, "Input/output error")])
def test_rows_that_were_ready_are_kept_when_prediction_is_stopped(
    how: Any,
    words: Callable[[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "x.csv").write_text("older\n")
    rows = prediction._rows

    def stopped(*arguments: Any) -> Any:
        yield from rows(*arguments)
        raise how

    monkeypatch.setattr(prediction, "_rows", stopped)
    code = main([*words("predict MODEL WAV WAV"), "--out", "x.csv"])
    assert code == (130 if how is KeyboardInterrupt else 2)
    assert (tmp_path / "x.csv").read_text() == "older\n"
    (part,) = tmp_path.glob("x.csv.*.part")
    assert len(part.read_text().splitlines()) == 3
    assert part.name in capsys.readouterr().err


def test_a_recording_that_cannot_be_opened_is_refused_and_the_others_are_prepared(
    tiny_speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("serzoo.datamodules.listening")
    decode, number = module.decode_channels, errno.EACCES

    def locked(path: Path, *rest: Any) -> Any:
        if path.name == "sad-3.wav":
            raise OSError(number, os.strerror(number), str(path))
        return decode(path, *rest)

    monkeypatch.setattr(module, "decode_channels", locked)
    done = prepare("csv", root=tiny_speech, progress=False)
    (refused,) = done.refusals
    assert (refused.path, refused.reason) == ("sad-3.wav", "unreadable")
    assert "permission is denied" in refused.detail
    number = errno.EMFILE  # of the machine: half a corpus would be refused
    with pytest.raises(OSError, match="Too many"):
        prepare("csv", root=tiny_speech, progress=False)


def test_a_cell_that_meets_a_full_disk_is_recorded_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "features/a.bin")

    monkeypatch.setattr("serzoo.zoo.run.train.train", full_disk)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    cell = tmp_path / "cell"
    values = load("synthetic").to_dict()
    assert pool._run_cell(None, values, cell, 1, {}) == "failed"
    record = read_record(cell)
    assert record is not None
    assert record.error.startswith("OSError: features/a.bin: the disk is full; ")

    # where not even that can be written, the parent is told, and records it
    monkeypatch.setattr(pool, "record_failure", full_disk)
    said = pool._run_cell(None, values, tmp_path / "other", 1, {})
    assert said.startswith("features/a.bin: the disk is full; ")
