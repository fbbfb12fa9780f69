"""The command line: one function for each verb, whose signature and docstring are its ``--help``.

A verb reads what was typed, calls the library and prints the result. A verb imports heavy modules
itself, so that ``serzoo --help`` answers without torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from .core.errors import ConfigError, SerzooError, counted, system_error
from .core.notices import on_terminal

app = App(
    name="serzoo",
    help="Speech emotion recognition, posed in different ways and compared fairly.\n\n"
    "Settings are written key=value: serzoo train ravdess head=selm optim.lr=1e-3\n"
    "`serzoo VERB --help` explains a verb and shows an example.\n"
    "--part FILE.py:NAME gives a model its head, encoder or corpus of your own.",
    help_format="plaintext",
    version_flags=(),
    default_parameter=Parameter(negative=(), show_default=lambda value: value or None),
)

Kind = Literal["heads", "encoders", "corpora", "taxonomies", "protocols", "recipes", "suites"]
LISTS: tuple[Kind, ...] = get_args(Kind)
Settings = Annotated[str, Parameter(name="key=value")]
Recipe = Annotated[str, Parameter(help="a shipped recipe (see `serzoo list recipes`) or YAML file")]
Suite = Annotated[str, Parameter(help="a shipped suite (see `serzoo list suites`) or YAML file")]
Speech = Annotated[str, Parameter(help="a prepared manifest (.jsonl), or a corpus' name")]
Run = Annotated[str, Parameter(help="a run's folder, a .ckpt file, or a saved folder")]
Out = Annotated[str, Parameter(help="folder of all runs")]
Licence = Annotated[str | None, Parameter(help="licence of the weights, such as cc-by-nc-sa-4.0")]


@app.command
def list_(kind: Kind | None = None, /) -> None:
    """Show the names of heads, encoders, corpora, taxonomies, protocols, recipes and suites.

    Example: serzoo list recipes

    Args:
        kind: show one kind only, one name a line.
    """
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
    registered_kinds: tuple[registry.Kind, ...] = ("heads", "encoders")
    for registered in registered_kinds:  # a third party's part needs no file in configs/
        have = found[registered]
        have += [n for n in registry.names(registered) if n not in have]
    if kind:
        print("\n".join(found[kind]))
        return
    for each, names in found.items():
        print(f"{each:11} {', '.join(names)}")


@app.command
def config(recipe: Recipe, /, *settings: Settings) -> None:
    """Compose a run and print it. No weights and no data are loaded.

    Example: serzoo config ravdess head=selm optim.lr=1e-3

    Args:
        settings: any key that is printed, or a group (encoder, head, optim) with a name.
    """
    import yaml

    from .core import registry
    from .run.config import build_taxonomy, load

    cfg = load(recipe, settings)
    print(yaml.safe_dump(cfg.to_dict(), sort_keys=False, allow_unicode=True), end="")
    taxonomy = build_taxonomy(cfg)
    if taxonomy is not None:
        print(f"# classes: {', '.join(taxonomy.classes)} (taxonomy {taxonomy.fingerprint})")
        for line in registry.get("heads", cfg.head["type"]).explain(taxonomy, cfg.head):
            print(f"# {line}")
    print(f"# run {cfg.fingerprint}")


@app.command
def prepare(corpus: str, /, *settings: Settings) -> int:
    """Listen to every file of a corpus, and write a manifest of what can be used.

    Bad audio is refused and listed. The published counts are checked.

    Example: serzoo prepare ravdess root=~/ravdess out=ravdess.jsonl

    Args:
        corpus: a corpus' name (see `serzoo list corpora`).
        settings: root=FOLDER, out=FILE.jsonl, channel=mean|first|N,
            strict=true, and options.KEY of the corpus' reader.
    """
    from rich.console import Console

    from ..datamodules.catalog import prepare_corpus
    from .run import config

    corpus = _corpus(corpus)
    given = config.settings(settings, config.types_of(prepare_corpus), [corpus])
    done, path = prepare_corpus(corpus, **given, progress=True)
    console = Console()
    console.print(str(done), highlight=False)
    console.print(f"manifest: {path}", highlight=False, markup=False, soft_wrap=True)
    if not (why := done.faults()):
        return 0
    print(
        f"serzoo prepare: exit code 1, because of {why} (see above); the manifest holds everything "
        "that can be used",
        file=sys.stderr,
    )
    return 1


@app.command
def audit(manifest: Speech, /, *settings: Settings) -> int:
    """Look for speakers, sentences and recordings that the parts of a protocol share.

    Example: serzoo audit ravdess.jsonl protocol=kfold-3

    Args:
        settings: protocol=NAME, taxonomy=NAME, root=FOLDER, label=COLUMN,
            unknown_speakers=accept, and options.KEY of the corpus' reader.
    """
    from ..datamodules import audit as audits
    from ..datamodules.opening import audit_corpus
    from .run import config

    manifest = _corpus(manifest)
    given = config.settings(settings, config.types_of(audit_corpus), [manifest])
    reports = audit_corpus(manifest, **given)
    print("\n".join(audits.lines(reports)))
    return 0 if audits.passed(reports, given.get("unknown_speakers")) else 1


label_app = App(name="label", version_flags=())
app.command(label_app)


@label_app.default
def label(manifest: Speech, /, *settings: Settings, shard: str | None = None) -> None:
    """Label speech from its words: transcribe, entail, select.

    Example: serzoo label talk.jsonl taxonomy=big4 out=labels scorer=lexicon

    Args:
        settings: taxonomy=NAME, out=FOLDER, asr=MODEL,
            scorer=nli|embedding|causal|lexicon, scorer.model=MODEL,
            threshold=0.5 and others.
        shard: K/N computes only the K-th of N parts. By default this process computes all of
            them, or those of its rank.
    """
    from ..datamodules.labelling import label as labelling

    manifest = _corpus(manifest)
    typed = [*settings, *([] if shard is None else [f"shard={shard}"])]
    given = labelling.settings(_label_values(typed, labelling.KNOBS, manifest))
    with labelling.progress() as report:
        done = labelling.label(manifest, **given, report=report)
    if os.environ.get("RANK", "0") == "0":  # all ranks found the same
        print("\n".join(done.lines))


@label_app.command(name="trace")
def label_trace(out: str, id: str, /) -> None:
    """Show where a label comes from: audio, transcript, scores and criteria.

    Example: serzoo label trace labels synthetic_talk/tf01-001

    Args:
        out: the folder that `serzoo label` wrote.
        id: id of an utterance.
    """
    from ..datamodules.labelling import label as labelling

    print("\n".join(labelling.shown(labelling.trace(out, id))))


@label_app.command(name="audit")
def label_audit(out: str, /, *settings: Settings) -> int:
    """Measure whether labels from words are right, and whether a corpus' words carry emotion.

    Example: serzoo label audit labels human=people.jsonl

    Args:
        out: the folder that `serzoo label` wrote, a manifest, or a corpus' name.
        settings: human=MANIFEST, protocol=NAME, draws=N, scorer=NAME,
            out=FOLDER and others.
    """
    from ..datamodules.labelling import audit as audits
    from .core.table import wide_console

    if "=" in out and not Path(out).exists():
        raise ConfigError(
            f"'{out}' is a setting, and the first word is missing: write `serzoo label audit OUT "
            "[human=MANIFEST]`; OUT is the folder of the labels, a manifest or a corpus"
        )
    given = audits.audit_settings(_label_values(settings, audits.AUDIT_KNOBS, out))
    done = audits.audit(out, **given)
    console = wide_console()
    audits.show(done.record, console)
    for path in done.written:
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
    return 0 if done.ok else 1


def _label_values(typed: Sequence[str], knobs: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the settings of `serzoo label` by key, each read as its type says.

    Args:
        typed: the settings as they were typed.
        knobs: the verb's own keys.
        source: the manifest or corpus, whose reader has ``options.KEY``.
    """
    from ..datamodules.labelling.label import asr_knobs, scorer_knobs
    from .run import config

    scorer = str(dict(config.parse(typed)).get("scorer", "nli"))
    known = {**knobs, **{f"asr.{k}": v for k, v in asr_knobs().items()}}
    known |= {f"scorer.{k}": v for k, v in scorer_knobs(scorer).items()}
    types = {name: knob.annotation for name, knob in known.items()}
    return dict(config.parse(typed, {**types, **config.option_types([source])}))


