"""A generated corpus of 250,000 recordings: how long `serzoo prepare` takes, and how much memory.

    python benchmarks/scale.py WORK                          # 250,000 rows, about 1.2 GB in WORK
    python benchmarks/scale.py WORK --rows 25000 --out FILE.json

WORK/corpus gets the recordings and a table with labels in 16 languages. One row in a hundred is
damaged, in five ways. The corpus is prepared, killed half way, and prepared again; both manifests
must have the same bytes. Then the manifest is opened as a run opens it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

RATE, SAMPLES = 8000, 2000  # a quarter of a second: what takes time is the number of files
LANGUAGES = {
    "en": "angry happy neutral sad",
    "de": "wütend froh sachlich traurig",
    "es": "enojado feliz tranquilo triste",
    "fr": "fâché heureux neutre malheureux",
    "it": "arrabbiato felice neutrale infelice",
    "pt": "zangado alegre imparcial desanimado",
    "nl": "boos blij neutraal verdrietig",
    "sv": "arg glad saklig ledsen",
    "pl": "zły wesoły obojętny smutny",
    "ru": "злой весёлый нейтральный грустный",
    "zh": "生气 高兴 中性 悲伤",
    "ja": "怒り 喜び 平静 悲しみ",
    "ko": "화난 행복한 중립 슬픈",
    "tr": "kızgın mutlu nötr üzgün",
    "vi": "giận vui thường buồn",
    "id": "marah senang netral sedih",
}
"""Four classes in 16 languages; those of English are the labels."""

DAMAGES = ("empty", "cut", "silent", "missing", "short")


def header(samples: int) -> bytes:
    """The header of a wave file of 16 bits, mono."""
    size = 2 * samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return (
        b"RIFF" + struct.pack("<I", 36 + size) + b"WAVE" + form + struct.pack("<4sI", b"data", size)
    )


def content(row: int, noise: np.ndarray[Any, Any]) -> bytes | None:
    """The bytes of a recording; None = the file is missing. Every hundredth row is damaged."""
    start = 7 * row % (len(noise) - SAMPLES)
    samples = noise[start : start + SAMPLES].copy()
    samples[:2] = row % 30_000, row // 30_000  # no two recordings are the same
    whole = header(SAMPLES) + samples.tobytes()
    if row % 100 != 99:
        return whole
    damage = DAMAGES[row // 100 % len(DAMAGES)]
    return {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "silent": header(SAMPLES) + bytes(2 * SAMPLES),
        "missing": None,
        "short": header(100) + samples[:100].tobytes(),
    }[damage]


def generate(root: Path, rows: int) -> None:
    """Write the corpus, unless it is there."""
    table = root / "table.csv"
    if table.is_file():
        return
    noise = (3000 * np.random.default_rng(0).normal(size=100_000)).astype("<i2")
    tongues = list(LANGUAGES)
    lines = [("audio", "label", "speaker", "language")]
    for row in range(rows):
        folder = root / f"{row // 1000:03d}"
        if row % 1000 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{row:06d}.wav"
        data = content(row, noise)
        if data is not None:
            path.write_bytes(data)
        tongue = tongues[row % len(tongues)]
        word = LANGUAGES[tongue].split()[row // len(tongues) % 4]
        lines.append((path.relative_to(root).as_posix(), word, f"s{row // 50}", tongue))
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def prepared(root: Path, out: Path, processes: int, stop: float | None = None) -> dict[str, Any]:
    """Run `serzoo prepare` in its own process, and say how long it took and what it needed.

    Args:
        root: the corpus.
        out: the manifest.
        processes: how many decode.
        stop: kill it, and all that it started, when so many bytes were heard; None = let it end.
    """
    english = LANGUAGES["en"].split()
    pairs = [zip(text.split(), english, strict=True) for text in LANGUAGES.values()]
    rename = json.dumps({word: name for pair in pairs for word, name in pair}, ensure_ascii=False)
    code = "import sys; from serzoo.zoo.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "prepare", "csv", f"root={root}", f"out={out}"]
    command += [f"processes={processes}", f"options.rename={rename}"]
    began = time.perf_counter()
    with (out.parent / "log.txt").open("a") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        heard = out.with_suffix(".heard")
        while stop is not None and child.poll() is None:
            if heard.is_file() and heard.stat().st_size >= stop:
                os.killpg(child.pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        _, _, used = os.wait4(child.pid, 0)
    return {
        "seconds": time.perf_counter() - began,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "heard_bytes": heard.stat().st_size if heard.is_file() else 0,
    }


OPEN = """
import resource, sys, time, warnings
warnings.simplefilter("ignore")
from serzoo.datamodules.catalog import open_corpora
from serzoo.datamodules.manifest import read_manifest
def timed(work):
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    return len(found), time.perf_counter() - clock, time.process_time() - processor
rows, *read = timed(lambda: read_manifest(sys.argv[1]))
rows, *first = timed(lambda: open_corpora([], manifest=sys.argv[1]).utterances)
rows, *again = timed(lambda: open_corpora([], manifest=sys.argv[1]).utterances)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(rows, *read, *first, *again, peak)
"""


def measure(work: Path, rows: int, processes: int) -> dict[str, Any]:
    """Generate, prepare, kill, resume and open; return the figures."""
    os.environ["SERZOO_CACHE"] = str(work / "cache")
    corpus, out = work / "corpus", work / "out"
    began = time.perf_counter()
    generate(corpus, rows)
    generated = time.perf_counter() - began
    for folder in ("whole", "killed"):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for path in (out / folder).iterdir():
            path.unlink()
    whole = prepared(corpus, out / "whole" / "m.jsonl", processes)
    half = 75.0 * rows / 2  # bytes of the lines of half of the rows, about
    first = prepared(corpus, out / "killed" / "m.jsonl", processes, stop=half)
    second = prepared(corpus, out / "killed" / "m.jsonl", processes)
    same = all(
        (out / "whole" / name).read_bytes() == (out / "killed" / name).read_bytes()
        for name in ("m.jsonl", "m.json", "m.refused.jsonl")
    )
    told = subprocess.run(
        [sys.executable, "-c", OPEN, str(out / "whole" / "m.jsonl")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    kept, *opened, peak = map(float, told.stdout.split())
    names = [f"{what}_{unit}" for what in ("read_manifest", "open_first", "open_again")
             for unit in ("seconds", "processor_seconds")]  # fmt: skip
    return {
        "rows": rows,
        "processes": processes,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "generate_seconds": generated,
        "prepare_seconds": whole["seconds"],
        "prepare_processor_seconds": whole["processor_seconds"],
        "prepare_peak_mb": whole["peak_mb"],
        "recordings_per_second": rows / whole["seconds"],
        "killed_after_seconds": first["seconds"],
        "killed_heard_bytes": first["heard_bytes"],
        "resumed_seconds": second["seconds"],
        "resumed_processor_seconds": second["processor_seconds"],
        "resumed_peak_mb": second["peak_mb"],
        "same_bytes": same,
        "refused": rows - int(kept),
        **dict(zip(names, opened, strict=True)),
        "open_peak_mb": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path, help="folder for the corpus and the manifests")
    parser.add_argument("--rows", type=int, default=250_000, help="number of recordings")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="FILE.json for the figures")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found = measure(asked.work, asked.rows, asked.processes)
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if asked.out:
        asked.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
