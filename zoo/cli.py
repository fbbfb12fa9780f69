"""The command line: its verbs and their arguments. What they do is in ``verbs.py``.

Nothing heavy is imported before a verb needs it: ``serzoo --help`` does not import torch.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..datamodules.labelling.audit import AUDIT_KNOBS, audit, audit_settings, show
from ..datamodules.labelling.label import (
    KNOBS,
    Told,
    asr_knobs,
    label,
    scorer_knobs,
    settings,
    shown,
    trace,
)
from .compare.imported import Columns, import_predictions
from .core.errors import ConfigError, SerzooError, suggest, system_error
from .core.notices import on_terminal
from .core.registry import Knob
from .core.speakers import ACCEPT, REFUSE, UNKNOWN_SPEAKERS
from .run.config import option_types, parse, words

# ---- What each verb does: read its arguments, call the library's function, print what came out.
#
# Whatever is heavy is imported inside a verb: the command line answers ``--help`` without torch.

LISTS = ("heads", "encoders", "corpora", "taxonomies", "protocols", "recipes", "suites")


def _list(arguments: argparse.Namespace) -> None:
    from .core import registry, shipped
    from .core.taxonomy import Taxonomy

    found = {
        "heads": shipped.names("head"),
        "encoders": shipped.names("encoder"),
        "corpora": registry.names("corpora"),
        "taxonomies": Taxonomy.names(),
        "protocols": shipped.names("protocol"),
        "recipes": shipped.names("recipe"),
        "suites": shipped.names("suite"),
    }
    files: tuple[registry.Kind, ...] = ("heads", "encoders")
    for registered in files:  # what a third party registers needs no file
        have = found[registered]
        have += [n for n in registry.names(registered) if n not in have]
    if arguments.kind:
        print("\n".join(found[arguments.kind]))
        return
    for kind, names in found.items():
        print(f"{kind:11} {', '.join(names)}")


def _config(arguments: argparse.Namespace) -> None:
    import yaml

    from .core import registry
    from .run import config

    cfg = config.load(arguments.recipe, arguments.settings)
    print(yaml.safe_dump(cfg.to_dict(), sort_keys=False, allow_unicode=True), end="")
    taxonomy = config.build_taxonomy(cfg)
    if taxonomy is not None:
        print(f"# classes: {', '.join(taxonomy.classes)} (taxonomy {taxonomy.fingerprint})")
        for line in registry.get("heads", cfg.head["type"]).explain(taxonomy, cfg.head):
            print(f"# {line}")
    print(f"# run {cfg.fingerprint}")


def _prepare(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from .run.config import settings

    types = {
        **dict.fromkeys(("root", "out"), str | None),
        "channel": str | int | None,
        "strict": bool,
    }
    values = settings(arguments.settings, types, [arguments.corpus])
    strict = values.get("strict", False)
    if not isinstance(strict, bool):
        raise ConfigError(f"strict is '{strict}'; have true, false")
    from ..datamodules.catalog import prepare_corpus as prepare

    done, path = prepare(
        arguments.corpus,
        root=values.get("root"),
        out=values.get("out"),
        options=values["options"],
        channel=values.get("channel"),
        strict=strict,
        progress=True,
    )
    console = Console()
    console.print(str(done), highlight=False)
    console.print(f"manifest: {path}", highlight=False, markup=False, soft_wrap=True)
    faults, refused = sum(notice.fault for notice in done.warnings), len(done.refusals)
    why = [
        f"{n} {what}{'s' * (n > 1)}" for n, what in ((faults, "warning"), (refused, "refusal")) if n
    ]
    if not why:
        return 0
    print(
        f"serzoo prepare: exit code 1, because of {' and '.join(why)} (see above); the manifest "
        "holds what can be used",
        file=sys.stderr,
    )
    return 1


def _audit(arguments: argparse.Namespace) -> int:
    from .run.config import settings

    texts = ("protocol", "taxonomy", "root", "label", "unknown_speakers")
    types = dict.fromkeys(texts, str | None)
    values = settings(arguments.settings, types, [arguments.manifest])
    unknown = values.get("unknown_speakers") or REFUSE
    if unknown not in UNKNOWN_SPEAKERS:
        raise ConfigError(f"unknown_speakers is '{unknown}'; have {', '.join(UNKNOWN_SPEAKERS)}")
    from ..datamodules.opening import audit_corpus as audit

    reports = audit(
        arguments.manifest,
        protocol=values.get("protocol"),
        taxonomy=values.get("taxonomy"),
        root=values.get("root"),
        label=values.get("label") or "label",
        options=values["options"],
        unknown_speakers=unknown,
    )
    for fold, report in enumerate(reports):
        print(f"fold {fold}: {report}")
    bad = sum(not r.ok for r in reports)
    unsure = sum(r.ok and bool(r.unsure) for r in reports)
    told = f", {unsure} of which nobody can tell: not every speaker is known" if unsure else ""
    print(f"{len(reports)} folds, {bad} with leakage{told}")
    return 1 if bad or (unsure and unknown != ACCEPT) else 0


def _label(arguments: argparse.Namespace) -> int:
    shard = [] if arguments.shard is None else [f"shard={arguments.shard}"]
    return int(label_stages(arguments.manifest, [*arguments.settings, *shard]))


def _doctor(arguments: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from .doctor import as_dict, doctor, show, summary
    from .run import config

    cfg = config.load(arguments.recipe, arguments.settings)
    with Console(stderr=True).status("") as status:  # nothing where it is no terminal
        findings = doctor(cfg, told=lambda name: status.update(name))
    if arguments.json:
        print(json.dumps(as_dict(cfg, findings), indent=1))
    else:
        show(cfg, findings, Console())
    return 1 if summary(findings)["error"] else 0


def _train(arguments: argparse.Namespace) -> None:
    from .run import config
    from .run.record import trained
    from .run.train import run_folder, train

    cfg = config.load(arguments.recipe, arguments.settings)
    entry = train(cfg)
    if "selection" not in entry:  # a rank other than the first
        return
    print("\n".join(trained(cfg, entry, run_folder(cfg))))


def _eval(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from .core.files import check_place
    from .run.config import corpora_of, settings
    from .run.record import evaluated
    from .run.score import evaluate

    texts = (
        *("root", "manifest", "taxonomy", "part", "out", "record"),
        *("condition", "noise", "rir", "unknown_speakers"),
    )
    types = {"corpus": str | list[str] | None, **dict.fromkeys(texts, str | None)}
    values = settings(arguments.settings, types, corpora_of(arguments.settings, "corpus"))
    out, record = values.pop("out", None), values.pop("record", None)
    for file in filter(None, (out, record)):
        check_place(Path(file))
    if isinstance(values.get("corpus"), str):
        values["corpus"] = [values["corpus"]]
    table, numbers = evaluate(arguments.checkpoint, **values, progress=sys.stderr.isatty())
    print("\n".join(evaluated(table, numbers)))
    if out:
        print(f"predictions: {table.write_jsonl(Path(out))}")
    if record:
        from .core.files import write_json
        from .run.record import environment

        write_json(Path(record), {**numbers, **environment()})
        print(f"record: {record}")


def _adapt(arguments: argparse.Namespace) -> None:
    from .run.adapt import adapt, told
    from .run.config import corpora_of, settings
    from .run.tuning import option_types

    texts = (
        *("root", "protocol", "taxonomy", "label", "support", "supports", "out"),
        "unknown_speakers",
    )
    types = {"data": str | list[str], "fold": int, **dict.fromkeys(texts, str | None)}
    types |= option_types()
    values = settings(arguments.settings, types, corpora_of(arguments.settings, "data"))
    if not values.get("data"):
        raise ConfigError("say what to adapt to: data=CORPUS, or data=FILE.jsonl")
    print("\n".join(told(adapt(arguments.checkpoint, **values, progress=sys.stderr.isatty()))))


def _probe(arguments: argparse.Namespace) -> None:
    from .run.config import corpora_of, settings
    from .run.probing import probe_model, told

    texts = ("root", "protocol", "rate_from", "out")
    types = {"data": str | list[str] | None, "fold": int | None}
    types |= dict.fromkeys(texts, str | None)
    own = [s for s in arguments.settings if s.startswith((*(f"{k}=" for k in types), "options."))]
    recipe = [s for s in arguments.settings if s not in own]
    values = settings(own, types, corpora_of(own, "data"))
    entry = probe_model(
        arguments.model,
        recipe,
        against=arguments.against,
        **values,
        progress=sys.stderr.isatty(),
    )
    print(f"{told(entry)}\nrecord: {entry['folder']}")


def _predict(arguments: argparse.Namespace) -> int:
    from .core.notices import quiet
    from .run.predict import predict_files

    quiet()
    options = ("out", "window", "hop", "voice", "channel", "batch_seconds", "plot")
    return predict_files(
        arguments.model, arguments.files, **{key: getattr(arguments, key) for key in options}
    )


def _import(arguments: argparse.Namespace) -> int:
    pass

    return import_rows(arguments.settings, out=arguments.out, dry_run=arguments.dry_run)


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.suite == "import":
        return _import(arguments)
    from .compare.compare import compare

    done = compare(
        arguments.suite,
        arguments.settings,
        out=arguments.out,
        workers=arguments.workers,
        limit=arguments.limit,
        dry_run=arguments.dry_run,
    )
    return 1 if done["failed"] else 0


def _report(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from .report.report import report

    folder = Path(arguments.out) / Path(arguments.suite).stem
    report(folder, audio=arguments.audio, attributes=arguments.attributes)


def _tensorboard(arguments: argparse.Namespace) -> None:
    from .run.board import serve

    serve(arguments.what, out=arguments.out, host=arguments.host, port=arguments.port)


def _save(arguments: argparse.Namespace) -> None:
    from .core.notices import quiet
    from .run.save import save_pretrained

    quiet()
    folder = save_pretrained(
        arguments.run, arguments.folder, licence=arguments.licence, overwrite=arguments.overwrite
    )
    print(f"saved: {folder} (its README.md is the model card; read it before you share it)")


def _push(arguments: argparse.Namespace) -> None:
    from .core.notices import quiet
    from .run.save import push_to_hub

    quiet()
    print(
        push_to_hub(
            arguments.run,
            arguments.repo_id,
            private=not arguments.public,
            licence=arguments.licence,
        )
    )


def _export(arguments: argparse.Namespace) -> None:
    from .core.notices import quiet
    from .run.model import load
    from .run.onnx import LIMIT, export, parity

    quiet()
    module = load(arguments.run).module
    path = export(module, arguments.file)
    print(f"exported: {path}")
    largest = parity(module, path)
    print(f"largest difference of scores from the original: {largest:.2g} (limit {LIMIT:g})")


def _cache(arguments: argparse.Namespace) -> None:
    from .run import cache

    if arguments.action == "list":
        print(cache.table(cache.cache_list()))
        return
    if arguments.store is None:
        raise ConfigError("say what to clear: a store's name (see `serzoo cache list`), or all")
    number, freed = cache.cache_clear(arguments.store)
    print(f"removed {number} feature stores: {cache.size(freed)} freed")


VERBS: dict[str, Any] = {
    "list": _list,
    "config": _config,
    "prepare": _prepare,
    "audit": _audit,
    "label": _label,
    "doctor": _doctor,
    "train": _train,
    "eval": _eval,
    "adapt": _adapt,
    "probe": _probe,
    "predict": _predict,
    "compare": _compare,
    "report": _report,
    "tensorboard": _tensorboard,
    "save": _save,
    "push": _push,
    "export": _export,
    "cache": _cache,
}


# ---- ``serzoo label`` on the command line: what was typed to what is done, and its words.

LINE_EVERY = 30.0  # seconds between lines of progress where there is no terminal


def label_stages(first: str, rest: Sequence[str]) -> int:
    """What ``serzoo label FIRST REST...`` does; the exit code."""
    return COMMANDS[first](rest) if first in COMMANDS else _label_source(first, rest)


def _label_source(source: str, words: Sequence[str]) -> int:
    keywords = settings(_label_values(words, KNOBS, source))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    terminal = console.is_terminal
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not terminal
    ) as bar:
        done = label(source, **keywords, told=_label_bar(bar) if terminal else _label_lines())
    if os.environ.get("RANK", "0") == "0":  # all ranks found the same
        print("\n".join(done.lines))
    return 0


def _label_trace(words: Sequence[str]) -> int:
    if len(words) != 2:
        raise ConfigError("say `serzoo label trace OUT ID`, with OUT the folder of the labels")
    print("\n".join(shown(trace(*words))))
    return 0


def _label_audit(words: Sequence[str]) -> int:
    if not words or "=" in words[0]:
        raise ConfigError(
            "say `serzoo label audit OUT [human=MANIFEST]`, with OUT the folder of the labels, a "
            "manifest or a corpus"
        )
    done = audit(words[0], **audit_settings(_label_values(words[1:], AUDIT_KNOBS, words[0])))
    console = Console()
    show(done.record, console if console.is_terminal else Console(width=150))
    for path in done.written:
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
    return 0 if done.ok else 1


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"audit": _label_audit, "trace": _label_trace}
"""First word to what it does, where it is not a manifest or a corpus."""


def _label_values(words: Sequence[str], knobs: Mapping[str, Knob], source: str) -> dict[str, Any]:
    """Settings as typed, where a folder or a name is meant; see :func:`.config.parse`."""
    scorer = dict(parse(words)).get("scorer", "nli")
    known = {**knobs}
    known |= {f"asr.{k}": v for k, v in asr_knobs().items()}
    known |= {f"scorer.{k}": v for k, v in scorer_knobs(str(scorer)).items()}
    types = {name: knob.annotation for name, knob in known.items()}
    return dict(parse(words, {**types, **option_types([source])}))


def _label_bar(bar: Progress) -> Told:
    tasks = {}

    def told(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=total)
        bar.update(tasks[name], completed=done)

    return told


def _label_lines() -> Told:
    last = time.monotonic()

    def told(name: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > LINE_EVERY:
            last = time.monotonic()
            print(f"{name}: {done} of {total}", file=sys.stderr, flush=True)

    return told


# ---- `serzoo compare import SUITE FILE name=NAME`: its settings, and what it prints.

IMPORT_COLUMNS = {
    "id": "id",
    "label": "label",
    "fold_column": "fold",
    "prefix": "prefix",
    "id_prefix": "id_prefix",
}
IMPORT_OWN = ("recipe", "encoder", "fold", "seed", "scores", "toolkit", "selection", "fit_seconds")
NUMBERS: dict[str, tuple[type, ...]] = {
    "fold": (int,),
    "seed": (int,),
    "fit_seconds": (int, float),
}
TYPES: dict[str, Any] = {"overwrite": bool, "fold": int, "seed": int, "fit_seconds": float}


def import_rows(arguments: Sequence[str], *, out: str = "runs", dry_run: bool = False) -> int:
    """Check, write, tabulate.

    Args:
        arguments: suite, file, and settings: ``name``; those of
            :func:`.exchange.import_predictions`; ``id``, ``label``, ``prefix`` (of columns of
            scores), ``fold_column``, ``id_prefix``; ``class.THEIRS=OURS``; ``where.KEY=VALUE``.
        out: folder of all runs.
        dry_run: only check.

    Raises:
        ConfigError: naming what is missing or unknown.
    """
    from .report.report import report

    suite, file, given = import_settings(arguments)
    done = import_predictions(suite, file, **given, out=out, dry_run=dry_run)
    print(
        f"{Path(file).name}: UAR {done.uar:.3f} on {done.utterances} utterances; "
        f"{len(done.cells)} cells {'would be written' if dry_run else 'written'} in {done.folder}"
    )
    for note in done.notes:
        print(f"  {note}")
    if not dry_run:
        report(done.folder)
    return 0


def import_settings(arguments: Sequence[str]) -> tuple[str, str, dict[str, Any]]:
    """Suite, file, and keywords of :func:`.exchange.import_predictions`."""
    plain = [a for a in arguments if "=" not in a or Path(a).is_file()]
    if len(plain) != 2:
        raise ConfigError(
            f"want `serzoo compare import SUITE FILE name=NAME`, found {len(plain)} of SUITE and "
            f"FILE ({', '.join(plain) or 'none'})"
        )
    values: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    rename: dict[str, str] = {}
    where: dict[str, str] = {}
    for item in arguments:
        if item in plain:
            continue
        ((key, typed),) = words([item])
        ((_, value),) = parse([item], {key: TYPES.get(key, str)})
        text = str(value or "")  # of what is neither flag nor number
        if key.startswith("class."):
            rename[key.removeprefix("class.")] = text
        elif key.startswith("where."):
            where[key.removeprefix("where.")] = text
        elif key in IMPORT_COLUMNS:
            columns[IMPORT_COLUMNS[key]] = text
        elif key == "overwrite":
            if not isinstance(value, bool):
                raise ConfigError(f"overwrite is '{typed}'; have true, false")
            values[key] = value
        elif key in NUMBERS:
            if not isinstance(value, NUMBERS[key]) or isinstance(value, bool):
                raise ConfigError(f"{key} is '{typed}'; give a number")
            values[key] = value
        elif key in ("name", *IMPORT_OWN):
            values[key] = text
        else:
            known = ("name", *IMPORT_OWN, *IMPORT_COLUMNS, "overwrite", "class.THEIRS", "where.KEY")
            raise ConfigError(f"unknown setting '{key}'{suggest(key, known)}")
    if "name" not in values:
        raise ConfigError("what shall the row be called? add name=NAME")
    values |= {"where": where} if where else {}
    return plain[0], plain[1], {**values, "columns": Columns(**columns, rename=rename)}


# ----


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