@app.command(name="lock")
def lock_(*names: str, all: bool = False, file: str | None = None) -> int:
    """Keep the commits of published models in a lock file, so that they are loaded again.

    Without names, it shows what is locked.

    Example: serzoo lock whisper-base wavlm-base-plus

    Args:
        names: encoders and heads (see `serzoo list`), asr, hub ids, OWNER/NAME@REVISION, folders.
        all: lock the models of all shipped encoders and heads.
        file: the lock file; by default serzoo.lock here if there is one, else that of the cache.
    """
    from .core import lock
    from .run import locking

    if not names and not all:
        locking.show_held(Path(file).expanduser() if file else lock.lock_file())
        return 0
    results, target = locking.lock_models(names, everything=all, file=file)
    locking.show(results, target)
    return 1 if any(r.entry is None for r in results) else 0


@app.command
def doctor(recipe: Recipe, /, *settings: Settings, json: bool = False) -> int:
    """Build a run, take one step of it, and say what is wrong with it.

    Example: serzoo doctor ravdess head=selm

    Args:
        settings: settings of the run; `serzoo config` prints them all.
        json: print the findings as JSON.
    """
    from json import dumps

    from rich.console import Console

    from . import doctor
    from .run.config import load

    cfg = load(recipe, settings)
    with Console(stderr=True).status("") as status:  # it shows only on a terminal
        findings = doctor.doctor(cfg, report=lambda name: status.update(name))
    if json:
        print(dumps(doctor.as_dict(cfg, findings), indent=1))
    else:
        doctor.show(cfg, findings, Console())
    return 1 if doctor.summary(findings)["error"] else 0


