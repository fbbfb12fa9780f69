"""Databases of audformat: tables, splits and schemes; :func:`to_audformat` writes one.

The package ``audformat`` reads the tables. Two kinds of its files could run code. So a header is
loaded as plain YAML here, and a table that is kept as a pickle is refused.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...zoo.core.errors import DataError, some, suggest
from ...zoo.core.files import check_place, read_text
from ...zoo.core.shipped import read_yaml
from ..archives import inside
from ..corpora import note, utterance
from ..layout import listing
from ..manifest import Utterance
from . import DIMENSIONS, SPLITS, USUAL, Columns, Given, Paths, finish, takes_columns

VERSION = 1
SPEAKER = "name the column with options.speaker=COLUMN"
PARTS = {"train": "train", "valid": "dev", "test": "test"}
"""The type of split of audformat, for each part."""


@takes_columns("column")
def prepare(
    root: Path,
    *,
    header: str = "db.yaml",
    tables: list[str] | None = None,
    given: Given,
    raters: list[str] | None = None,
    scale: tuple[float, float] | None = None,
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    """Yield the rows of tables, each a file or a segment of one.

    Facts that the tables lack are looked up in the other tables of the database, by file or by
    segment. Then they are looked up in the labels of the speakers' scheme (``gender``,
    ``language``). Without one, the only language of the database is used. The split of a table is
    kept as ``labels["split"]``.

    Args:
        root: folder of the database; it holds the header, the tables and the media.
        header: name of the header.
        tables: tables to read; by default each one that has the label's column.
        given: the options of :func:`takes_columns`, which name label, speaker and so on.
        raters: columns with the label that one rater gave; they are counted as votes.
        scale: lowest and highest rating; by default ``minimum`` and ``maximum`` of the scheme.
        rename: maps a label to another one.

    Raises:
        DataError: if the package, the header, a table or a column is missing, or a table is a
            pickle. Also if the header is damaged, or a path leads out of the root.
    """
    db, loaded = _open(root, header)
    known = [c for t in loaded.values() for c in t.columns]
    columns = given.find("audformat", known, also=raters or ())
    columns = replace(columns, scale=scale or _scale(db, columns))
    chosen = _chosen(loaded, columns, tables)
    tongue = _language(db)
    paths, found = Paths(root), []
    for name in chosen:
        table = loaded[name]
        part = db.splits[table.split_id].type if table.split_id else None
        rows = _rows(loaded, name, [*known, *_scheme_facts(db, loaded, columns)], db, columns)
        for file, start, end, row in rows:
            where = f"table '{name}', {file}"
            facts = columns.facts(row, where)
            facts["language"] = _two_letters(facts["language"]) or tongue
            if part is not None:
                facts["labels"]["split"] = SPLITS.get(part, part)
            votes: dict[str, float] = {}
            for column in raters or ():
                if (said := row.get(column)) is not None and said == said:
                    votes[str(said)] = votes.get(str(said), 0.0) + 1.0
            audio = paths.below(file, where)
            piece = "" if not start and math.isnan(end) else f"#{start:g}-{end:g}"
            stem = PurePosixPath(audio).with_suffix("").as_posix()
            found.append(
                utterance(
                    "audformat",
                    root / audio,
                    root,
                    id=f"audformat/{stem}{piece}",
                    start=start,
                    end=end,
                    votes=votes,
                    **facts,
                )
            )
    yield from finish("audformat", _once(found), rename, SPEAKER)


def _once(found: list[Utterance]) -> list[Utterance]:
    """Keep one of several equal rows, such as those of a table and of its parts."""
    kept: dict[str, Utterance] = {}
    again: list[str] = []
    for u in found:
        first = kept.setdefault(u.id, u)
        if first is u:
            continue
        if first.label != u.label:
            raise DataError(
                f"audformat: {u.id} is labelled '{first.label}' in one table and '{u.label}' in "
                "another; name one table with options.tables=[TABLE]"
            )
        if "split" in u.labels and "split" not in first.labels:
            kept[u.id] = u
        again.append(u.id)
    if again:
        note(
            f"audformat: rows of several tables are taken once: {listing(again)}",
            fault=False,
        )
    return list(kept.values())


def package() -> Any:
    """Return the package audformat.

    Raises:
        DataError: if it is not installed.
    """
    try:
        import audformat
    except ImportError:
        raise DataError(
            "a database of audformat needs the package audformat; install it: pip install "
            "'serzoo[audformat]'"
        ) from None
    return audformat


def _open(root: Path, header: str) -> tuple[Any, dict[str, Any]]:
    """Return the database, and its tables of files and segments with their data."""
    audformat = package()
    if not root.is_dir():
        raise DataError(f"root={root} is not a folder; give the folder that holds {header}")
    path = root / header
    if not path.is_file():
        have = some([p.name for p in sorted(root.glob("*.yaml"))]) or "no YAML file"
        raise DataError(
            f"audformat: no {header} in {root}, which has {have}; name it in options.header"
        )
    try:
        content = read_yaml(path.read_text("utf-8"))
        db = audformat.Database.load_header_from_yaml(content)
    except Exception as error:  # a header can be wrong in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} is not a header of audformat ({reason}); download it again, or write it with "
            "Database.save"
        ) from None
    base = path.with_suffix("")
    for name in [*db.misc_tables, *db.tables]:
        place = base.with_name(f"{base.name}.{name}")
        if place.with_name(place.name + ".pkl").exists():
            raise DataError(
                f"{place.name}.pkl is a pickle, which could run code; remove it, and keep the "
                "table as csv or parquet (Database.save with storage_format='parquet')"
            )
        table = (db.tables if name in db.tables else db.misc_tables)[name]
        _check_header(table, place.with_name(place.name + ".csv"))
        try:
            table.load(str(place))
        except Exception as error:  # pandas and pyarrow have their own errors
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"audformat: table '{name}' cannot be read ({reason}); check {place.name}.csv or "
                ".parquet beside the header"
            ) from None
    return db, dict(db.tables)


def _check_header(table: Any, path: Path) -> None:
    """Refuse a CSV file without the columns of the header: audformat would take others."""
    if not path.is_file():
        return
    have = next(csv.reader(io.StringIO(read_text(path), newline="")), [])
    if absent := [c for c in table.columns if c not in have]:
        raise DataError(
            f"{path.name}, line 1: no column {some(absent)}, which the database's header names; it "
            f"has {some(have) or 'none'}: download it again, or save the database again"
        )


def _chosen(loaded: Mapping[str, Any], columns: Columns, tables: list[str] | None) -> list[str]:
    for name in tables or ():
        if name not in loaded:
            raise DataError(f"audformat: no table '{name}'{suggest(name, loaded)}")
    if tables:
        return tables
    label = columns.names.get("label")
    with_label = [name for name, table in loaded.items() if label in table.columns]
    return with_label or list(loaded)[:1]


def _scale(db: Any, columns: Columns) -> tuple[float, float]:
    """Return the limits of the ratings' scheme."""
    found = set()
    for field in DIMENSIONS:
        for table in db.tables.values():
            column = columns.names.get(field)
            scheme = table.columns[column].scheme if column in table.columns else None
            if scheme is not None:
                found.add((scheme.minimum, scheme.maximum))
    if not found:
        return (0.0, 1.0)
    if len(found) > 1 or None in next(iter(found)):
        raise DataError(
            f"audformat: the schemes of the ratings have the limits {sorted(map(str, found))}; "
            "give one scale: options.scale=[1,5]"
        )
    low, high = next(iter(found))
    return float(low), float(high)


