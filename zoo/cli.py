"""The command line: one function for each verb, whose signature and docstring are its ``--help``.

A verb reads what was typed, calls the library and prints the result. A verb imports heavy modules
itself, so that ``serzoo --help`` answers without torch.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter, validators

from . import terminal
from .core.errors import ConfigError, counted
from .core.shipped import KINDS, Kind
from .terminal import print_json, result_only


def _version() -> str:
    from importlib.metadata import version

    return f"serzoo {version('serzoo')}"


app = App(
    name="serzoo",
    help="Speech emotion recognition, posed in different ways and compared fairly.\n\n"
    "Settings are written key=value: serzoo train ravdess head=selm optim.lr=1e-3\n"
    "`serzoo VERB --help` explains a verb and shows an example.\n"
    "Every verb also takes these options:\n"
    "--part FILE.py:NAME gives a model its head, encoder or corpus of your own.\n"
    "--quiet (-q) leaves out notes and progress. --verbose (-v) says more.",
    help_format="plaintext",
    version=_version,
    version_flags=("--version",),
    default_parameter=Parameter(negative=(), show_default=lambda value: value or None),
)

Settings = Annotated[str, Parameter(name="key=value")]
Recipe = Annotated[str, Parameter(help="a shipped recipe (see `serzoo list recipes`) or YAML file")]
Suite = Annotated[str, Parameter(help="a shipped suite (see `serzoo list suites`) or YAML file")]
ShippedClaim = Annotated[
    str, Parameter(help="a shipped claim (see `serzoo list claims`) or YAML file")
]
Speech = Annotated[str, Parameter(help="a prepared manifest (.jsonl), or a corpus' name")]
Run = Annotated[str, Parameter(help="a run's folder, a .ckpt file, or a saved folder")]
Out = Annotated[str, Parameter(help="folder of all runs")]
Port = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))]
Json = Annotated[bool, Parameter(help="print the result as JSON")]
Licence = Annotated[str | None, Parameter(help="licence of the weights, such as cc-by-nc-sa-4.0")]


@app.command
def list_(kind: Kind | None = None, name: str | None = None, /, *, json: Json = False) -> None:
    """Show what the zoo holds: heads, encoders, corpora and more; or the options of one of them.

    Example: serzoo list heads selm

    Args:
        kind: show the parts of one kind: what each is, its paper, size and licence.
        name: show one part, with the type, default and meaning of its options.
    """
    from .core import listing

    if not json:
        listing.show(kind, name)
    elif kind is None:
        print_json({each: listing.names(each) for each in KINDS})
    elif name is None:
        print_json([entry.to_json() for entry in listing.entries(kind)])
    else:
        print_json(listing.details(kind, name))


@app.command
def show(run: str, /, *, json: Json = False) -> None:
    """Show a run's settings, its results, its time and memory, and the files of its folder.

    Example: serzoo show runs/ravdess/selm-0877ec

    Args:
        run: a run's folder, or a cell of a comparison.
    """
    from .run import show as shows

    record = shows.read(run)
    if json:
        print_json(record.to_json())
    else:
        shows.show(record)


@app.command
def config(recipe: Recipe, /, *settings: Settings, json: Json = False) -> None:
    """Compose a run and print it. No weights and no data are loaded.

    Example: serzoo config ravdess head=selm optim.lr=1e-3

    Args:
        settings: any key that is printed, or a group (encoder, head, optim) with a name.
    """
    import yaml

    from .core import registry
    from .run.config import build_taxonomy, load

    cfg = load(recipe, settings)
    taxonomy = build_taxonomy(cfg)
    if json:
        classes = None if taxonomy is None else taxonomy.classes
        print_json({"fingerprint": cfg.fingerprint, "classes": classes, "config": cfg.to_dict()})
        return
    print(yaml.safe_dump(cfg.to_dict(), sort_keys=False, allow_unicode=True), end="")
    if taxonomy is not None:
        print(f"# classes: {', '.join(taxonomy.classes)} (taxonomy {taxonomy.fingerprint})")
        for line in registry.get("heads", cfg.head["type"]).explain(taxonomy, cfg.head):
            print(f"# {line}")
    print(f"# run {cfg.fingerprint}")


@app.command
def prepare(corpus: str, /, *settings: Settings, json: Json = False) -> int:
    """Decode every file of a corpus, and write a manifest of what can be used.

    Bad audio is refused and listed. The published counts are checked. If it was killed, the same
    command decodes only the rest.

    Example: serzoo prepare ravdess root=~/ravdess out=ravdess.jsonl

    Args:
        corpus: a corpus' name (see `serzoo list corpora`).
        settings: root=FOLDER, out=FILE.jsonl, channel=mean|first|N,
            strict=true, processes=N, and options.KEY of the corpus' reader.
    """
    from rich.console import Console

    from ..datamodules.catalog import prepare_corpus
    from .run.words import read_settings, types_of

    corpus = _corpus(corpus)
    given = read_settings(settings, types_of(prepare_corpus), [corpus])
    given.setdefault("processes", None)
    done, path = prepare_corpus(corpus, **given, progress=True)
    if json:
        print_json({"corpus": corpus, "manifest": str(path), **done.notes()})
    else:
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
def audit(manifest: Speech, /, *settings: Settings, json: Json = False) -> int:
    """Look for speakers, sentences and recordings that the parts of a fold share.

    Example: serzoo audit ravdess.jsonl protocol=kfold-3

    Args:
        settings: protocol=NAME, taxonomy=NAME, root=FOLDER, label=COLUMN,
            unknown_speakers=accept, and options.KEY of the corpus' reader.
    """
    from ..datamodules import audit as audits
    from ..datamodules.opening import audit_corpus
    from .run.words import read_settings, types_of

    manifest = _corpus(manifest)
    given = read_settings(settings, types_of(audit_corpus), [manifest])
    reports = audit_corpus(manifest, **given, progress=True)
    passed = audits.passed(reports, given.get("unknown_speakers"))
    if json:
        print_json({"passed": passed, "folds": [r.to_dict() for r in reports]})
    else:
        print("\n".join(audits.lines(reports)))
    return 0 if passed else 1


corpus_app = App(
    name="corpus",
    help="Give a corpus of your own a name.\n\n"
    "Example: serzoo corpus add my_calls root=calls reader=folder",
    version_flags=(),
)
app.command(corpus_app)


@corpus_app.command(name="add")
def corpus_add(name: str, /, *settings: Settings, json: Json = False) -> None:
    r"""Give a corpus of your own a name, which every verb then takes.

    It writes corpora/NAME.yaml, or NAME.yaml in the folder SERZOO_CORPORA, and shows what it found.

    Example: serzoo corpus add my_calls root=calls pattern='(?P<speaker>\d+)_(?P<label>[a-z]+)_.*'

    Args:
        name: the name that the corpus gets.
        settings: root=FOLDER, reader=folder|csv|NAME, pattern=REGEX,
            labels={WORD: LABEL}, label=.lab, text=.txt, gender={WORD: female},
            taxonomy=NAME, protocol=NAME, overwrite=true and others,
            and options.KEY of the reader.
    """
    from ..datamodules import adding
    from .core.notices import tell
    from .run.words import corpora_of, read_settings, types_of

    given = read_settings(settings, types_of(adding.add), corpora_of(settings, "reader"))
    found = adding.add(name, **given)
    for note in found.notes:
        tell(note)
    if json:
        print_json(found.to_json())
    else:
        print("\n".join(found.lines()))


@corpus_app.default
def corpus(*, json: Json = False) -> None:
    """Show your own corpora, and the files that describe them.

    Example: serzoo corpus add my_calls root=calls reader=folder
    """
    from .core import listing, registry

    found = [listing.entry("corpora", name) for name in registry.own_corpora()]
    if json:
        print_json([entry.to_json() for entry in found])
        return
    print(
        "\n".join(f"{e.name}: {e.about} ({e.source or 'damaged'})" for e in found)
        or (
            f"no corpus of your own in the folder {registry.corpora_folder()}; "
            "`serzoo corpus add` adds one"
        )
    )


@corpus_app.command(name="export")
def corpus_export(
    source: Speech,
    folder: str,
    /,
    *settings: Settings,
    format: Literal["audformat", "lhotse"] = "audformat",
    json: Json = False,
) -> None:
    """Write a corpus for another tool. The audio stays where it is.

    Example: serzoo corpus export ravdess.jsonl database --format lhotse

    Args:
        folder: where the database or the lists are written.
        settings: root=FOLDER, and options.KEY of the corpus' reader.
        format: audformat (a database), or lhotse (recordings and supervisions).
    """
    from ..datamodules import adding
    from .run.words import read_settings

    source = _corpus(source)
    given = read_settings(settings, {"root": str | None}, [source])
    done = adding.export(source, folder, format=format, **given)
    if json:
        print_json({**asdict(done), "written": [str(path) for path in done.written]})
    else:
        print("\n".join(done.lines()))


label_app = App(name="label", version_flags=())
app.command(label_app)


@label_app.default
def label(
    manifest: Speech, /, *settings: Settings, shard: str | None = None, json: Json = False
) -> None:
    """Label speech from its words: write what is said, score the classes, select.

    Example: serzoo label talk.jsonl taxonomy=big4 out=labels scorer=lexicon

    Args:
        settings: taxonomy=NAME, out=FOLDER, asr=MODEL,
            scorer=nli|embedding|causal|masked|lexicon, scorer.model=MODEL,
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
    if os.environ.get("RANK", "0") != "0":  # all ranks found the same
        return
    if json:
        print_json({"folder": str(done.folder), "labels": done.record})
    else:
        print("\n".join(done.lines))