@app.command
def train(recipe: Recipe, /, *settings: Settings) -> None:
    """Train a model, select it on validation speakers, test it once, and write a record.

    If it was killed, the same command goes on from the last whole epoch.

    Example: serzoo train ravdess head=selm optim.lr=1e-3

    Args:
        settings: settings of the run; `serzoo config` prints them all.
    """
    from .run import train
    from .run.config import load
    from .run.record import trained_lines

    cfg = load(recipe, settings)
    entry = train.train(cfg)
    if entry.selection:  # this is the first rank
        print("\n".join(trained_lines(cfg, entry, train.run_folder(cfg))))


@app.command
def eval_(checkpoint: Run, /, *settings: Settings) -> None:
    """Score a trained model on its test speakers, on other speech, or on corrupted audio.

    Example: serzoo eval runs/ravdess/selm-0877ec condition=white:10dB

    Args:
        settings: corpus=NAME, root=FOLDER, manifest=FILE, taxonomy=NAME,
            part=test|valid|all, condition=noise:10dB, noise=FOLDER,
            rir=FOLDER, unknown_speakers=accept, out=FILE.jsonl,
            prior=CLASS:WEIGHT,..., record=FILE.json, and options.KEY of the corpus' reader.
    """
    from .core.files import check_place, write_json
    from .run import config
    from .run.record import evaluated_lines
    from .run.score import evaluate

    types = {**config.types_of(evaluate), "out": str | None, "record": str | None}
    given = config.settings(settings, types, config.corpora_of(settings, "corpus"))
    out, kept = given.pop("out", None), given.pop("record", None)
    for file in filter(None, (out, kept)):
        check_place(Path(file))
    given |= {"corpus": _corpora(given["corpus"])} if given.get("corpus") else {}
    table, record = evaluate(checkpoint, **given, progress=sys.stderr.isatty())
    print("\n".join(evaluated_lines(table, record)))
    if out:
        print(f"predictions: {table.write_jsonl(Path(out))}")
    if kept:
        write_json(Path(kept), record.to_json())
        print(f"record: {kept}")


