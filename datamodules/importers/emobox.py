"""EmoBox: the jsonl lists of its 32 corpora, with their folds (Ma et al. 2024).

``data/cafe/cafe.jsonl`` lists all utterances. ``data/cafe/fold_1/cafe_train_fold_1.jsonl`` and
``cafe_test_fold_1.jsonl`` are a fold; some corpora have a ``valid`` list, too. Paths begin at the
folder that holds ``downloads``. The lists name no speakers, so a pattern has to find them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...zoo.core.errors import ConfigError, DataError, some
from ...zoo.core.files import json_lines, read_json
from ..corpora import note, utterance
from ..corpora.folder import group_of
from ..manifest import Utterance
from ..protocols import held_out_speakers, unit_of
from . import Paths, finish, number

VERSION = 1
REMEDY = "download the list again from github.com/emo-box/EmoBox"
SPEAKER = "give options.speaker='(...)', a pattern with a group, searched in key and path"


def prepare(
    root: Path,
    *,
    dataset: str,
    lists: str = "data",
    fold: int | None = None,
    speaker: str | None = None,
    valid: float = 0.2,
    language: str | None = None,
    label_map: bool = True,
    strip: str | None = None,
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    """Yield the utterances of one corpus of EmoBox.

    With ``fold``, ``labels["split"]`` says the part of each utterance, for the protocol
    ``emobox-official``. If the lists have no validation part, a share of the training speakers is
    held out. EmoBox itself draws a share of the utterances. If a speaker is in training and test,
    a warning says that this fold is speaker-dependent.

    Args:
        root: folder to which the paths of the lists are relative; it holds ``downloads``.
        dataset: name of the corpus, such as ``cafe``.
        lists: folder of the lists, relative to the root.
        fold: number of the fold, from 1; None = all utterances, without a split.
        speaker: regular expression with one group, searched in ``key``, then in the path.
        valid: share of the training speakers for validation, if there is no such list.
        language: ISO 639-1 code of all utterances.
        label_map: whether labels become those of ``label_map.json`` beside the lists.
        strip: beginning of the paths to take away.
        rename: maps a label to another one.

    Raises:
        DataError: if a list is missing or damaged, or a path leads out of the root.
        ConfigError: if ``speaker`` is not a regular expression with one group, or ``valid`` not a
            share.
    """
    pattern = group_of(speaker)
    if not 0 < valid < 1:
        raise ConfigError(f"valid={valid}; give a share between 0 and 1, such as 0.2")
    folder = root / lists / dataset
    if not folder.is_dir():
        have = sorted(p.name for p in (root / lists).glob("*") if p.is_dir())
        raise DataError(
            f"emobox: no folder {lists}/{dataset} under {root} ({lists} holds "
            f"{some(have) or 'nothing'}); give options.dataset, and options.lists="
        )
    words = _label_map(folder) if label_map else {}
    paths, found = Paths(root, strip), []
    for part, file in _files(folder, dataset, fold):
        for line, row in json_lines(file, remedy=REMEDY):
            u = _utterance(row, f"{file.name}, line {line}", paths, pattern, language, words)
            found.append(replace(u, labels={"split": part}) if part else u)
    if fold is not None:
        found = _with_valid(found, valid)
        _tell_sharing(dataset, fold, found)
    yield from finish("emobox", found, rename, SPEAKER)


def _files(folder: Path, dataset: str, fold: int | None) -> list[tuple[str, Path]]:
    if fold is None:
        whole = folder / f"{dataset}.jsonl"
        if not whole.is_file():
            raise DataError(f"emobox: no {whole.name} in {folder}; {REMEDY}")
        return [("", whole)]
    place = folder / f"fold_{fold}"
    named = {p: place / f"{dataset}_{p}_fold_{fold}.jsonl" for p in ("train", "valid", "test")}
    absent = [p.name for part, p in named.items() if part != "valid" and not p.is_file()]
    if absent:
        have = sorted(p.name for p in folder.glob("fold_*"))
        raise DataError(
            f"emobox: no {', '.join(absent)} in {place} (folds: {some(have) or 'none'}); give one "
            "of these folds, or download the lists again"
        )
    return [(part, path) for part, path in named.items() if path.is_file()]


def _label_map(folder: Path) -> dict[str, str]:
    path = folder / "label_map.json"
    return (
        {}
        if not path.is_file()
        else {str(k): str(v) for k, v in read_json(path, remedy=REMEDY).items()}
    )


def _utterance(
    row: dict[str, Any],
    where: str,
    paths: Paths,
    pattern: re.Pattern[str] | None,
    language: str | None,
    words: dict[str, str],
) -> Utterance:
    absent = [key for key in ("key", "wav", "emo") if not isinstance(row.get(key), str)]
    if absent:
        raise DataError(f"{where}: lacks {', '.join(absent)}; {REMEDY}")
    if row.get("type", "raw") != "raw":
        raise DataError(
            f"{where}: type is {row['type']!r}, but only 'raw' audio is read; use the list of the "
            "recordings"
        )
    audio = paths.below(row["wav"], where)
    said = pattern and (pattern.search(row["key"]) or pattern.search(row["wav"]))
    start = number(row.get("start_time"), where, "start_time", 0.0)
    return utterance(
        "emobox",
        paths.root / audio,
        paths.root,
        id=f"emobox/{row['key']}",
        start=start,
        end=number(row.get("end_time"), where, "end_time", float("nan")),
        speaker=said[1] if said else None,
        language=language,
        label=words.get(row["emo"], row["emo"]),
    )


def _with_valid(found: list[Utterance], share: float) -> list[Utterance]:
    """Hold out a share of the training speakers, if the lists have no validation part."""
    if any(u.labels["split"] == "valid" for u in found):
        return found
    training = [u for u in found if u.labels["split"] == "train"]
    held = held_out_speakers(training, share)
    ids = {u.id for u in training if unit_of(u) in held}
    note(
        f"emobox: the lists have no validation part; {len(ids)} of {len(training)} training "
        "utterances become it, by speaker if speakers are known",
        fault=False,
    )
    return [replace(u, labels={"split": "valid"}) if u.id in ids else u for u in found]


def _tell_sharing(dataset: str, fold: int, found: list[Utterance]) -> None:
    by_part = {
        part: {u.speaker for u in found if u.speaker and u.labels["split"] == part}
        for part in ("train", "valid", "test")
    }
    learned = by_part["train"] | by_part["valid"]
    if shared := sorted(learned & by_part["test"]):
        note(
            f"emobox: fold {fold} of {dataset} is speaker-dependent: {len(shared)} speakers of the "
            f"test part also train ({some(shared)}); protocol=emobox-official runs it and says "
            "so, protocol=kfold keeps speakers apart"
        )
