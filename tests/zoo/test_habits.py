"""What all verbs share: JSON, exit codes, how much they say, version, completion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from facts import says
from report_suite import write_suite
from rich.console import Console
from serzoo.zoo import cli
from serzoo.zoo.cli import app, main
from serzoo.zoo.core import notices, progress
from serzoo.zoo.core.errors import DataNote, DataWarning
from serzoo.zoo.core.progress import Bar
from serzoo.zoo.terminal import EXIT_CODES

ROOT = Path(__file__).resolve().parents[2]
SECOND = ("label trace", "label audit", "compare import", "compare ensemble")
VERBS = (*cli.VERBS, *SECOND)
NO_RESULT = {"demo", "tensorboard", "completion"}
"""Two serve until they are stopped, the last prints a script."""


def command(verb: str) -> Any:
    found = app
    for word in verb.split():
        found = found[word]
    return found


@pytest.fixture(scope="module")
def here(
    tiny_recipe: str, write_wave: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a trained run, its recipe's name, a corpus and a manifest."""
    folder = tmp_path_factory.mktemp("here")
    for i, label in enumerate(("angry", "happy", "sad")):
        for j in range(5):
            write_wave(folder / "c" / label / f"s{j}.wav", seconds=0.3, hz=100 + 40 * i + 7 * j)
    speaker = r"options.speaker=(s\d)\.wav"
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["prepare", "folder", "root=c", "out=m.jsonl", speaker]) == 0
        assert main(["train", tiny_recipe, "optim.epochs=1", "trainer.out=runs"]) == 0
    finally:
        os.chdir(before)
    (run,) = (p.parent for p in folder.glob("runs/*/*/record.json"))
    run.rename(folder / "run")
    return folder