@app.command
def adapt(checkpoint: Run, /, *settings: Settings) -> None:
    """Adapt a trained model to other speech, with a few utterances of each class.

    Example: serzoo adapt runs/ravdess/selm-0877ec data=voices.jsonl shots=4

    Args:
        settings: data=CORPUS or data=FILE.jsonl, shots=4,
            tuning=lora|head|full|scratch, draw=1, steps=60,
            protocol=NAME, fold=0, taxonomy=NAME, root=FOLDER, out=FOLDER
            and others.
    """
    from .run import adapt, config, tuning

    types = config.types_of(adapt.adapt) | tuning.option_types()
    given = config.settings(settings, types, config.corpora_of(settings, "data"))
    if not given.get("data"):
        raise ConfigError("no speech to adapt to; add data=CORPUS, or data=FILE.jsonl")
    given["data"] = _corpora(given["data"])
    entry = adapt.adapt(checkpoint, **given, progress=sys.stderr.isatty())
    print("\n".join(adapt.adapted_lines(entry)))


@app.command
def probe(model: str, /, *settings: Settings, against: str = "untrained") -> None:
    """Measure whether a representation holds prosody: F0, level and rate, by linear probes.

    Example: serzoo probe runs/ravdess/selm-0877ec data=voices.jsonl

    Args:
        model: a run's folder, a .ckpt file, a saved folder; or a recipe, with its settings.
        settings: data=CORPUS, protocol=NAME, fold=K, root=FOLDER,
            rate_from=auto|text|audio, out=FOLDER, and the keys of the recipe.
        against: untrained (the same encoder before training), none, or another model.
    """
    from .run import config, probing

    types = config.types_of(probing.probe_model)
    own = [s for s in settings if s.partition("=")[0] in types or s.startswith("options.")]
    given = config.settings(own, types, config.corpora_of(own, "data"))
    given |= {"data": _corpora(given["data"])} if given.get("data") else {}
    rest = [s for s in settings if s not in own]
    shown = sys.stderr.isatty()
    entry = probing.probe_model(model, rest, against=against, **given, progress=shown)
    probing.show(entry)
    print(f"record: {entry.folder}")


@app.command
def distil(configuration: Annotated[str, Parameter(name="config")], /, *settings: Settings) -> None:
    """Train a small encoder of your own: a student that imitates a teacher on your speech.

    If it was killed, the same command goes on from the last whole epoch.

    Example: serzoo distil serzoo-small data=[speech] out=student

    Args:
        configuration: serzoo-small, or a YAML file; configs/distil lists its keys.
        settings: data=[FOLDER,FOLDER], out=FOLDER, teacher.encoder=NAME,
            epochs=N and others.
    """
    from .run import distil

    cfg = distil.load(configuration, settings)
    print("\n".join(distil.lines(cfg, distil.distil(cfg))))


@app.command
def predict(
    model: str,
    file: str,
    /,
    *files: str,
    out: str | None = None,
    window: float | None = None,
    hop: float | None = None,
    voice: str = "none",
    channel: str = "mean",
    plot: str | None = None,
    batch_seconds: float = 160.0,
) -> int:
    """Label recordings, with probabilities, or write a timeline of long ones.

    Example: serzoo predict my-model calls/*.wav --out calls.csv

    Args:
        model: a run's folder, a .ckpt file, a saved model's folder or its hub id.
        file: a recording, a folder (and all below it), or a quoted pattern: 'calls/*.wav'.
        files: more of these.
        out: FILE.csv or FILE.jsonl; CSV on standard output by default.
        window: seconds; longer recordings are cut into windows. The default is as in training.
        hop: seconds from one window to the next; half a window by default.
        voice: none, energy or silero, which finds speech; windows then cover speech only.
        channel: mean of all channels, first, or a number from 1.
        plot: FILE.png, or a folder, for pictures of the probabilities over time.
        batch_seconds: most seconds of padded audio in a batch.
    """
    from .core.notices import quiet
    from .run.predict import predict_files

    quiet()
    return predict_files(
        model, [file, *files], out=out, window=window, hop=hop, voice=voice, channel=channel,
        plot=plot, batch_seconds=batch_seconds,
    )  # fmt: skip


compare_app = App(name="compare", version_flags=())
app.command(compare_app)


@compare_app.default
def compare(
    suite: Suite,
    /,
    *settings: Settings,
    dry_run: bool = False,
    limit: float | None = None,
    workers: int | None = None,
    out: Out = "runs",
) -> int:
    """Run every cell of a suite that is not finished, then write the tables.

    Example: serzoo compare quickstart --workers 1

    Args:
        settings: settings of all cells; a list replaces an axis.
        dry_run: only list the cells, with estimated time and memory.
        limit: minutes that a cell may take; by default the suite's limit, if it has one.
        workers: processes; one per GPU, or per CPU core, by default.
    """
    from .compare.compare import compare

    done = compare(suite, settings, out=out, workers=workers, limit=limit, dry_run=dry_run)
    return 1 if done["failed"] else 0


