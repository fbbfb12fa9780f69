"""`serzoo demo`: a local page that asks several trained models about one recording.

:func:`analyse` does the work, and :func:`page` shows it with Gradio (extra ``demo``). The page
listens on 127.0.0.1 only. Recordings lie in a folder of this machine, which is removed at the end.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...datamodules.audio import Samples, read_audio, stream_audio
from ..core.errors import CheckpointError, ConfigError, DataError, counted, system_error
from ..core.notices import shown
from ..core.table import Line, Table
from ..core.types import SAMPLE_RATE
from .model import Model, load
from .predict import longest_window
from .predictions import Row
from .save import card_of
from .timeline import timeline_figure
from .voice import detector

if TYPE_CHECKING:
    from ...datamodules.labelling.asr import Recogniser

HOST = "127.0.0.1"
PLAYERS = 6
"""Most uncertain stretches that get a player (our choice)."""
MARGIN = 0.2
"""A stretch is uncertain if a model's two likeliest classes are nearer than this (our choice)."""
MOST_MINUTES = 120.0
"""Longest recording that the page takes (our choice)."""
SECTIONS = ("Intended use and limits", "Metrics", "Data")
"""Sections of a model card that the page shows."""
STYLE = "#stretches {overflow-x: auto} #stretches table {min-width: 40rem}"  # on a phone it scrolls
ABOUT = """# serzoo demo

Recordings stay on this machine. An answer names the class that a recording sounds like.
It does not say what a person feels. Do not make decisions about people with it."""


@dataclass(frozen=True)
class Asked:
    """A model of the page.

    Attributes:
        name: its name on the page.
        model: the model.
        about: Markdown: what it was trained on, and where it fails.
    """

    name: str
    model: Model
    about: str


@dataclass(frozen=True)
class Stretch:
    """A stretch of speech of a recording.

    Attributes:
        start: seconds into the recording.
        end: seconds into it.
        answers: class to mean probability, for each model; empty if it gave none.
        said: what the recogniser heard; "" without one.
    """

    start: float
    end: float
    answers: list[dict[str, float]]
    said: str = ""

    @property
    def labels(self) -> list[str]:
        """The likeliest class of each model; "" if it gave no answer."""
        return [max(a, key=a.__getitem__) if a else "" for a in self.answers]

    @property
    def margin(self) -> float:
        """The smallest distance of a model's two likeliest classes; 1 if none gave an answer."""
        tops = [sorted(a.values())[-2:] for a in self.answers if len(a) > 1]
        return min((top[1] - top[0] for top in tops), default=1.0)

    @property
    def unsure(self) -> bool:
        """Whether a model is uncertain, or two models disagree."""
        return self.margin < MARGIN or len({label for label in self.labels if label}) > 1


@dataclass(frozen=True)
class Analysis:
    """What the models say about a recording.

    Attributes:
        seconds: length of the recording.
        rows: windows of each model.
        whole: class to mean probability over all windows, for each model.
        stretches: stretches of speech, in the order of time.
        notes: what could not be answered.
    """

    seconds: float
    rows: list[list[Row]]
    whole: list[dict[str, float]]
    stretches: list[Stretch]
    notes: list[str]

    @property
    def unsure(self) -> list[Stretch]:
        """The most uncertain stretches, in the order of time."""
        found = sorted((s for s in self.stretches if s.unsure), key=lambda s: s.margin)
        return sorted(found[:PLAYERS], key=lambda s: s.start)


