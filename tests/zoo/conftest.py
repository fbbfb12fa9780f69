"""What tests of whole runs share: a corpus of seconds, and a recipe for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_hub import COMMIT

SPEAKERS = 10
PITCH = {"angry": (6.0, 0.5), "happy": (3.0, 0.1), "sad": (0.5, 0.02)}  # wobble in Hz, loudness


@pytest.fixture(scope="module")
def tiny_speech(tmp_path_factory: pytest.TempPathFactory, write_wave: Callable) -> Path:
    """A folder with table.csv: 10 speakers, 3 emotions, one take each of a third of a second."""
    root = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    rows = ["audio,label,speaker,gender,text"]
    for speaker in range(SPEAKERS):
        for label, (wobble, loud) in PITCH.items():
            t = np.arange(int(16_000 * rng.uniform(0.3, 0.5))) / 16_000
            phase = 2 * np.pi * (90 + 15 * speaker) * t + 4 * np.sin(2 * np.pi * wobble * t)
            wave = loud * sum(np.sin(k * phase) / k for k in (1, 2, 3, 5))
            name = f"{label}-{speaker}.wav"
            write_wave(root / name, wave + 1e-3 * rng.normal(size=len(t)))
            rows.append(f"{name},{label},s{speaker},{'fm'[speaker % 2]},it is so")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def tiny_recipe(tiny_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A recipe file that trains on :func:`tiny_speech` in a second; the cache is the test's own."""
    folder = tmp_path_factory.mktemp("recipe")
    path = folder / "tiny.yaml"
    path.write_text(
        f"""
corpus: csv
protocol: kfold-5
groups: {{encoder: logmel, head: classification}}
encoder: {{widths: [4, 8, 8, 8], dim: 16, bfloat16: false}}
optim: {{epochs: 2, mixup: 0.3, ema: 0.99}}
data: {{root: {tiny_speech}, batch_size: 6}}
trainer: {{accelerator: cpu, progress: false, threads: 1, out: {folder / "runs"}}}
"""
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERZOO_CACHE", str(folder / "cache"))
        yield str(path)


@pytest.fixture
def serzoo() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``serzoo("train", recipe, log=path)``: the installed command, in a session of its own.

    ``script`` names another command of the environment. What a test leaves running is killed.
    """
    scripts = Path(sysconfig.get_path("scripts"))
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, log: Path, script: str = "serzoo") -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        with log.open("a") as file:
            process = subprocess.Popen(
                [sys.executable, str(scripts / script), *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                # a shell's background job has Ctrl-C switched off, and would pass that on
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """``wait_until(condition, process)``: poll until it holds; the process must not end before."""

    def wait(
        condition: Callable[[], object],
        process: subprocess.Popen[str] | None = None,
        seconds: float = 240,
    ) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert process is None or process.poll() is None, "it ended too early"
            assert time.monotonic() < end, f"nothing happened in {seconds} s"
            time.sleep(0.005)

    return wait


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds of a suite are asked for, but no corpus is opened."""
    from serzoo.zoo.compare import suite

    monkeypatch.setattr(suite, "audit_folds", lambda cfg, folds: folds)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is its own."""
    from serzoo.zoo.core import registry

    for kind in registry._ADDED:
        monkeypatch.setitem(registry._ADDED, kind, {})


@pytest.fixture
def no_group_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group that the test makes in this process ends with it, and so does its port."""
    import torch

    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # so that what was there before comes back
        monkeypatch.delenv(name)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_hf: Callable[..., str]) -> Path:
    """A cache that holds acme/tiny at one commit, under refs/pr/1 too; no server is asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--acme--tiny"
    shutil.copytree(tiny_hf(), repo / "snapshots" / COMMIT)
    ref = repo / "refs" / "refs" / "pr" / "1"
    ref.parent.mkdir(parents=True)
    ref.write_text(COMMIT)
    return repo / "snapshots" / COMMIT