def _scheme_facts(db: Any, loaded: Mapping[str, Any], columns: Columns) -> list[str]:
    """Return the fields that the labels of the speakers' scheme state."""
    scheme = _speaker_scheme(loaded, columns)
    if scheme is None or scheme.labels is None:
        return []
    if isinstance(scheme.labels, str):
        return list(db.misc_tables[scheme.labels].columns)
    if not isinstance(scheme.labels, dict):
        return []
    facts = (f for f in scheme.labels.values() if isinstance(f, dict))
    return list(dict.fromkeys(name for fact in facts for name in fact))


def _speaker_scheme(loaded: Mapping[str, Any], columns: Columns) -> Any:
    column = columns.names.get("speaker")
    for table in loaded.values():
        if column in table.columns:
            return table.columns[column].scheme
    return None


def _rows(
    loaded: Mapping[str, Any], name: str, wanted: list[str], db: Any, columns: Columns
) -> Iterator[tuple[str, float, float, dict[str, Any]]]:
    """Yield file, start, end (NaN = the file's end) and all facts of each row of a table."""
    import pandas

    index = package().utils.to_segmented_index(loaded[name].df.index)
    files = index.get_level_values("file")
    found: dict[str, list[Any]] = {}
    for column in dict.fromkeys(wanted):
        # the table itself first, then the others in their order
        for other in (loaded[name], *loaded.values()):
            if column not in other.columns:
                continue
            series = other.df[column]
            if other is loaded[name]:
                found[column] = series.tolist()
            elif other.is_filewise:
                found[column] = series[~series.index.duplicated()].reindex(files).tolist()
            elif loaded[name].is_segmented:
                found[column] = series[~series.index.duplicated()].reindex(index).tolist()
            break
    speaker = columns.names.get("speaker")
    scheme = _speaker_scheme(loaded, columns)
    for column in _scheme_facts(db, loaded, columns):
        field = next((f for f, names in USUAL.items() if column in names), None)
        if speaker not in found or column in found or field is None:
            continue
        if columns.names.get(field, column) != column:
            continue
        if isinstance(scheme.labels, str):
            facts = db.misc_tables[scheme.labels].df[column].to_dict()
        else:
            facts = {who: f.get(column) for who, f in scheme.labels.items() if isinstance(f, dict)}
        columns.names[field] = column
        found[column] = [facts.get(who) for who in found[speaker]]
    for i, (file, start, end) in enumerate(index):
        row = {c: None if _absent(v[i], pandas) else v[i] for c, v in found.items()}
        stop = math.nan if pandas.isna(end) else end.total_seconds()
        yield str(file), start.total_seconds(), stop, row