@compare_app.command
def import_(
    suite: Suite, file: str, /, *settings: Settings, dry_run: bool = False, out: Out = "runs"
) -> None:
    """Add another toolkit's predictions to a comparison, as a row.

    Example: serzoo compare import quickstart theirs.csv name=theirs

    Args:
        file: predictions, as CSV, TSV or JSON lines.
        settings: name=NAME of the row, id=COLUMN, label=COLUMN,
            prefix=TEXT before the class in the columns of scores,
            class.THEIRS=OURS, where.KEY=VALUE, toolkit=TEXT,
            overwrite=true and others.
        dry_run: check the file, and write nothing.
    """
    from .compare.imported import import_rows

    import_rows([suite, file, *settings], out=out, dry_run=dry_run)


@compare_app.command
def ensemble(
    suite: Suite, /, *settings: Settings, dry_run: bool = False, out: Out = "runs"
) -> None:
    """Average the probabilities of several rows of a comparison, as a new row.

    Example: serzoo compare ensemble quickstart members=[classification]

    Args:
        settings: members=[ROW,ROW] as the table names them, name=NAME of the new row,
            seeds=together or apart, weights=equal or validation,
            recipe=NAME, encoder=NAME, where.KEY=VALUE, overwrite=true.
        dry_run: print the UAR, and write nothing.
    """
    from .compare.ensemble import ensemble_rows

    ensemble_rows(suite, settings, out=out, dry_run=dry_run)


@app.command
def report(
    suite: Suite, /, *, audio: bool = False, attributes: bool = False, out: Out = "runs"
) -> None:
    """Write the tables and the page for the cells that a suite has so far.

    Example: serzoo report quickstart --audio

    Args:
        audio: put players beside the most confident errors in report.html.
        attributes: take gender, language and duration from the corpora if a cell holds none.
    """
    from .report.report import report

    report(Path(out) / Path(suite).stem, audio=audio, attributes=attributes)


@app.command
def tensorboard(
    what: str, /, *, port: int = 6006, host: str = "localhost", out: Out = "runs"
) -> None:
    """Show a suite's cells, or any folder of runs, in TensorBoard.

    Example: serzoo tensorboard quickstart --port 0

    Args:
        what: a suite that was run, or a folder.
        port: number of the port; 0 takes any free one.
        host: address that it listens on.
    """
    from .run.board import serve

    serve(what, out=out, host=host, port=port)


@app.command
def save(run: Run, folder: str, /, *, overwrite: bool = False, licence: Licence = None) -> None:
    """Write a trained model and its model card into a folder, for others to load.

    Example: serzoo save runs/ravdess/selm-0877ec my-model

    Args:
        folder: where the model goes.
        overwrite: write even if the folder is not empty.
    """
    from .core.notices import quiet
    from .run.save import save_pretrained

    quiet()
    written = save_pretrained(run, folder, licence=licence, overwrite=overwrite)
    print(f"saved: {written} (its README.md is the model card; read it before you share it)")


@app.command
def push(run: Run, repo_id: str, /, *, public: bool = False, licence: Licence = None) -> None:
    """Upload a trained model to the Hugging Face hub.

    Example: serzoo push runs/ravdess/selm-0877ec me/my-model

    Args:
        repo_id: USER/NAME of the repository, which is made if there is none.
        public: let everybody see it; by default it is private.
    """
    from .core.notices import quiet
    from .run.save import push_to_hub

    quiet()
    print(push_to_hub(run, repo_id, private=not public, licence=licence))


@app.command
def export(run: Run, file: str, /) -> None:
    """Write a trained model as ONNX, and compare its scores with the original.

    Example: serzoo export runs/ravdess/selm-0877ec model.onnx

    Args:
        file: FILE.onnx to write.
    """
    from .core.notices import quiet
    from .run import onnx
    from .run.model import load

    quiet()
    module = load(run).module
    path = onnx.export(module, file)
    print(f"exported: {path}")
    largest = onnx.parity(module, path)
    print(f"largest difference of scores from the original: {largest:.2g} (limit {onnx.LIMIT:g})")


