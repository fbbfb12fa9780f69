"""The journeys of docs/journeys.md: their very lines, run in order in an empty folder.

What is replaced is in :data:`SUBSTITUTIONS`, and nothing else is. ``SERZOO_SCREENSHOTS=FOLDER``
keeps the pictures there (``make screenshots``: those that the page shows).
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from PIL import Image
from rich.console import Console
from serzoo.zoo.cli import VERBS, app
from serzoo.zoo.report.report import report
from serzoo.zoo.run.board import EVENTS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "journeys.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
SHOTS = ROOT / "benchmarks" / "screenshots"
LARGEST = 200_000  # bytes of a picture

SUBSTITUTIONS = {
    # an encoder of random weights (the fixture `encoder`), in the format of published ones
    "encoder=wavlm-base": "encoder=hf encoder.name=random encoder.layers=[1] "
    "optim.epochs=20 optim.head_lr=3e-3",
    "source.encoder=wavlm-base": "source.encoder=hf encoder.name=random encoder.layers=[1] "
    "optim.epochs=20 optim.head_lr=3e-3",
    # fewer epochs, fewer steps, fewer cells
    "compare quickstart": "compare quickstart head='[classification,selm,gen_ser]' fold='[0]' "
    "optim.epochs=6",
    "data=male.jsonl shots=4": "data=male.jsonl shots=4 steps=20",
    "compare few_shot": "compare few_shot options.steps=30 options.lr=2e-3 options.head_lr=1e-2",
    "draw='[1,2,3]'": "draw='[1,2]'",
    "shots='[0,1,4,8]'": "shots='[0,1,8]'",
    # any port that is free
    "serzoo tensorboard": "exec serzoo tensorboard --port 0",
}


def blocks() -> list[list[str]]:
    """Commands of each fenced block of the page, lines that go on joined."""
    found = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [text.replace("\\\n", " ").strip().splitlines() for text in found]


def replaced(command: str) -> str:
    """The command with its substitutions; of those that begin alike, the longest is taken."""
    keys = sorted(SUBSTITUTIONS, key=len, reverse=True)
    pattern = "|".join(rf"(?<![\w.]){re.escape(key)}(?![\w.])" for key in keys)
    return re.sub(pattern, lambda m: SUBSTITUTIONS[m[0]], command)


def test_the_section_can_be_run() -> None:
    heads, speakers, shots, board = blocks()
    assert [len(b) for b in (heads, speakers, shots, board)] == [3, 6, 1, 2]
    commands = [c for b in blocks() for c in b]
    for key in SUBSTITUTIONS:
        assert any(replaced(c) != c and key in c for c in commands), f"the page has no {key}"
    words = [shlex.split(c, comments=True) for c in commands]
    for line in words:
        for at in (i for i, word in enumerate(line) if word == "serzoo"):
            rest = line[at + 1 :]
            end = next((i for i, word in enumerate(rest) if word.endswith(";")), len(rest))
            assert rest[0] in VERBS
            app.parse_args([w.rstrip(";") for w in rest[: end + 1]], exit_on_error=False)


def test_pictures_are_there_and_small() -> None:
    shown = re.findall(r"!\[[^\]]+\]\((?:\.\./)?benchmarks/screenshots/([^)]+)\)", README + PAGE)
    assert sorted(shown) == sorted(path.name for path in SHOTS.glob("*.png"))
    assert len(shown) == 4
    for path in SHOTS.glob("*.png"):
        assert path.stat().st_size < LARGEST
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("PNG", "P")


# Training a run.


class Journey:
    """A folder, and a shell in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "SERZOO_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "200",
        }

    def start(self, command: str, log: Path) -> subprocess.Popen[str]:
        with log.open("w") as file:
            return subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", replaced(command)],
                cwd=self.folder, env=self.environment, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True, text=True,
            )  # fmt: skip

    def run(self, command: str) -> str:
        """What it prints; it must end well."""
        log = self.folder / "log.txt"
        process = self.start(command, log)
        try:
            code = process.wait()
        finally:  # a test that takes too long leaves nothing behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        text = log.read_text()
        assert code == 0, f"{replaced(command)}\n{text[-3000:]}"
        return text


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Journey, list[list[str]]]:
    """All lines but those that serve, run; and what each block printed."""
    folder = tmp_path_factory.mktemp("journeys")
    tiny_models.tiny_hf(
        folder / "random", "wav2vec2", "layer", conv_dim=[64] * 7, hidden_size=128,
        num_hidden_layers=2, intermediate_size=128,
    )  # fmt: skip
    made = Journey(folder)
    said = [[made.run(c) for c in block] for block in blocks()[:3]]
    return made, said


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_heads_are_compared(journey: tuple[Journey, list[list[str]]]) -> None:
    made, ((planned, compared, reported), *_) = journey
    assert "9 cells" in planned
    assert "classification" in compared
    assert "95 % interval" in compared
    assert reported.endswith("TensorBoard: serzoo tensorboard quickstart\n")
    folder = made.folder / "runs" / "quickstart"
    records = [json.loads(p.read_text()) for p in folder.glob("cells/*/record.json")]
    assert [r["status"] for r in records] == ["ok"] * 9
    page = (folder / "report.html").read_text()
    assert "9 finished cells" in page
    assert '<audio controls preload="none" src="data:audio/flac' in page


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_model_is_adapted_by_lora_and_used(journey: tuple[Journey, list[list[str]]]) -> None:
    made, (_, said, _) = journey
    *_, before, after, used = said
    assert "from synthetic, 0 shots: query of 63 utterances of 3 speakers: UAR" in before
    assert re.findall(r"4 shots, (\w+): query of 63 ", after) == ["lora", "head", "scratch"]
    folder = made.folder / "runs" / "adapted" / "male"
    records = [json.loads(p.read_text()) for p in folder.glob("*/record.json")]
    assert {r["tuning"] for r in records} == {"none", "lora", "head", "scratch"}
    assert len({r["support"]["sha"] for r in records if r["shots"]}) == 1
    assert all(name.startswith("synthetic/m") for r in records for name in r["speakers"]["test"])
    (adapted,) = folder.glob("*lora*")
    assert json.loads((adapted / "adapter" / "adapter_config.json").read_text())["r"] == 8
    assert (adapted / "adapter" / "adapter_model.safetensors").stat().st_size < 100_000
    with (made.folder / "m01.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21
    assert {row["calibrated"] for row in rows} == {"false"}
    assert not any(row["error"] for row in rows)
    assert "21 recordings, 21 windows, 0 errors" in used


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_adaptations_are_compared(journey: tuple[Journey, list[list[str]]]) -> None:
    made, (_, _, (said,)) = journey
    assert "From women to men" in said
    folder = made.folder / "runs" / "few_shot"
    records = [json.loads(p.read_text()) for p in folder.glob("cells/*/record.json")]
    assert [r["status"] for r in records] == ["ok"] * 18  # 2 heads x (1 + 2 shots x 2 draws x 2)
    assert all(next(p.parent.glob(EVENTS)) for p in folder.glob("cells/*/record.json"))
    blocks = (folder / "learning_curves.md").read_text().split("\n\n")
    curves = next(block for block in blocks if block.startswith("| head | tuning |"))
    assert curves.count("\n| ") == 4


# Looking at a run.


def keep(shot: Path) -> None:
    """In the folder that was asked for, in a palette of 64 colours."""
    if folder := os.environ.get("SERZOO_SCREENSHOTS"):
        with Image.open(shot) as image:
            rare = Image.Quantize.MAXCOVERAGE  # keeps the colour of a single mark
            small = image.convert("RGB").quantize(64, rare, dither=Image.Dither.NONE)
        Path(folder).mkdir(parents=True, exist_ok=True)
        small.save(Path(folder) / shot.name, optimize=True)


def shoot(window: Any, made: Journey, suite: str, section: str, name: str) -> None:
    window.size(1400, 760)
    window.scheme("light")
    window.open(f"file://{made.folder / 'runs' / suite / 'report.html'}")
    window.run("document.getElementById(arguments[0]).scrollIntoView()", section)
    assert window.run("return document.getElementById(arguments[0]).offsetHeight", section) > 200
    assert window.console() == []
    keep(window.shoot(made.folder / f"{name}.png"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_pages_open(journey: tuple[Journey, list[list[str]]], chromium: Any) -> None:
    made, _ = journey
    shoot(chromium, made, "quickstart", "results", "report")
    heads = chromium.run(
        "return [...document.querySelector('#results tbody').rows].map(r => r.cells[0].innerText)"
    )
    assert heads == ["classification", "selm", "gen_ser"]
    assert chromium.run("return document.querySelectorAll('#errors audio').length") > 0
    shoot(chromium, made, "few_shot", "learning", "few_shot")
    title = chromium.run("return document.querySelector('h1').innerText")
    assert title == "From women to men"
    assert chromium.run("return document.querySelectorAll('#learning svg').length") == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_answer_of_a_packed_comparison_is_one_screen(tmp_path: Path, chromium: Any) -> None:
    """The picture of the README: from the title to the end of the first figure."""
    shutil.copytree(ROOT / "benchmarks" / "results" / "head_to_head", tmp_path / "head_to_head")
    report(tmp_path / "head_to_head", console=Console(file=io.StringIO()))
    chromium.size(940, 1150)
    chromium.scheme("light")
    chromium.open(f"file://{tmp_path / 'head_to_head' / 'report.html'}")
    answer = chromium.run("return document.getElementById('answer').innerText")
    assert all(f"{corpus}, serzoo-small" in answer for corpus in ("ravdess", "emodb", "nemo"))
    bottom = chromium.run(
        "return document.querySelector('#answer figure').getBoundingClientRect().bottom"
    )
    assert 800 < bottom < 1700
    chromium.size(940, int(bottom))
    assert chromium.console() == []
    keep(chromium.shoot(tmp_path / "answer.png"))


@pytest.fixture
def boards(journey: tuple[Journey, list[list[str]]]) -> Iterator[list[str]]:
    """Addresses of the TensorBoards of the last block, while they serve."""
    made, _ = journey
    started, addresses = [], []
    try:
        for k, command in enumerate(blocks()[3]):
            log = made.folder / f"board-{k}.txt"
            started.append(made.start(command, log))
            end = time.monotonic() + 120
            while not (found := re.findall(r"http://\S+", log.read_text())):
                assert started[-1].poll() is None, log.read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            addresses += found
        yield addresses
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(30) for process in started] == [0] * len(started)


SEEN = """
const below = (n) => [...n.children, ...(n.shadowRoot ? n.shadowRoot.children : [])];
const wanted = new Set(arguments[0]);
let curves = 0;
const look = (n) => {
  if (n.matches("script, style, template")) return;
  if (n.matches("path.line[d]")) curves += 1;
  if (!n.children.length) wanted.delete(n.textContent.trim());
  below(n).forEach(look);
};
if (document.body) look(document.body);
return [[...wanted], curves];
"""
"""Which texts a page does not show, and number of its curves; within its components, too."""


def wait_for(window: Any, texts: set[str], curves: int = 0) -> None:
    """Until a page shows the texts, and so many curves."""
    end = time.monotonic() + 600
    lacking, drawn = sorted(texts), 0
    while lacking or drawn < curves:
        assert time.monotonic() < end, (lacking, drawn)
        with contextlib.suppress(TimeoutError, RuntimeError):  # it draws, and does not answer
            lacking, drawn = window.run(SEEN, sorted(texts))
        time.sleep(1)  # or looking would keep the page from drawing


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_tensorboard_opens(
    journey: tuple[Journey, list[list[str]]], boards: list[str], chromium: Any
) -> None:
    made, _ = journey
    runs, adapted = boards
    cells = {p.name for p in (made.folder / "runs" / "quickstart" / "cells").iterdir()}
    assert len(cells) == 9
    chromium.size(1400, 760)
    chromium.scheme("light")
    chromium.open(f"{runs}#custom_scalars")
    wait_for(chromium, {"validation UAR", "test UAR", "Matches (9)", *cells}, curves=2 * len(cells))
    time.sleep(1)  # curves are drawn from left to right
    keep(chromium.shoot(made.folder / "tensorboard.png"))
    chromium.open("about:blank")
    chromium.open(f"{adapted}#hparams")
    wait_for(chromium, {"shots", "draw", "tuning", "lora", "none", "selm", "test UAR"})