@label_app.command(name="trace")
def label_trace(out: str, id: str, /, *, json: Json = False) -> None:
    """Show where a label comes from: audio, transcript, scores and criteria.

    Example: serzoo label trace labels synthetic_talk/tf01-001

    Args:
        out: the folder that `serzoo label` wrote.
        id: id of an utterance.
    """
    from ..datamodules.labelling import label as labelling

    found = labelling.trace(out, id)
    if json:
        print_json(found)
    else:
        print("\n".join(labelling.shown(found)))


@label_app.command(name="audit")
def label_audit(out: str, /, *settings: Settings, json: Json = False) -> int:
    """Measure whether labels from words are right, and whether the words carry emotion.

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
    if json:
        print_json({**done.record, "written": [str(path) for path in done.written]})
        return 0 if done.ok else 1
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
    from .run.words import option_types, parse

    scorer = str(dict(parse(typed)).get("scorer", "nli"))
    known = {**knobs, **{f"asr.{k}": v for k, v in asr_knobs().items()}}
    known |= {f"scorer.{k}": v for k, v in scorer_knobs(scorer).items()}
    types = {name: knob.annotation for name, knob in known.items()}
    return dict(parse(typed, {**types, **option_types([source])}))


@app.command(name="lock")
def lock_(*names: str, all: bool = False, file: str | None = None, json: Json = False) -> int:
    """Keep the commits of published models in a lock file, so that later runs load the same.

    Without names, it shows which models are locked.

    Example: serzoo lock whisper-base wavlm-base-plus

    Args:
        names: encoders and heads (see `serzoo list`), asr (the default recogniser), hub ids,
            OWNER/NAME@REVISION, folders.
        all: lock the models of all shipped encoders and heads.
        file: the lock file; by default serzoo.lock in this folder if it exists, else that of the
            cache.
    """
    from .core import lock
    from .run import locking

    if not names and not all:
        held = Path(file).expanduser() if file else lock.lock_file()
        if file and not held.exists():
            raise ConfigError(f"no lock file {file}; `serzoo lock MODEL --file {file}` makes it")
        if json:
            print_json({"file": str(held), "models": list(lock.read(held).values())})
        else:
            locking.show_held(held)
        return 0
    results, target = locking.lock_models(names, everything=all, file=file)
    if json:
        print_json({"file": str(target), "models": results})
    else:
        locking.show(results, target)
    return 1 if any(r.entry is None for r in results) else 0


@app.command
def doctor(recipe: Recipe, /, *settings: Settings, json: Json = False) -> int:
    """Check a run before it starts: build it, take one step, and say what is wrong.

    Example: serzoo doctor ravdess head=selm

    Args:
        settings: settings of the run; `serzoo config` prints them all.
    """
    from rich.console import Console

    from . import doctor
    from .core.progress import Bar
    from .run.config import load

    cfg = load(recipe, settings)
    checks = len(doctor.CHECKS) + 1  # data and model come first
    with Bar("checks", checks) as bar:

        def report(name: str) -> None:
            bar.note(name)
            bar.advance()

        findings = doctor.doctor(cfg, report=report)
    if json:
        print_json(doctor.as_dict(cfg, findings))
    else:
        doctor.show(cfg, findings, Console())
    return 1 if doctor.summary(findings)["error"] else 0


@app.command
def train(recipe: Recipe, /, *settings: Settings, json: Json = False) -> None:
    """Train a model, select it on validation speakers, test it once, and write a record.

    If it was killed, the same command goes on from the last whole epoch.

    Example: serzoo train ravdess head=selm optim.lr=1e-3

    Args:
        settings: settings of the run; `serzoo config` prints them all.
    """
    from .core.notices import tell
    from .run import train
    from .run.config import load
    from .run.record import finished, trained_lines

    cfg = load(recipe, settings)
    folder = train.run_folder(cfg)
    ended = finished(folder)
    with result_only(json):
        entry = train.train(cfg)
    if ended:
        tell(f"{folder} had ended before; remove it to train it again", fault=False)
    if not entry.selection:  # only the first rank has it
        return
    if json:
        print_json({**entry.to_json(), "folder": str(folder)})
    else:
        print("\n".join(trained_lines(cfg, entry, folder)))


@app.command
def eval_(checkpoint: Run, /, *settings: Settings, json: Json = False) -> None:
    """Score a trained model on its test speakers, on other speech, or on corrupted audio.

    Example: serzoo eval runs/ravdess/selm-0877ec condition=white:10dB

    Args:
        settings: corpus=NAME, root=FOLDER, manifest=FILE, taxonomy=NAME,
            part=test|valid|all, condition=noise:10dB, noise=FOLDER,
            rir=FOLDER, unknown_speakers=accept, out=FILE.jsonl,
            prior=CLASS:WEIGHT,..., record=FILE.json, and options.KEY of the corpus' reader.
            head.KEY=VALUE scores with another option of the head, without training. A list,
            as in head.steps=[1,2,4], makes a curve, which curve=FOLDER keeps.
    """
    from .core.files import check_place, write_json
    from .report import answering
    from .run.record import evaluated_lines
    from .run.score import evaluate
    from .run.words import corpora_of, read_settings, types_of

    of_head = [s for s in settings if s.startswith(answering.PREFIX)]
    settings = tuple(s for s in settings if s not in of_head)
    asked = answering.combinations(of_head)
    types = {**types_of(evaluate), **dict.fromkeys(("out", "record", "curve"), str | None)}
    given = read_settings(settings, types, corpora_of(settings, "corpus"))
    out, kept, folder = (given.pop(key, None) for key in ("out", "record", "curve"))
    for file in filter(None, (out, kept)):
        check_place(Path(file))
    kind = (given.get("condition") or "").partition(":")[0]
    for key, use in (("noise", "noise:10dB"), ("rir", "reverb")):
        if given.get(key) and kind != use.partition(":")[0]:
            raise ConfigError(
                f"{key}={given[key]} is for condition={use}, and the condition is "
                f"{given.get('condition') or 'clean'}; leave {key}= out, or set condition={use}"
            )
    given |= {"corpus": _corpora(given["corpus"])} if given.get("corpus") else {}
    if (len(asked) > 1 or folder) and (out or kept):
        raise ConfigError(
            "out= and record= keep one evaluation; for a curve give curve=FOLDER, which keeps the "
            "records of all"
        )
    if folder and not of_head:
        raise ConfigError(
            f"curve={folder} needs options of the head; add head.KEY=[VALUE,VALUE], such as "
            "head.steps=[1,2,4]"
        )
    if len(asked) > 1 or folder:
        with result_only(json):
            points = answering.curve(checkpoint, asked, **given, progress=True)
            answering.show(points)
            if folder:
                for path in answering.write(Path(folder), points, f"{checkpoint}: one model"):
                    print(f"written: {path}")
        if json:
            print_json(answering.to_json(points))
        return
    with result_only(json):
        table, record = evaluate(checkpoint, answering=asked[0], **given, progress=True)
        print("\n".join(evaluated_lines(table, record)))
        if out:
            print(f"predictions: {table.write_jsonl(Path(out))}")
        if kept:
            write_json(Path(kept), record.to_json())
            print(f"record: {kept}")
    if json:
        print_json(record.to_json())


@app.command
def adapt(checkpoint: Run, /, *settings: Settings, json: Json = False) -> None:
    """Adapt a trained model to other speech, with a few utterances of each class.

    Example: serzoo adapt runs/ravdess/selm-0877ec data=voices.jsonl shots=4

    Args:
        settings: data=CORPUS or data=FILE.jsonl, shots=4,
            tuning=lora|head|full|scratch, draw=1, steps=60,
            protocol=NAME, fold=0, taxonomy=NAME, root=FOLDER, out=FOLDER
            and others.
    """
    from .run import adapt, tuning
    from .run.words import corpora_of, read_settings, types_of

    types = types_of(adapt.adapt) | tuning.option_types()
    given = read_settings(settings, types, corpora_of(settings, "data"))
    if not given.get("data"):
        raise ConfigError("no speech to adapt to; add data=CORPUS, or data=FILE.jsonl")
    given["data"] = _corpora(given["data"])
    with result_only(json):
        entry = adapt.adapt(checkpoint, **given, progress=True)
        print("\n".join(adapt.adapted_lines(entry)))
    if json:
        print_json({**entry.to_json(), "folder": str(entry.folder)})


@app.command
def probe(
    model: str, /, *settings: Settings, against: str = "untrained", json: Json = False
) -> None:
    """Measure whether a representation holds prosody: F0, level and rate, by linear probes.

    Example: serzoo probe runs/ravdess/selm-0877ec data=voices.jsonl

    Args:
        model: a run's folder, a .ckpt file, a saved folder; or a recipe, with its settings.
        settings: data=CORPUS, protocol=NAME, fold=K, root=FOLDER,
            rate_from=auto|text|audio, out=FOLDER, and the keys of the recipe.
        against: untrained (the same encoder before training), none, or another model.
    """
    from .run import probing
    from .run.words import corpora_of, read_settings, types_of

    types = types_of(probing.probe_model)
    own = [s for s in settings if s.partition("=")[0] in types or s.startswith("options.")]
    given = read_settings(own, types, corpora_of(own, "data"))
    given |= {"data": _corpora(given["data"])} if given.get("data") else {}
    rest = [s for s in settings if s not in own]
    with result_only(json):
        entry = probing.probe_model(model, rest, against=against, **given, progress=True)
        probing.show(entry)
        print(f"record: {entry.folder}")
    if json:
        print_json({**entry.to_json(), "folder": str(entry.folder)})


@app.command
def distil(
    configuration: Annotated[str, Parameter(name="config")],
    /,
    *settings: Settings,
    json: Json = False,
) -> None:
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
    with result_only(json):
        facts = distil.distil(cfg)
        print("\n".join(distil.lines(cfg, facts)))
    if json:
        print_json(facts)


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
    textgrid: str | None = None,
    rate: int | None = None,
    encoding: str | None = None,
    channels: int | None = None,
    batch_seconds: float = 160.0,
    format: Literal["csv", "jsonl", "label-studio", "audformat"] | None = None,
    json: Annotated[bool, Parameter(help="print rows as JSON lines, not as CSV")] = False,
) -> int:
    """Label recordings, with probabilities, or write a timeline of long ones.

    Example: serzoo predict my-model calls/*.wav --out calls.csv

    Args:
        model: a run's folder, a .ckpt file, a saved model's folder or its hub id.
        file: a recording, a folder (and all below it), or a quoted pattern: 'calls/*.wav'. Or
            a manifest of `serzoo prepare`, which also names speakers. Or - for raw samples on
            standard input, with --rate.
        files: more recordings, folders, patterns or manifests.
        out: FILE.csv or FILE.jsonl; CSV on standard output by default.
        window: seconds of a window; longer recordings are cut into windows. The default is
            data.max_seconds of the training.
        hop: seconds from one window to the next; half a window by default.
        voice: how speech is found: none, energy or silero. Windows then cover speech only.
        channel: mean of all channels, first, or a number from 1. Or separate, which makes a
            timeline of each channel, such as each speaker of a call.
        plot: FILE.png, .svg or .pdf, or a folder, for pictures of the probabilities over time.
        textgrid: FILE.TextGrid, or a folder, for timelines in Praat.
        rate: samples per second of raw samples in a pipe; leave it out for files.
        encoding: format of raw samples, as ffmpeg names it: s16le (default), f32le, mulaw and
            others.
        channels: number of channels of raw samples, 1 by default.
        batch_seconds: most seconds of padded audio in a batch.
        format: format of --out, if its ending does not say it: label-studio (FILE.json) or
            audformat (a folder).
    """
    from .core.notices import quiet
    from .run.predict import predict_files

    quiet()
    return predict_files(
        model, [file, *files], out=out, window=window, hop=hop, voice=voice, channel=channel,
        plot=plot, textgrid=textgrid, rate=rate, encoding=encoding, channels=channels,
        batch_seconds=batch_seconds, json=json, form=format,
    )  # fmt: skip


@app.command
def demo(
    model: str,
    /,
    *models: str,
    asr: str | None = None,
    window: float | None = None,
    voice: str = "energy",
    port: Port = 7860,
    megabytes: int = 200,
) -> None:
    """Open a page on this machine that shows what models say about a recording, side by side.

    Nothing leaves the machine: the page listens on 127.0.0.1, and asks no other server.

    Example: serzoo demo runs/ravdess/selm-0877ec my-model --asr pocketsphinx

    Args:
        model: a run's folder, a .ckpt file, a saved model's folder or its hub id.
        models: more models.
        asr: a speech recogniser, which writes what is said: pocketsphinx, a hub id or a folder.
        window: seconds of a window. The default is the longest that all models take.
        voice: how speech is found: energy, silero or none.
        port: number of the port; 0 takes any free one.
        megabytes: largest file that the page takes.
    """
    from .core.notices import quiet
    from .run.demo import serve

    quiet()
    serve([model, *models], asr=asr, window=window, voice=voice, port=port, megabytes=megabytes)


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
    json: Json = False,
) -> int:
    """Run every cell of a suite that is not finished, then write the tables.

    Example: serzoo compare quickstart --workers 1

    Args:
        settings: settings of all cells; a list replaces an axis, as in seed=[1,2].
        dry_run: only list the cells, with estimated time and memory.
        limit: minutes that a cell may take; by default the suite's limit, if it has one.
        workers: processes; one per GPU, or per CPU core, by default.
    """
    from .compare.compare import compare

    with result_only(json):
        done = compare(suite, settings, out=out, workers=workers, limit=limit, dry_run=dry_run)
    if json:
        print_json({**done, "folder": str(done["folder"])})
    return 1 if done["failed"] else 0


@compare_app.command
def import_(
    suite: Suite,
    file: str,
    /,
    *settings: Settings,
    dry_run: bool = False,
    out: Out = "runs",
    json: Json = False,
) -> None:
    """Add the predictions of another toolkit to a comparison, as a row.

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

    with result_only(json):
        done = import_rows([suite, file, *settings], out=out, dry_run=dry_run)
    if json:
        print_json({**asdict(done), "folder": str(done.folder)})


@compare_app.command
def ensemble(
    suite: Suite,
    /,
    *settings: Settings,
    dry_run: bool = False,
    out: Out = "runs",
    json: Json = False,
) -> None:
    """Average the probabilities of several rows of a comparison, as a new row.

    Example: serzoo compare ensemble quickstart members=[classification,gen_ser]

    Args:
        settings: members=[ROW,ROW] as the table names them, name=NAME of the new row,
            seeds=together or apart, weights=equal or validation,
            recipe=NAME, encoder=NAME, where.KEY=VALUE, overwrite=true.
        dry_run: print the UAR, and write nothing.
    """
    from .compare.ensemble import ensemble_rows

    with result_only(json):
        done = ensemble_rows(suite, settings, out=out, dry_run=dry_run)
    if json:
        print_json({**asdict(done), "folder": str(done.folder)})


@app.command
def replicate(
    claim: ShippedClaim,
    /,
    *,
    records: str | None = None,
    record: str | None = None,
    run: bool = False,
    out: Out = "runs",
    json: Json = False,
) -> None:
    """Test a paper's claim on records: they confirm it, refute it, or cannot tell.

    If they cannot tell, it says which further trainings could.

    Example: serzoo replicate selm_out_of_domain --records benchmarks/results/out_of_domain

    Args:
        records: folder of the claim's finished suite, or of a packed one, as in
            benchmarks/results. By default the suite's folder below --out.
        record: FILE.json to which the answer is written.
        run: first run the cells of the claim's suite that are not finished.
    """
    from .compare import compare, replicate
    from .core.files import check_place, write_json
    from .core.table import wide_console

    if record:
        check_place(Path(record))
    asked = replicate.read_claim(claim)
    if run and records:
        raise ConfigError("--run makes its own records; leave --records out, or --run")
    if records and not Path(records).is_dir():
        raise ConfigError(
            f"--records {records} {'is a file' if Path(records).exists() else 'is not there'}; "
            "give the folder of a suite that was run, or of a packed one"
        )
    with result_only(json):
        if run:
            compare.compare(asked.suite, replicate.settings(asked), out=out)
        folder = records or str(Path(out) / Path(asked.suite).stem)
        found = replicate.replicate(asked, folder)
        if found.told:
            wide_console().print(replicate.table(found).rich())
        print("\n".join(replicate.lines(found)))
        if record:
            write_json(Path(record), found.to_json())
            print(f"record: {record}")
    if json:
        print_json(found.to_json())


@app.command
def report(
    suite: Suite,
    /,
    *,
    audio: bool = False,
    attributes: bool = False,
    format: Literal["csv", "json", "latex", "md"] | None = None,
    out: Out = "runs",
    json: Json = False,
) -> None:
    """Write the tables and the page for the cells that a suite has so far.

    Example: serzoo report quickstart --audio

    Args:
        audio: put players beside the most confident errors in report.html.
        attributes: take gender, language and duration from the corpora if a cell holds none.
        format: print the tables in this form, and nothing else. csv and json have a row for
            each head of each table, with all digits.
    """
    from .report import table
    from .report.report import report
    from .run.record import read_plan

    if format and json:
        raise ConfigError(f"--format {format} and --json both print the result; give one of them")
    folder = Path(out) / Path(suite).stem
    with result_only(json or format is not None):
        rows = report(folder, audio=audio, attributes=attributes)
    if format:
        print(table.printed(rows, read_plan(folder).baseline, format), end="")
    if json:
        print_json({"folder": str(folder), "rows": rows})


@app.command
def tensorboard(
    what: str, /, *, port: Port = 6006, host: str = "localhost", out: Out = "runs"
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
def save(
    run: Run,
    folder: str,
    /,
    *,
    overwrite: bool = False,
    licence: Licence = None,
    json: Json = False,
) -> None:
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
    if json:
        print_json({"folder": str(written)})
    else:
        print(f"saved: {written} (its README.md is the model card; read it before you share it)")


@app.command
def push(
    run: Run,
    repo_id: str,
    /,
    *,
    public: bool = False,
    licence: Licence = None,
    json: Json = False,
) -> None:
    """Upload a trained model to the Hugging Face hub.

    Example: serzoo push runs/ravdess/selm-0877ec me/my-model

    Args:
        repo_id: USER/NAME of the repository; it is made if it does not exist.
        public: let everybody see it; by default it is private.
    """
    from .core.notices import quiet
    from .run.save import push_to_hub

    quiet()
    address = push_to_hub(run, repo_id, private=not public, licence=licence)
    if json:
        print_json({"address": str(address)})
    else:
        print(address)


@app.command
def export(run: Run, file: str, /, *, json: Json = False) -> None:
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
    if json:
        largest = onnx.parity(module, path)
        print_json({"file": str(path), "largest_difference": largest, "limit": onnx.LIMIT})
        return
    print(f"exported: {path}")
    largest = onnx.parity(module, path)
    print(f"largest difference of scores from the original: {largest:.2g} (limit {onnx.LIMIT:g})")


@app.command
def cache(
    action: Literal["list", "clear"], store: str | None = None, /, *, json: Json = False
) -> None:
    """List the stored features of frozen encoders, or remove them.

    Example: serzoo cache clear all

    Args:
        action: list shows the stores; clear removes some.
        store: what to clear: a store's name, the beginning of one, or all.
    """
    from .run import cache

    if action == "list":
        if store is not None:
            raise ConfigError(f"list shows all stores; leave '{store}' out")
        if json:
            print_json(cache.cache_list())
        else:
            cache.show(cache.cache_list())
        return
    if store is None:
        raise ConfigError(
            "nothing was named to clear; give a store's name (see `serzoo cache list`), or all"
        )
    number, freed = cache.cache_clear(store)
    if json:
        print_json({"removed": number, "bytes": freed})
    else:
        print(f"removed {counted(number, 'feature store')}: {cache.size(freed)} freed")


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes verbs and options when you press Tab.

    Example: serzoo completion bash > ~/.local/share/bash-completion/completions/serzoo

    Args:
        shell: the shell that you use.
    """
    print(app.generate_completion(shell=shell), end="")


VERBS = tuple(name for name in app if not name.startswith("-"))
for _place, _name in enumerate(VERBS):  # --help lists verbs in the order of work
    app[_name].sort_key = _place


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code.

    Args:
        argv: words after ``serzoo``; those of this process by default.

    Returns:
        A code of :data:`.terminal.EXIT_CODES`.
    """
    typed, parts, level = terminal.without_globals(sys.argv[1:] if argv is None else argv)
    called = " ".join(["serzoo", *(v for v in app.parse_commands(typed)[0] if v[0] != "-")])
    if argv is None:  # hooks and streams are changed only in a process of our own
        terminal.safe_streams()
        threading.excepthook = terminal.without_system_errors(threading.excepthook)

    def work() -> int | None:
        terminal.check_folder()
        _adopt(parts)
        verb, words, _ = app.parse_args(
            typed, exit_on_error=False, print_error=False, verbose=False
        )
        code: int | None = verb(*words.args, **words.kwargs)
        return code

    code = terminal.exit_code(work, called, level)
    return code if typed else code or 2  # without a verb, only the help was shown


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