def analyse(
    models: Sequence[Asked],
    path: str | Path,
    *,
    recogniser: Recogniser | None = None,
    window: float | None = None,
    voice: str = "energy",
    report: Callable[[float, str], None] = lambda share, what: None,
) -> Analysis:
    """Ask models about a recording: as a whole, and about each stretch of speech.

    All models hear the same windows. These are at most as long as the smallest ``data.max_seconds``
    of the models. A stretch of speech has the mean probabilities of the windows that cover it,
    weighted by time.

    Args:
        models: the models.
        path: a recording.
        recogniser: writes what is said in each stretch.
        window: seconds of a window.
        voice: how speech is found, as in :func:`.predict.predict`. If none is found, everything
            counts as speech.
        report: is told the share of the work that is done, and what comes next.

    Raises:
        DataError: if the recording cannot be read, is silent or is too long.
        ConfigError: if the window does not fit the models.
    """
    length = _window(models, window)
    seconds = _seconds(path)
    detect = detector(voice)
    segments = detect(stream_audio(path)) if detect else []
    if not segments:
        voice, segments = "none", [(0, round(seconds * SAMPLE_RATE))]
    parts = [part for first, end in segments for part in _parts(first, end, length)]
    rows: list[list[Row]] = []
    for i, asked in enumerate(models):
        report(i / (len(models) + 1), asked.name)
        rows.append(list(asked.model.predict(path, window=length, voice=voice)))
    report(len(models) / (len(models) + 1), "words" if recogniser else "timeline")
    said = _said(path, parts, recogniser) if recogniser else [""] * len(parts)
    stretches = []
    for (first, end), text in zip(parts, said, strict=True):
        start, stop = first / SAMPLE_RATE, end / SAMPLE_RATE
        stretches.append(Stretch(start, stop, [_mean(r, start, stop) for r in rows], text))
    notes = list(dict.fromkeys(row.error for found in rows for row in found if row.error))
    if not any(row.error is None for found in rows for row in found):
        raise DataError(notes[0])
    return Analysis(seconds, rows, [_mean(r, 0.0, seconds) for r in rows], stretches, notes)


def _window(models: Sequence[Asked], window: float | None) -> float:
    """Return the seconds of a window, which all models can take."""
    longest = min(longest_window(asked.model.module) for asked in models)
    if window is not None and not 0 < window <= longest:
        raise ConfigError(
            f"window is {window:g} s; give more than 0 and at most {longest:g} s, to which the "
            "models' training utterances were cut (data.max_seconds)"
        )
    return longest if window is None else window


def _seconds(path: str | Path) -> float:
    """Return the length of a recording, which is read only as far as it may be long."""
    samples = 0
    for piece in stream_audio(path):
        samples += len(piece)
        if samples > MOST_MINUTES * 60 * SAMPLE_RATE:
            raise DataError(
                f"{Path(path).name} is longer than {MOST_MINUTES:g} minutes; cut it, or use "
                "`serzoo predict`, which takes any length"
            )
    return samples / SAMPLE_RATE


