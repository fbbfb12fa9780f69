"""What each verb does: read its arguments, call the library's function, print what came out.

Whatever is heavy is imported inside a verb: the command line answers ``--help`` without torch.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .errors import ConfigError
from .speakers import ACCEPT, REFUSE, UNKNOWN_SPEAKERS

LISTS = ("heads", "encoders", "corpora", "taxonomies", "protocols", "recipes", "suites")


def _list(arguments: argparse.Namespace) -> None:
    from . import config, registry
    from .taxonomy import Taxonomy

    found = {
        "heads": config.names("head"),
        "encoders": config.names("encoder"),
        "corpora": registry.names("corpora"),
        "taxonomies": Taxonomy.names(),
        "protocols": config.names("protocol"),
        "recipes": config.names("recipe"),
        "suites": config.names("suite"),
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

    from . import config, registry

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

    from . import registry
    from .config import settings

    types = {
        **dict.fromkeys(("root", "out"), str | None),
        "channel": str | int | None,
        "strict": bool,
    }
    values = settings(arguments.settings, types, [arguments.corpus])
    strict = values.get("strict", False)
    if not isinstance(strict, bool):
        raise ConfigError(f"strict is '{strict}'; have true, false")
    prepare = registry.attribute("serzoo.datamodules.catalog:prepare_corpus")
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
    from . import registry
    from .config import settings

    texts = ("protocol", "taxonomy", "root", "label", "unknown_speakers")
    types = dict.fromkeys(texts, str | None)
    values = settings(arguments.settings, types, [arguments.manifest])
    unknown = values.get("unknown_speakers") or REFUSE
    if unknown not in UNKNOWN_SPEAKERS:
        raise ConfigError(f"unknown_speakers is '{unknown}'; have {', '.join(UNKNOWN_SPEAKERS)}")
    audit = registry.attribute("serzoo.datamodules.opening:audit_corpus")
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
    from . import registry

    run = registry.attribute("serzoo.datamodules.labelling.command:run")
    shard = [] if arguments.shard is None else [f"shard={arguments.shard}"]
    return int(run(arguments.manifest, [*arguments.settings, *shard]))


def _doctor(arguments: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from . import config
    from .doctor import as_dict, doctor, show, summary

    cfg = config.load(arguments.recipe, arguments.settings)
    with Console(stderr=True).status("") as status:  # nothing where it is no terminal
        findings = doctor(cfg, told=lambda name: status.update(name))
    if arguments.json:
        print(json.dumps(as_dict(cfg, findings), indent=1))
    else:
        show(cfg, findings, Console())
    return 1 if summary(findings)["error"] else 0


def _train(arguments: argparse.Namespace) -> None:
    from . import config
    from .reporting.told import trained
    from .train import run_folder, train

    cfg = config.load(arguments.recipe, arguments.settings)
    entry = train(cfg)
    if "selection" not in entry:  # a rank other than the first
        return
    print("\n".join(trained(cfg, entry, run_folder(cfg))))


def _eval(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from .config import corpora_of, settings
    from .evaluate import evaluate
    from .reporting.told import evaluated
    from .swap import check_place

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
        from .record import environment, write_json

        write_json(Path(record), {**numbers, **environment()})
        print(f"record: {record}")


def _adapt(arguments: argparse.Namespace) -> None:
    from .adaptation.adapt import adapt
    from .adaptation.options import option_types
    from .adaptation.record import told
    from .config import corpora_of, settings

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
    from .config import corpora_of, settings
    from .probe import probe_model
    from .reporting.probed import told

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
    from .notices import quiet
    from .prediction.predict import predict_files

    quiet()
    options = ("out", "window", "hop", "voice", "channel", "batch_seconds", "plot")
    return predict_files(
        arguments.model, arguments.files, **{key: getattr(arguments, key) for key in options}
    )


def _import(arguments: argparse.Namespace) -> int:
    from .comparison.exchange_verb import run

    return run(arguments.settings, out=arguments.out, dry_run=arguments.dry_run)


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.suite == "import":
        return _import(arguments)
    from .comparison.compare import compare

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

    from .reporting.report import report

    folder = Path(arguments.out) / Path(arguments.suite).stem
    report(folder, audio=arguments.audio, attributes=arguments.attributes)


def _tensorboard(arguments: argparse.Namespace) -> None:
    from .board.serve import serve

    serve(arguments.what, out=arguments.out, host=arguments.host, port=arguments.port)


def _save(arguments: argparse.Namespace) -> None:
    from .notices import quiet
    from .publishing.published import save_pretrained

    quiet()
    folder = save_pretrained(
        arguments.run, arguments.folder, licence=arguments.licence, overwrite=arguments.overwrite
    )
    print(f"saved: {folder} (its README.md is the model card; read it before you share it)")


def _push(arguments: argparse.Namespace) -> None:
    from .notices import quiet
    from .publishing.published import push_to_hub

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
    from .checkpoint import load
    from .notices import quiet
    from .publishing.export import LIMIT, export, parity

    quiet()
    module = load(arguments.run)
    path = export(module, arguments.file)
    print(f"exported: {path}")
    largest = parity(module, path)
    print(f"largest difference of scores from the original: {largest:.2g} (limit {LIMIT:g})")


def _cache(arguments: argparse.Namespace) -> None:
    from . import cache

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
