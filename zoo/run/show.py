"""`serzoo show`: what a run was, what it reached, and what it took, from its record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from ..core.errors import ConfigError, DataError, counted
from ..core.files import read_json
from ..core.table import Table, cell
from ..statistics.speakers import interval_text
from .record import AGAIN, PLAN, RECORD, ProbeRecord, Record, left_out_lines, unsure_lines
from .schema import RunConfig


def read(run: str | Path) -> Record | ProbeRecord:
    """Read the record of a folder, or the record itself.

    Args:
        run: folder of a run, an adaptation, a probe or a cell; or its ``record.json``.

    Raises:
        ConfigError: if there is no record. It says what is there.
        DataError: if the record is damaged, or newer than this serzoo.
    """
    path = Path(run).expanduser()
    folder = path.parent if path.name == RECORD else path
    if (folder / PLAN).is_file():
        raise ConfigError(
            f"{run} is a comparison of many runs; use `serzoo report {folder.name}` for its "
            f"tables, or show one of {folder / 'cells'}"
        )
    if not (folder / RECORD).is_file():
        if below := sorted(p.parent for p in folder.glob(f"*/{RECORD}")):
            raise ConfigError(
                f"{run} is a folder of {counted(len(below), 'run')}; show one of them, such as "
                f"{below[0]}"
            )
        found = f"has no {RECORD}" if folder.is_dir() else "is not there"
        found = "is a file" if folder.is_file() else found
        raise ConfigError(f"{run} {found}; give a run's folder, as `serzoo train` prints it")
    content = read_json(folder / RECORD, remedy=AGAIN)
    kind = ProbeRecord if content.get("kind") == "probe" else Record
    record = kind.from_json(content, folder / RECORD)
    record.folder = folder
    return record


def show(record: Record | ProbeRecord, console: Console | None = None) -> None:
    """Print a record: tables of facts, the recall of each class, and the files of the folder."""
    if isinstance(record, ProbeRecord):
        from .probing import show as show_probes

        show_probes(record, console)
        return
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=80)
    for table in tables(record):
        console.print(table.rich(lines=False), "", sep="\n")
    for line in _notes(record):
        console.print(line, markup=False, highlight=False)


def tables(record: Record) -> list[Table]:
    """Return the tables of a run's record: its facts, and its result by class and speaker."""
    facts = Table("", ("", ""), [[key, text] for key, text in _facts(record) if text])
    if not record.metrics:
        return [facts]
    counts = record.counts.get("kept", {}).get("test", {})
    recalls = record.metrics.get("recall") or {}
    rows = [[name, cell(recalls.get(name)), cell(counts.get(name), ".0f")] for name in recalls]
    found = [facts, Table("Test part by class", ("class", "recall", "utterances"), rows)]
    if speakers := record.by_speaker:
        rows = [
            [name, cell(m.get("uar")), cell(m.get("wa")), cell(m.get("n"), ".0f")]
            for name, m in speakers.items()
        ]
        heads = ("speaker", "UAR", "WA", "utterances")
        found.append(Table("Test part by speaker", heads, rows))
    return [t for t in found if t.rows]


def _facts(r: Record) -> Iterator[tuple[str, str]]:
    """Yield name and text of each fact; a text is "" if the record does not tell."""
    cfg = RunConfig.from_dict(r.config) if r.config else RunConfig()
    yield "run", f"{r.fingerprint or '–'}, {r.status or 'of unknown state'}"
    yield "failed", f"{r.reason}: {r.error}" if r.error else ""
    if r.kind == "adaptation":
        yield "adapted", f"{r.tuning}, {r.shots} shots of each class, draw {r.draw}"
    yield "head", cfg.head_name or str(cfg.head.get("type", ""))
    encoder = ", ".join(str(cfg.encoder[k]) for k in ("type", "name", "tuning") if k in cfg.encoder)
    yield "encoder", encoder
    yield "corpus", ", ".join(cfg.corpus)
    yield "protocol", f"{cfg.protocol}, fold {cfg.fold}, seed {cfg.seed}" if cfg.protocol else ""
    yield "classes", f"{len(r.classes)}: {', '.join(r.classes)}" if r.classes else ""
    for part, names in r.speakers.items():
        n = sum(r.counts.get("kept", {}).get(part, {}).values())
        if n or names:
            yield part, f"{counted(n, 'utterance')} of {counted(len(names), 'speaker')}"
    if m := r.metrics:
        yield "UAR", f"{m['uar']:.3f} {interval_text(m)}"
        yield "WA, macro-F1", f"{m['wa']:.3f}, {m['f1']:.3f}"
    if rule := r.selection.get("rule"):
        epoch = r.selection.get("epoch")
        yield "selected", f"{rule}" + (f", epoch {epoch}" if epoch is not None else "")
    if p := r.parameters:
        total, learned = p.get("total", 0), p.get("trainable", 0)
        yield "weights", f"{total:,} in all, {learned:,} trained, {p.get('head', 0):,} in the head"
    if took := r.seconds.get("total"):
        memory = f", {r.peak_memory_mb:.0f} MiB at most" if r.peak_memory_mb else ""
        yield "took", f"{took:.0f} s on {r.device or 'an unknown device'}{memory}"
    yield "made with", ", ".join(f"{k} {v}" for k, v in list(r.versions.items())[:3] if v)


def _notes(record: Record) -> Iterator[str]:
    """Yield what the audit left open, what was left out, and the files of the folder."""
    yield from unsure_lines(record.unsure)
    yield from left_out_lines(record.counts, record.notes)
    if record.folder is None or not record.folder.is_dir():
        raise DataError("the record has no folder; read it with serzoo.zoo.run.show.read(FOLDER)")
    files = sorted(p.name for p in record.folder.iterdir() if not p.name.startswith("."))
    yield f"files in {record.folder}: {', '.join(files)}"
