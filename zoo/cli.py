"""The command line: its verbs and their arguments. What they do is in ``verbs.py``.

Nothing heavy is imported before a verb needs it: ``serzoo --help`` does not import torch.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .errors import SerzooError, system_error
from .notices import on_terminal
from .verbs import LISTS, VERBS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="serzoo",
        description="Speech emotion recognition, posed in different ways and compared fairly.",
        epilog="Settings are written key=value: serzoo train ravdess head=selm optim.lr=1e-3",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(
        name: str, text: str, *positional: tuple[str, str], settings: bool = True
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        for key, what in positional:
            sub.add_argument(key, help=what)
        if settings:
            sub.add_argument("settings", nargs="*", metavar="key=value", help="settings")
        return sub

    sub = verb("list", "what there is: " + ", ".join(LISTS), settings=False)
    sub.add_argument("kind", nargs="?", choices=LISTS, help="one kind only")
    recipe = ("recipe", "a shipped recipe (see `serzoo list recipes`) or a YAML file")
    verb("config", "compose a run and print it; loads no weights and no data", recipe)
    verb(
        "prepare",
        "a corpus as its publisher ships it to a manifest "
        "(root=FOLDER out=FILE.jsonl [channel=mean|first|N] [strict=true])",
        ("corpus", "a corpus' name"),
    )
    verb(
        "audit",
        "speaker, sentence and identical-audio leakage of a protocol "
        "([protocol=NAME] [taxonomy=NAME] [unknown_speakers=accept])",
        ("manifest", "a prepared manifest, or a corpus' name"),
    )
    sub = verb(
        "label",
        "weak labels from what is said: transcribe, entail, select (taxonomy=NAME out=FOLDER "
        "[asr=MODEL] [scorer=nli|embedding|causal|lexicon] [scorer.model=MODEL] [threshold=0.5] "
        "...); `label trace OUT ID` says where a label comes from, `label audit OUT "
        "human=MANIFEST` whether they are right, and whether words can tell",
        ("manifest", "a prepared manifest, or a corpus' name"),
    )
    sub.add_argument("--shard", help="K/N: only the K-th of N parts (default: all, or this rank's)")
    sub = verb("doctor", "build a run, take one step of it, and say what is wrong with it", recipe)
    sub.add_argument("--json", action="store_true", help="findings as JSON")
    verb("train", "fit, select on validation, test once, write a record", recipe)
    verb(
        "eval",
        "score a trained model (corpus=NAME root=FOLDER manifest=FILE taxonomy=NAME "
        "part=test|valid|all condition=noise:10dB out=FILE)",
        ("checkpoint", "a run's folder, or a .ckpt file"),
    )
    verb(
        "adapt",
        "a trained model to other speech, by a few utterances of each class (data=CORPUS shots=4 "
        "[tuning=lora|head|full|scratch] [draw=1] [steps=60] [protocol=NAME fold=0 taxonomy=NAME])",
        ("checkpoint", "a run's folder, a .ckpt file, or a saved folder"),
    )
    sub = verb(
        "probe",
        "does a representation model prosody: F0, level and rate from frozen frames, by linear "
        "probes (data=CORPUS [protocol=NAME] [fold=K] [rate_from=auto|text|audio] [out=FOLDER])",
        ("model", "a run's folder, a .ckpt file, a saved folder; or a recipe, with its settings"),
    )
    sub.add_argument(
        "--against", default="untrained",
        help="untrained (the same encoder, default), none, or another model",
    )  # fmt: skip
    sub = verb(
        "predict",
        "label and probabilities of recordings, or a timeline of long ones",
        ("model", "a run's folder, a .ckpt file, a saved model's folder or its hub id"),
        settings=False,
    )
    sub.add_argument(
        "files", nargs="+", help="files, folders (with all below), patterns such as 'calls/*.wav'"
    )
    sub.add_argument("--out", help="FILE.csv or FILE.jsonl (default: CSV on standard output)")
    sub.add_argument(
        "--window", type=float, help="seconds; longer recordings are cut (default: as in training)"
    )
    sub.add_argument("--hop", type=float, help="seconds between windows (default: half a window)")
    sub.add_argument(
        "--voice", default="none", help="none, energy, silero: windows cover speech only"
    )
    sub.add_argument(
        "--channel", default="mean", help="mean of all (default), first, or a number from 1"
    )
    sub.add_argument("--plot", help="FILE.png, or a folder: probabilities over time")
    sub.add_argument(
        "--batch-seconds", type=float, default=160.0, help="padded audio in a batch (default: 160)"
    )
    suite = ("suite", "a shipped suite (see `serzoo list suites`) or a YAML file")
    sub = verb(
        "compare",
        "run every cell of a suite that is not finished, then tabulate (`compare import SUITE FILE "
        "name=NAME`: another toolkit's predictions as a row)",
        suite,
    )
    sub.add_argument(
        "--dry-run", action="store_true", help="only list the cells, with estimated time and memory"
    )
    sub.add_argument(
        "--limit", type=float, help="minutes that a cell may take (default: the suite's, or none)"
    )
    sub.add_argument(
        "--workers", type=int, help="processes (default: one per GPU, or per CPU core)"
    )
    sub.add_argument("--out", default="runs", help="folder of all runs (default: runs)")
    sub = verb("report", "tabulate what a suite has so far", suite, settings=False)
    sub.add_argument("--out", default="runs", help="folder of all runs (default: runs)")
    sub.add_argument(
        "--audio", action="store_true",
        help="players beside the most confident errors, within report.html",
    )  # fmt: skip
    sub.add_argument(
        "--attributes", action="store_true",
        help="gender, language and duration from the corpora, for cells that hold none",
    )  # fmt: skip
    sub = verb(
        "tensorboard", "start TensorBoard on a suite's cells, or on any folder of runs",
        ("what", "a suite that was run, or a folder"), settings=False,
    )  # fmt: skip
    sub.add_argument("--out", default="runs", help="folder of all runs (default: runs)")
    sub.add_argument("--port", type=int, default=6006, help="default: 6006; 0 = any that is free")
    sub.add_argument("--host", default="localhost", help="address to serve on (default: localhost)")
    trained = ("run", "a run's folder, a .ckpt file, or a saved folder")
    sub = verb(
        "save", "a trained model as a folder to share", trained, ("folder", "where to"),
        settings=False,
    )  # fmt: skip
    sub.add_argument("--overwrite", action="store_true", help="also where something else lies")
    sub.add_argument("--licence", help="of the trained weights, such as cc-by-nc-sa-4.0")
    repo = ("repo_id", "USER/NAME, made where there is none")
    sub = verb(
        "push", "upload a trained model to the Hugging Face hub", trained, repo, settings=False
    )
    sub.add_argument("--public", action="store_true", help="for all to see (default: private)")
    sub.add_argument("--licence", help="of the trained weights, such as cc-by-nc-sa-4.0")
    sub = verb(
        "export", "a trained model as ONNX, compared with the original", trained,
        ("file", "FILE.onnx"), settings=False,
    )  # fmt: skip
    sub = verb("cache", "list or clear stored features of frozen encoders", settings=False)
    sub.add_argument("action", choices=("list", "clear"), help="what to do")
    sub.add_argument("store", nargs="?", help="to clear: a store's name or its beginning, or all")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        0 when it did what was asked; 1 when it ran and found fault (a failed audit, failed cells,
        refused counts); 2 when it could not run; 130 when it was interrupted.
    """
    command = parser()
    # settings and files may stand after options too, which argparse alone does not allow
    arguments, rest = command.parse_known_args(argv)
    many = next((key for key in ("settings", "files") if hasattr(arguments, key)), None)
    if rest and (many is None or any(r.startswith("-") for r in rest)):
        command.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and many:
        setattr(arguments, many, [*getattr(arguments, many), *rest])
    if argv is None:  # this process is ours
        threading.excepthook = _told_elsewhere(threading.excepthook)
    try:
        with on_terminal():
            code = VERBS[arguments.verb](arguments)
        sys.stdout.flush()  # here, where a full disk can still be told
    except KeyboardInterrupt as e:
        _tell("interrupted", e)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return 141
    except Exception as e:
        said = str(e) if isinstance(e, SerzooError) else system_error(e)
        if said is None:
            raise
        # one line, also with a name that has several, and with what a library says at length
        _tell(f"serzoo {arguments.verb}: {' '.join(said.splitlines())}", e)
        return 2
    return int(code or 0)


def _told_elsewhere(others: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For threads: TensorBoard writes in one, and hands what it meets on to who writes next."""
    return lambda seen: None if system_error(seen.exc_value) else others(seen)


def _tell(line: str, error: BaseException) -> None:
    """An error and its notes, on standard error; what cannot be written any more is dropped."""
    with contextlib.suppress(OSError):
        print("\n".join([line, *getattr(error, "__notes__", ())]), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try once more when it ends, and end with another code
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