def test_a_run_that_had_ended_says_so(
    tiny_recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", tiny_recipe, "optim.epochs=1", f"trainer.out={tmp_path}"]
    assert main(command) == 0
    first = capsys.readouterr()
    assert "had ended" not in first.err
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert re.search(says(str(tmp_path), "had ended before", "remove"), " ".join(again.err.split()))
    assert main([*command, "--quiet"]) == 0
    assert "had ended" not in capsys.readouterr().err


def test_a_folder_of_runs_names_one_of_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(here)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(says("1 run;", "such as", str(here / "run")), error)


# JSON.


def test_every_verb_is_found() -> None:
    assert len(VERBS) == 29
    assert set(cli.VERBS) >= NO_RESULT


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_with_a_result_gives_it_as_json(verb: str) -> None:
    names = {name for a in command(verb).assemble_argument_collection() for name in a.names}
    assert ("--json" in names) == (verb not in NO_RESULT)


JSON: list[tuple[str, set[str]]] = [
    ("list", {"heads", "suites"}),
    ("show run", {"metrics", "config"}),
    ("config ravdess", {"fingerprint", "classes", "config"}),
    ("prepare folder root=c out=n.jsonl options.speaker=(s\\d)\\.wav", {"manifest", "utterances"}),
    ("audit m.jsonl protocol=kfold root=c", {"passed", "folds"}),
    ("lock", {"file", "models"}),
    ("train RECIPE optim.epochs=1 seed=2 trainer.out=runs", {"metrics", "folder"}),
    ("eval run", {"metrics", "by_speaker"}),
    ("adapt run data=csv root=SPEECH shots=0", {"metrics", "folder"}),
    ("save run saved", {"folder"}),
    ("doctor RECIPE", {"summary", "findings"}),
    (
        "label csv root=SPEECH taxonomy=big4 out=labels scorer=lexicon options.text=text "
        "relabel=true",
        {"folder", "labels"},
    ),
    ("cache clear all", {"removed", "bytes"}),
]


@pytest.mark.parametrize(("typed", "keys"), JSON, ids=[t.split()[0] for t, _ in JSON])
def test_json_is_all_that_is_printed(
    typed: str,
    keys: set[str],
    here: Path,
    tiny_recipe: str,
    tiny_speech: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(here)
    words = typed.replace("SPEECH", str(tiny_speech)).replace("RECIPE", tiny_recipe).split()
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert keys <= set(found)


def test_a_comparison_and_its_report_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "runs" / "suite"
    seen = {"cells": 2, "done": 2, "failed": 1, "folder": suite, "summary": None}

    def compare(*words: object, **options: object) -> dict[str, Any]:
        print("a table for people")
        return seen

    monkeypatch.setattr("serzoo.zoo.compare.compare.compare", compare)
    assert main(["compare", "suite", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {**seen, "folder": str(suite)}
    assert err == "a table for people\n"
    write_suite(suite)
    assert main(["report", "suite", "--json", "--out", str(suite.parent)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(suite)
    assert {row["head"] for row in found["rows"]} >= {"classification"}


def test_rows_of_predictions_are_json_lines(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    assert main(["predict", "run", "c/sad", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == [f"c/sad/s{j}.wav" for j in range(5)]
    assert main(["predict", "run", "c/sad", "--json", "--out", "x.csv"]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_fault_as_json_keeps_its_exit_code(
    write_wave: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for j in range(5):  # every speaker says the very same
        write_wave(tmp_path / "c" / "angry" / f"s{j}.wav", seconds=0.2)
    words = ["protocol=kfold", "root=c", r"options.speaker=(s\d)\.wav", "--json"]
    assert main(["audit", "folder", *words]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert len(found["folds"]) == 5


# Exit codes.


def test_the_exit_codes_are_documented() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
    assert {int(code): said.replace("\\|", "|") for code, said in rows} == EXIT_CODES


def test_a_reader_that_has_gone_ends_with_141() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from serzoo.zoo.cli import main; sys.exit(main(['list']))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


# How much is said.


def said(level: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with notices.on_terminal(level):
        warnings.warn("a fact", DataNote, stacklevel=1)
        warnings.warn("; ".join("abcdefghij"), DataWarning, stacklevel=1)
        assert notices.level() == level
    assert notices.level() == notices.NORMAL
    return capsys.readouterr().err.splitlines()


def test_quiet_leaves_out_notes_and_verbose_cuts_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    short, whole = "warning: a; b; c; d; e; and 4 more like these; j", "warning: a; b; c; d; e; f"
    assert said(notices.QUIET, capsys) == [short]
    assert said(notices.NORMAL, capsys) == ["note: a fact", short]
    verbose = said(notices.VERBOSE, capsys)
    assert verbose == ["note: a fact", f"{whole}; g; h; i; j"]


@pytest.mark.parametrize("word", ["-q", "--quiet"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_quiet_may_be_anywhere(
    word: str, place: int, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seen = []
    monkeypatch.setattr(
        "serzoo.zoo.core.listing.show", lambda *words: seen.append((notices.level(), words))
    )
    words = ["list", "heads"]
    words.insert(place, word)
    assert main(words) == 0
    assert seen == [(notices.QUIET, ("heads", None))]


def test_verbose_shows_where_an_error_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "heads", "nobody"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["list", "heads", "nobody", "-v"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "listing.py" in err
    assert err.splitlines()[-1].startswith("serzoo list: ")


def test_a_quiet_command_draws_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with notices.on_terminal(notices.QUIET):
        assert not Bar("x", 1, console=Console(force_terminal=True)).visible
    assert Bar("x", 1, console=Console(force_terminal=True)).visible


def test_long_work_tells_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Bar("files", 10) as bar:
        for now in (4.0, 6.0, 20.0, 40.0):  # noqa: B007
            bar.advance()
    with Bar("files", 10, shown=False) as bar:
        now = 99.0
        bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["files: 2 of 10, about 24 s left", "files: 4 of 10, about 60 s left"]


# Version, completion.


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"serzoo {version('serzoo')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_with_every_verb(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert [verb for verb in cli.VERBS if not re.search(rf"\b{verb}\b", text)] == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["serzoo", "tr"], {"train"}),
        (["serzoo", "list", "he"], {"heads"}),
        (["serzoo", "cache", "cl"], {"clear"}),
        (["serzoo", "compare", "--dr"], {"--dry-run"}),
    ],
)
def test_bash_completes(words: list[str], wanted: set[str], tmp_path: Path, capsys: Any) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "serzoo.bash"
    script.write_text(capsys.readouterr().out)
    asked = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
    done = subprocess.run(
        ["bash", "-c", asked + '_serzoo; printf "%s\\n" "${COMPREPLY[@]}"'],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert set(done.stdout.split()) == wanted