def _absent(value: Any, pandas: Any) -> bool:
    return bool(pandas.api.types.is_scalar(value) and pandas.isna(value))


def _language(db: Any) -> str | None:
    """Return the ISO 639-1 code of the database's language, if it has only one."""
    return _two_letters(db.languages[0]) if len(db.languages) == 1 else None


def _two_letters(language: str | None) -> str | None:
    """Return the ISO 639-1 code of a language; audformat writes ISO 639-3."""
    if language is None or len(language) == 2:
        return language
    import iso639

    try:
        return str(iso639.Lang(language).pt1) or language
    except iso639.exceptions.InvalidLanguageValue:
        return language


def to_audformat(
    utterances: Sequence[Utterance], folder: str | Path, *, name: str, source: str = ""
) -> Path:
    """Write an audformat database: the header, a table of files and a table of segments.

    The paths of the media stay relative to the folder of the corpus. So give this folder, or put
    the media there. Splits (``labels["split"]``) become tables of their own, as audformat has it.

    Args:
        utterances: utterances of one corpus.
        folder: where header and tables are written.
        name: name of the database.
        source: where the corpus is from.

    Returns:
        The header.

    Raises:
        DataError: if there is no utterance, or one lies inside an archive.
    """
    audformat = package()
    import pandas

    place = Path(folder)
    check_place(place / "db.yaml")
    packed = [u.id for u in utterances if inside(place / u.audio) is not None]
    if not utterances or packed:
        raise DataError(
            f"to_audformat: {len(packed)} of {len(utterances)} utterances lie inside an archive "
            f"({some(packed)}); give utterances, and write the audio of these to files first"
        )
    db = audformat.Database(name, source=source, usage=audformat.define.Usage.RESEARCH)
    spoken = sorted({u.language for u in utterances if u.language})
    db.languages = [audformat.utils.map_language(code) for code in spoken]
    whole = {u.audio for u in utterances}
    if len(whole) == len(utterances) and not any(u.start for u in utterances):
        index = audformat.filewise_index([u.audio for u in utterances])
    else:
        index = audformat.segmented_index(
            [u.audio for u in utterances],
            [pandas.Timedelta(seconds=u.start) for u in utterances],
            [pandas.Timedelta(seconds=u.end) for u in utterances],
        )
    values: dict[str, list[Any]] = {
        "emotion": [u.label for u in utterances],
        "speaker": [u.speaker for u in utterances],
        "gender": [u.gender for u in utterances],
        "session": [u.session for u in utterances],
        "text": [u.text for u in utterances],
    }
    for i, dimension in enumerate(DIMENSIONS):
        values[dimension] = [u.dims[i] if u.dims else None for u in utterances]
    for column, found in list(values.items()):
        if all(v is None for v in found):
            del values[column]
            continue
        words: Iterable[str] = sorted({str(v) for v in found if v is not None})
        if column in DIMENSIONS:
            db.schemes[column] = audformat.Scheme("float", minimum=0, maximum=1)
        elif column == "text":
            db.schemes[column] = audformat.Scheme("str")
        else:
            db.schemes[column] = audformat.Scheme(labels=list(words))
    parts = [u.labels.get("split") for u in utterances]
    for part in dict.fromkeys(parts):
        kept = [i for i, p in enumerate(parts) if p == part]
        table = "emotion" if part is None else f"emotion.{part}"
        if part is not None:
            db.splits[part] = audformat.Split(PARTS.get(part, "other"))
        db[table] = audformat.Table(index[kept], split_id=part)
        for column, found in values.items():
            db[table][column] = audformat.Column(scheme_id=column)
            db[table][column].set([found[i] for i in kept])
    db.save(str(place), storage_format="csv")
    return place / "db.yaml"
