"""`serzoo demo`: what it says about a recording, and its page in a browser."""

from __future__ import annotations

import http.client
import json
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import soundfile
from facts import says
from serzoo.datamodules.labelling.asr import Heard, Recogniser
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.run import demo
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.demo import Asked, Stretch, analyse, open_models
from serzoo.zoo.run.train import train

CLASSES = ["angry", "happy", "sad"]


@pytest.fixture(scope="module")
def runs(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Folders of two trained models, whose training utterances are cut to 2 s and to 1 s."""
    folder = tmp_path_factory.mktemp("runs")
    for head, seconds in (("classification", 2.0), ("prototype", 1.0)):
        settings = [f"head={head}", f"data.max_seconds={seconds}", "optim.epochs=2"]
        train(compose(tiny_recipe, settings), folder / head)
    return [str(folder / "classification"), str(folder / "prototype")]


@pytest.fixture(scope="module")
def models(runs: list[str]) -> list[Asked]:
    return open_models(runs)


@pytest.fixture
def talk(tmp_path: Path, write_wave: Callable[..., Path]) -> Path:
    """Ten seconds, in which somebody speaks from 1 to 2.5 and from 5 to 9."""
    rng = np.random.default_rng(0)
    t = np.arange(16_000 * 10) / 16_000
    spoken = ((t > 1) & (t < 2.5)) | ((t > 5) & (t < 9))
    wave = 1e-4 * rng.normal(size=len(t))
    wave += spoken * 0.3 * np.sin(2 * np.pi * (150 * t + 20 * t**2)) * (1 + np.sin(9 * t)) / 2
    return write_wave(tmp_path / "talk.wav", wave)


class Counting(Recogniser):
    """Writes how many seconds it hears."""

    source = "counting@1"

    def settings(self) -> dict[str, Any]:
        return {}

    def hear(self, waves: Any) -> list[Heard]:
        return [Heard(f"{len(wave) / 16_000:.1f} seconds") for wave in waves]


def test_models_hear_the_same_windows_of_speech(models: list[Asked], talk: Path) -> None:
    found = analyse(models, talk, recogniser=Counting())
    assert found.seconds == 10
    assert [len(rows) for rows in found.rows] == [len(found.rows[0])] * 2
    spans = [[(row.start, row.end) for row in rows] for rows in found.rows]
    assert spans[0] == spans[1]
    assert max(end - start for start, end in spans[0]) <= 1
    edges = [(s.start, s.end) for s in found.stretches]
    assert edges[0][0] == pytest.approx(1, abs=0.2)
    assert edges[-1][1] == pytest.approx(9, abs=0.2)
    assert all(0 < end - start <= 1 for start, end in edges)
    assert [s.said for s in found.stretches] == [f"{e - s:.1f} seconds" for s, e in edges]


def test_a_stretch_has_the_mean_of_its_windows(models: list[Asked], talk: Path) -> None:
    found = analyse(models[:1], talk)
    rows = found.rows[0]
    for s in found.stretches:
        shared = [max(0.0, min(s.end, r.end) - max(s.start, r.start)) for r in rows]
        want = np.average([[r.probs[c] for c in CLASSES] for r in rows], axis=0, weights=shared)
        assert list(s.answers[0].values()) == pytest.approx(want.tolist())
    lengths = [r.end - r.start for r in rows]
    want = np.average([[r.probs[c] for c in CLASSES] for r in rows], axis=0, weights=lengths)
    assert [found.whole[0][c] for c in CLASSES] == pytest.approx(want.tolist())


def test_where_nobody_speaks_everything_is_heard(models: list[Asked], tmp_path: Path) -> None:
    hiss = 2e-4 * np.random.default_rng(0).uniform(-1, 1, 16_000 * 3)
    soundfile.write(tmp_path / "hiss.wav", hiss, 16_000)
    found = analyse(models, tmp_path / "hiss.wav")
    assert [(s.start, s.end) for s in found.stretches] == [(0, 1), (1, 2), (2, 3)]


def test_what_cannot_be_heard_is_told(models: list[Asked], tmp_path: Path, talk: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    with pytest.raises(DataError, match=says("silent.wav", "silent")):
        analyse(models, tmp_path / "silent.wav")
    with pytest.raises(ConfigError, match=says("window", "3 s", "1 s")):
        analyse(models, talk, window=3.0)


def test_a_long_recording_is_refused_before_it_is_heard(
    models: list[Asked], talk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "MOST_MINUTES", 0.1)
    with pytest.raises(DataError, match=says("talk.wav", "0.1 minutes", "serzoo predict")):
        analyse(models, talk)


@pytest.mark.parametrize(
    ("answers", "unsure"),
    [
        ([{"a": 0.9, "b": 0.1}], False),
        ([{"a": 0.55, "b": 0.45}], True),
        ([{"a": 0.9, "b": 0.1}, {"b": 0.8, "c": 0.2}], True),  # they disagree
        ([{"a": 0.9, "b": 0.1}, {}], False),
        ([{}], False),
    ],
)
def test_which_stretches_are_uncertain(answers: list[dict[str, float]], unsure: bool) -> None:
    assert Stretch(0.0, 1.0, answers).unsure is unsure


def test_the_most_uncertain_stretches_come_in_the_order_of_time(models: list[Asked]) -> None:
    margins = [0.19, 0.01, 0.5, 0.02, 0.03, 0.04, 0.05, 0.06]
    stretches = [
        Stretch(i, i + 1, [{"a": 0.5 + m / 2, "b": 0.5 - m / 2}]) for i, m in enumerate(margins)
    ]
    found = demo.Analysis(8.0, [[]], [{}], stretches, [])
    assert [s.start for s in found.unsure] == [1, 3, 4, 5, 6, 7]
    assert demo.PLAYERS == 6
    assert demo.clock(127.46) == "2:07.5"
    assert demo.clock(59.96) == "1:00.0"


def test_models_have_names_of_their_own_and_their_cards(runs: list[str]) -> None:
    found = open_models([runs[0], runs[0], f"{runs[0]}/checkpoints/best.ckpt"])
    assert [asked.name for asked in found] == ["classification", "classification (2)", "best"]
    for asked in found:
        assert "### Intended use and limits" in asked.about
        assert "It fails most often on `" in asked.about
        assert "serzoo" not in asked.about.splitlines()[0]
    with pytest.raises(ConfigError, match=says("no model", "serzoo demo")):
        open_models([])


def test_a_model_that_reads_text_is_refused(
    runs: list[str], models: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(models[0].model.module.head), "needs", frozenset({"text"}))
    with pytest.raises(ConfigError, match=says("classification", "text", "only audio")):
        open_models(runs[:1])


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("RUN --megabytes 0", ("megabytes", 0, "1 or more")),
        ("RUN --voice loud", ("'loud'", "silero")),
        ("RUN --port 99999", (99999, "--port")),
        ("RUN --window 3", ("window", "3 s", "2 s")),
        ("nowhere/x", ("nowhere/x",)),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    words: str,
    facts: tuple[Any, ...],
    runs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.setattr(demo, "_gradio", lambda: None)
    typed = [runs[0] if word == "RUN" else word for word in words.split()]
    assert main(["demo", *typed, *([] if "--port" in words else ["--port", "0"])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("serzoo demo: ")
    assert re.search(says(*facts), line)


def test_without_gradio_it_says_what_to_install(
    runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", runs[0]]) == 2
    assert "pip install 'serzoo[demo]'" in capsys.readouterr().err


# The page.


@pytest.fixture
def address(runs: list[str]) -> str:
    """The page of two models, which takes files of at most 1 MB."""
    pytest.importorskip("gradio")
    return demo.serve(runs, port=0, megabytes=1, wait=False)


CHOOSE = """
    const input = document.querySelector("#recording input[type=file]");
    const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
    const held = new DataTransfer();
    held.items.add(new File([bytes], arguments[1], {type: "audio/wav"}));
    input.files = held.files;
    input.dispatchEvent(new Event("change", {bubbles: true}));
"""


def wait_for(chromium: Any, script: str, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := chromium.run(f"return {script}")):
        assert time.monotonic() < end, chromium.run("return document.body.innerText")
        time.sleep(0.1)
    return found


def choose(chromium: Any, data: bytes, name: str) -> None:
    import base64

    chromium.run(CHOOSE, base64.b64encode(data).decode(), name)


@pytest.mark.slow
def test_a_browser_shows_the_answers(address: str, chromium: Any, talk: Path) -> None:
    chromium.size(1200, 1600)
    chromium.open(address)
    wait_for(chromium, "document.querySelector('#recording input[type=file]')")
    choose(chromium, talk.read_bytes(), "talk.wav")
    wait_for(chromium, "document.querySelector('#recording audio, #recording canvas, #waveform')")
    said = ask_until_answered(chromium)
    assert "0:10.0 long" in said
    for part in ("answer", "timeline"):
        assert chromium.run(f"return document.querySelectorAll('.{part}').length") == 2
    wait_for(chromium, "document.querySelectorAll('.timeline img').length === 2")
    text = chromium.run("return document.body.innerText")
    for word in (*CLASSES, "classification", "prototype", "Recordings stay on this machine"):
        assert word in text
    assert wait_for(chromium, "document.querySelectorAll('#stretches tbody tr').length") >= 6
    chromium.run("[...document.querySelectorAll('button')].filter(b => b.innerText.includes("
                 "'where it fails')).forEach(b => b.click())")  # fmt: skip
    wait_for(chromium, "document.body.innerText.includes('It fails most often on')")
    buttons = chromium.run(
        "return [...document.querySelectorAll('button')].map(b => b.ariaLabel + b.innerText)"
    )
    assert any("Download" in text for text in buttons)
    assert [text for text in buttons if "share" in text.lower()] == []  # it would upload
    assert [e for e in chromium.console() if e["level"] == "SEVERE"] == []
    asked = [a for a in chromium.requests() if not a.startswith(("data:", "blob:", "about:"))]
    assert len(asked) > 10
    assert [a for a in asked if not a.startswith(address)] == []


@pytest.mark.slow
def test_a_browser_records_what_the_microphone_hears(
    address: str, tmp_path: Path, write_wave: Callable[..., Path]
) -> None:
    """Chromium has a device whose sound is a file, and asks nobody for permission."""
    if (found := browser.programs()) is None:
        pytest.skip("no chromium and chromedriver")
    t = np.arange(16_000 * 4) / 16_000
    heard = write_wave(tmp_path / "heard.wav", 0.3 * np.sin(2 * np.pi * (150 * t + 20 * t**2)))
    device = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    )
    press = "[...document.querySelectorAll('#recording button')].find(b => {}).click()"
    with browser.Browser(*found, *device) as window:
        window.size(1200, 1600)
        window.open(address)
        wait_for(window, "document.querySelector('#recording button[aria-label*=ecord]')")
        window.run(press.format("b.ariaLabel === 'Record audio'"))
        wait_for(window, "document.querySelector('#recording .record-button')")
        window.run(press.format("b.classList.contains('record-button')"))
        wait_for(window, "document.querySelector('#recording .stop-button').offsetWidth > 0")
        time.sleep(3)  # so long somebody speaks
        window.run(press.format("b.classList.contains('stop-button')"))
        wait_for(window, "document.querySelector('#recording audio, #recording #waveform')")
        said = ask_until_answered(window)
        seconds = float(said.partition("0:")[2].partition(" long")[0])
        assert 2 < seconds < 8
        assert window.run("return document.querySelectorAll('.answer').length") == 2
        assert [e for e in window.console() if e["level"] == "SEVERE"] == []
        asked = [a for a in window.requests() if not a.startswith(("data:", "blob:", "about:"))]
        assert [a for a in asked if not a.startswith(address)] == []


def ask_until_answered(chromium: Any) -> str:
    """Press the button, and wait for what the page says of the recording."""
    chromium.run("document.querySelector('#ask').click()")
    return str(wait_for(chromium, "document.querySelector('#said').innerText.includes('long')"
                        " && document.querySelector('#said').innerText"))  # fmt: skip


@pytest.mark.slow
def test_a_file_that_is_too_large_or_no_sound_is_told(address: str, chromium: Any) -> None:
    chromium.open(address)
    wait_for(chromium, "document.querySelector('#recording input[type=file]')")
    choose(chromium, bytes(1_500_000), "large.wav")
    wait_for(chromium, "document.body.innerText.toLowerCase().includes('maximum')")
    chromium.open(address)
    wait_for(chromium, "document.querySelector('#recording input[type=file]')")
    choose(chromium, b"no sound at all", "text.wav")
    wait_for(chromium, "document.querySelector('#recording audio, #recording canvas, #waveform')")
    chromium.run("document.querySelector('#ask').click()")
    said = wait_for(chromium, "document.querySelector('#said').innerText.includes('text.wav')"
                    " && document.querySelector('#said').innerText")  # fmt: skip
    assert said.startswith("It cannot be answered: text.wav")


@pytest.mark.slow
def test_ctrl_c_ends_it_and_removes_the_recordings(
    runs: list[str], serzoo: Callable[..., Any], wait_until: Callable[..., None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("gradio")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    log = tmp_path / "log"
    process = serzoo("demo", runs[0], "--port", "0", log=log)
    wait_until(lambda: log.is_file() and "Ctrl-C ends it)\n" in log.read_text(), process)
    assert len(list(tmp_path.glob("serzoo-demo-*"))) == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert log.read_text().splitlines()[-1] == "interrupted"
    assert list(tmp_path.glob("serzoo-demo-*")) == []


@pytest.mark.slow
def test_the_page_listens_on_this_machine_only(address: str) -> None:
    import socket

    port = int(address.rstrip("/").rpartition(":")[2])
    assert address == f"http://127.0.0.1:{port}/"
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        own = "127.0.0.2"  # an address of this machine that is not the page's
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((own, port), timeout=5)
    page = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    page.request("GET", "/config")
    config = json.loads(page.getresponse().read())
    assert config["analytics_enabled"] is False