def _parts(first: int, end: int, seconds: float) -> Iterator[tuple[int, int]]:
    """Cut a stretch into equal parts of at most so many seconds."""
    count = max(1, -(-(end - first) // max(1, round(seconds * SAMPLE_RATE))))
    edges = np.linspace(first, end, count + 1).round().astype(int).tolist()
    yield from pairwise(edges)


def _said(path: str | Path, parts: Sequence[tuple[int, int]], recogniser: Recogniser) -> list[str]:
    """Return what is said in each part."""
    found = []
    for first, end in parts:
        end = min(end, first + int(min(recogniser.longest, 1e6) * SAMPLE_RATE))
        wave = read_audio(path, first / SAMPLE_RATE, end / SAMPLE_RATE)
        found.append(recogniser.hear([wave])[0].text)
    return found


def _mean(rows: Sequence[Row], start: float, end: float) -> dict[str, float]:
    """Return the mean probabilities of the windows in a stretch, weighted by shared time."""
    total: npt.NDArray[np.float64] | None = None
    weight, classes = 0.0, []
    for row in rows:
        if row.error is not None or row.start is None or row.end is None:
            continue
        shared = min(end, row.end) - max(start, row.start)
        if shared > 0:
            classes, values = list(row.probs), np.array(list(row.probs.values()))
            total = shared * values if total is None else total + shared * values
            weight += shared
    if total is None:
        return {}
    return dict(zip(classes, (total / weight).tolist(), strict=True))


def open_models(paths: Sequence[str]) -> list[Asked]:
    """Load models, each with a name of its own.

    Args:
        paths: as for :func:`serzoo.zoo.load`.

    Raises:
        ConfigError: if there is none, or a head needs more than audio.
    """
    if not paths:
        raise ConfigError("no model; give one or several: serzoo demo MODEL MODEL")
    found: list[Asked] = []
    for path in paths:
        model = load(path)
        if needs := model.module.head.needs:
            raise ConfigError(
                f"the head of {path} needs {', '.join(sorted(needs))} besides the audio, and a "
                "recording has none; give a model that reads only audio"
            )
        base = name = Path(path).name.removesuffix(".ckpt") or str(path)
        while name in {asked.name for asked in found}:
            name = f"{base} ({sum(a.name.startswith(base) for a in found) + 1})"
        found.append(Asked(shown(name), model, _about(path, model)))
    return found


def _about(path: str, model: Model) -> str:
    """Return the sections of a model's card that say what it is for, and where it fails."""
    try:
        card = card_of(path, model.module)
    except CheckpointError as error:  # a part of the user's own has no card
        return f"There is no model card: {error}"
    parts = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", card, re.DOTALL | re.MULTILINE))
    return "\n\n".join(f"### {title}\n{parts[title]}" for title in SECTIONS if title in parts)


# The page.


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, such as 2:07.5."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def table_of(found: Analysis, names: Sequence[str], words: bool) -> Table:
    """Return a line for each stretch: its times, the answer of each model, and what was said."""
    lines: list[Line] = []
    for s in found.stretches:
        answers = [f"{k} {a[k]:.2f}" if k else "" for k, a in zip(s.labels, s.answers, strict=True)]
        mark = "uncertain" if s.unsure else ""
        lines.append([clock(s.start), clock(s.end), *answers, mark, *([s.said] if words else [])])
    head = ("from", "to", *names, "sure?", *(["what was said"] if words else []))
    return Table("Stretches of speech", head, lines)


def page(
    models: Sequence[Asked],
    *,
    recogniser: Recogniser | None = None,
    window: float | None = None,
    voice: str = "energy",
    megabytes: int = 200,
) -> Any:
    """Return the page, as Gradio's ``Blocks``.

    Args:
        models: the models, side by side.
        recogniser: as in :func:`analyse`.
        window: as in :func:`analyse`.
        voice: as in :func:`analyse`.
        megabytes: largest file, for the text of the page.

    Raises:
        ConfigError: if Gradio is not installed.
    """
    gr = _gradio()
    names = [asked.name for asked in models]

    def ask(path: str | None, progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008
        count = len(models)
        players = [gr.Audio(visible=False)] * PLAYERS
        nothing = [*[None] * count, *[None] * count, "", *players]
        if not path:
            return ["Record something, or choose a file, and press Ask again.", *nothing]
        try:
            found = analyse(
                models, path, recogniser=recogniser, window=window, voice=voice,
                report=lambda share, what: progress(share, desc=what),
            )  # fmt: skip
        except (DataError, ConfigError) as error:
            return [f"**It cannot be answered:** {_named(str(error), path)}", *nothing]
        except OSError as error:
            return [
                f"**It cannot be answered:** {_named(str(system_error(error)), path)}",
                *nothing,
            ]
        figures = [
            timeline_figure([[replace(row, file=name) for row in rows]], list(whole))
            if whole
            else None
            for name, rows, whole in zip(names, found.rows, found.whole, strict=True)
        ]
        unsure = found.unsure
        for i, s in enumerate(unsure):
            answers = zip(names, s.labels, s.answers, strict=True)
            told = "; ".join(f"{n}: {k} {a[k]:.2f}" for n, k, a in answers if k)
            wave = _clip(path, s)
            label = f"{clock(s.start)} to {clock(s.end)}: {told}"
            players[i] = gr.Audio(value=(SAMPLE_RATE, wave), label=label, visible=True)
        lines = table_of(found, names, recogniser is not None).markdown()
        return [_summary(found, len(unsure), path), *found.whole, *figures, lines, *players]

    with gr.Blocks(title="serzoo demo", analytics_enabled=False, delete_cache=(60, 3600)) as made:
        gr.Markdown(ABOUT)
        recording = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            buttons=["download"],  # Gradio's share button would upload the recording
            label=f"Recording: at most {megabytes} MB and {MOST_MINUTES:g} minutes",
            elem_id="recording",
        )
        button = gr.Button("Ask", variant="primary", elem_id="ask")
        said = gr.Markdown(elem_id="said")
        with gr.Row():
            labels = []
            for asked in models:
                with gr.Column(min_width=280):
                    labels.append(gr.Label(label=asked.name, elem_classes="answer"))
                    with gr.Accordion(
                        f"What {asked.name} was trained on, and where it fails", open=False
                    ):
                        gr.Markdown(asked.about)
        plots = [gr.Plot(show_label=False, elem_classes="timeline") for _ in models]
        lines = gr.Markdown(elem_id="stretches")
        players = [
            gr.Audio(visible=False, interactive=False, buttons=["download"], elem_classes="player")
            for _ in range(PLAYERS)
        ]
        button.click(
            ask, recording, [said, *labels, *plots, lines, *players], api_visibility="private"
        )
    return made


def _named(said: str, path: str) -> str:
    """Return a message with the name of the file that the user gave, not that of its copy."""
    return shown(said.replace(str(path), Path(path).name))


def _summary(found: Analysis, unsure: int, path: str) -> str:
    said = (
        f"{clock(found.seconds)} long, {counted(len(found.stretches), 'stretch', 'es')} of speech."
    )
    if unsure:
        said += f" The {counted(unsure, 'most uncertain one')} can be heard below."
    return "\n\n".join([said, *(f"- {_named(note, path)}" for note in found.notes)])


def _clip(path: str, stretch: Stretch) -> npt.NDArray[np.int16]:
    wave: Samples = read_audio(path, stretch.start, stretch.end)
    return (np.clip(wave, -1, 1) * 32767).astype(np.int16)


def _gradio() -> Any:
    """Return the module ``gradio``, which sends no statistics."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ConfigError(
            f"serzoo demo needs a package that is not installed ({error.name}); "
            "pip install 'serzoo[demo]'"
        ) from error
    return gradio


def serve(
    paths: Sequence[str],
    *,
    asr: str | None = None,
    window: float | None = None,
    voice: str = "energy",
    port: int = 7860,
    megabytes: int = 200,
    wait: bool = True,
) -> str:
    """Show the page of some models on this machine, and wait until Ctrl-C or SIGTERM.

    Args:
        paths: models, as for :func:`serzoo.zoo.load`.
        asr: a recogniser, as for `serzoo label`; None = no words.
        window: as in :func:`analyse`.
        voice: as in :func:`analyse`.
        port: number of the port; 0 = any free one.
        megabytes: largest file that the page takes.
        wait: False = return while it serves in a thread.

    Returns:
        The address, as a URL.

    Raises:
        ConfigError: if a model or option cannot be used, Gradio is not installed, or the port is
            taken.
    """
    gr = _gradio()
    if megabytes < 1:
        raise ConfigError(f"megabytes is {megabytes}; give 1 or more")
    detector(voice)  # refuses before a model is loaded
    port = _free(port)
    models = open_models(paths)
    _window(models, window)
    recogniser = None
    if asr is not None:
        from ...datamodules.labelling.asr import recogniser as named

        recogniser = named(asr)
    folder = tempfile.TemporaryDirectory(prefix="serzoo-demo-")
    os.environ["GRADIO_TEMP_DIR"] = folder.name  # recordings and clips lie here
    made = page(models, recogniser=recogniser, window=window, voice=voice, megabytes=megabytes)
    system = "system-ui", "sans-serif"
    theme = gr.themes.Base(font=system, font_mono=("ui-monospace", "monospace"))
    made.launch(
        server_name=HOST, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
        max_file_size=f"{megabytes}mb", footer_links=[], ssr_mode=False, show_error=True,
        enable_monitoring=False, theme=theme, css=STYLE, inbrowser=False,
        mcp_server=False, pwa=False,
    )  # fmt: skip
    url = f"http://{HOST}:{port}/"
    print(f"demo: {url} (Ctrl-C ends it)", flush=True)
    if wait:
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        try:
            ended.wait()
        finally:
            made.close()
            folder.cleanup()
    return url


def _free(port: int) -> int:
    """Return a port that is free: this one, or any if it is 0."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"the page cannot be shown on {HOST}, port {port}: {error}; choose another --port "
                "(0 = any free one)"
            ) from error
        return int(tried.getsockname()[1])