@app.command
def cache(action: Literal["list", "clear"], store: str | None = None, /) -> None:
    """List the stored features of frozen encoders, or remove them.

    Example: serzoo cache clear all

    Args:
        action: list shows the stores; clear removes some.
        store: what to clear: a store's name, the beginning of one, or all.
    """
    from .run import cache

    if action == "list":
        cache.show(cache.cache_list())
        return
    if store is None:
        raise ConfigError(
            "nothing was named to clear; give a store's name (see `serzoo cache list`), or all"
        )
    number, freed = cache.cache_clear(store)
    print(f"removed {counted(number, 'feature store')}: {cache.size(freed)} freed")


VERBS = tuple(name for name in app if not name.startswith("-"))
for _place, _name in enumerate(VERBS):  # --help lists verbs in the order of work
    app[_name].sort_key = _place


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code.

    Args:
        argv: words after ``serzoo``; those of this process by default.

    Returns:
        0 if it did what was asked. 1 if it ran and found a fault: a failed audit, failed cells,
        refused recordings. 2 if it could not run. 130 if it was interrupted. 141 if the reader of
        its output has gone.
    """
    typed, parts = _without_parts(sys.argv[1:] if argv is None else argv)
    called = " ".join(["serzoo", *(v for v in app.parse_commands(typed)[0] if v[0] != "-")])
    if argv is None:  # hooks are changed only in a process of our own
        threading.excepthook = _without_system_errors(threading.excepthook)
    try:
        with on_terminal():
            _adopt(parts)
            verb, words, _ = app.parse_args(
                typed, exit_on_error=False, print_error=False, verbose=False
            )
            code = verb(*words.args, **words.kwargs)
        sys.stdout.flush()  # a full disk shows here, and the handlers below still tell it
    except KeyboardInterrupt as e:
        _tell("interrupted", e)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return 141
    except CycloptsError as e:  # no such verb, option or argument
        more = isinstance(e, UnusedCliTokensError) and " ".join(e.unused_tokens or ())
        fault = f"too many words: {more}." if more else " ".join(str(e).split())
        _tell(f"{called}: {fault} See `{called} --help`.", e)
        return 2
    except Exception as e:
        said = str(e) if isinstance(e, SerzooError) else system_error(e)
        if said is None:
            raise
        # one line, even if a file's name or a library's message has several
        _tell(f"{called}: {' '.join(said.splitlines())}", e)
        return 2
    return int(code or 0) if typed else 2  # without a verb, only the help was shown


def _without_parts(typed: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the other words, and the values of ``--part``, which any verb takes repeatedly."""
    left: list[str] = []
    parts: list[str] = []
    words = iter(typed)
    for word in words:
        if word == "--part":
            parts.append(next(words, ""))
        elif word.startswith("--part="):
            parts.append(word.removeprefix("--part="))
        else:
            left.append(word)
    return left, parts


def _adopt(parts: Sequence[str]) -> None:
    """Register the user's own heads, encoders and readers, since no model brings code."""
    if not parts:
        return
    from .core.own import adopt_any

    for part in parts:
        if not part:
            raise ConfigError("--part has no value; write --part FILE.py:NAME")
        adopt_any(part)


def _corpus(name: str) -> str:
    """Return the name of a corpus or manifest; a reader of the user's own is registered first."""
    from .core import own

    return own.adopt("corpora", name) if own.is_own(name) and not Path(name).exists() else name


def _corpora(given: str | list[str]) -> str | list[str]:
    return _corpus(given) if isinstance(given, str) else [_corpus(name) for name in given]


def _without_system_errors(others: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a hook for errors of threads that drops system errors, such as a full disk.

    TensorBoard writes in a thread, and raises the same error again where the next value is written.
    """
    return lambda seen: None if system_error(seen.exc_value) else others(seen)


def _tell(line: str, error: BaseException) -> None:
    """Print an error and its notes on standard error, unless that is closed or full."""
    with contextlib.suppress(OSError):
        print("\n".join([line, *getattr(error, "__notes__", ())]), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # Python would flush once more at its end, and change the exit code
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
