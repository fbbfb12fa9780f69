"""Lhotse: recordings and supervisions, as jsonl or jsonl.gz; :func:`to_lhotse` writes them.

The lists are read line by line, so that a message can name the line; the package is not needed. A
recording whose source is a command is refused: nothing is run.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

from ...zoo.core.errors import DataError, some
from ...zoo.core.files import check_place, json_lines
from ..archives import inside
from ..corpora import note, utterance
from ..layout import listing
from ..listening import SLACK
from ..manifest import Utterance
from . import Columns, Given, Paths, finish, number, takes_columns

VERSION = 1
REMEDY = "write the list again (RecordingSet.to_file, SupervisionSet.to_file)"
SPEAKER = "fill in `speaker` of the supervisions"


@dataclass(frozen=True)
class _Recording:
    audio: str
    seconds: float
    channels: tuple[int, ...]


@takes_columns("field")
def prepare(
    root: Path,
    *,
    recordings: str | None = None,
    supervisions: str | None = None,
    given: Given,
    strip: str | None = None,
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    """Yield one utterance for each supervision.

    A field of a supervision may also be one of its ``custom`` fields, such as ``emotion``.

    Args:
        root: folder to which the paths of the recordings are relative.
        recordings: the list of recordings, relative to the root; by default the only
            ``*recordings*.jsonl`` or ``*recordings*.jsonl.gz`` there.
        supervisions: the list of supervisions, in the same way.
        given: the options of :func:`takes_columns`, which name label, speaker and so on.
        strip: beginning of the paths to take away.
        rename: maps a label to another one.

    Raises:
        DataError: if a list is missing or damaged, or names a command. Also if a supervision names
            a recording that is not in the list, or lies outside it. The message names the line.
    """
    first = _list(root, recordings, "recordings")
    second = _list(root, supervisions, "supervisions")
    paths, known = Paths(root, strip), {}
    for n, row in json_lines(first, remedy=REMEDY):
        where = f"{first.name}, line {n}"
        known[_text(row, "id", where)] = _recording(row, where, paths)
    rows = []
    for n, row in json_lines(second, remedy=REMEDY):
        custom = row.pop("custom", None) or {}
        rows.append((f"{second.name}, line {n}", {**custom, **row}))
    fields = (key for _, row in rows for key in row)
    columns = given.find("lhotse", fields)
    found, used = [], set()
    for where, row in rows:
        name = _text(row, "recording_id", where)
        if name not in known:
            raise DataError(
                f"{where}: recording '{name}' is not in {first.name}; give the lists of one data "
                "set (options.recordings, options.supervisions)"
            )
        used.add(name)
        found.append(_utterance(row, where, known[name], columns, root))
    if unused := [name for name in known if name not in used]:
        note(f"lhotse: recordings without a supervision: {listing(unused)}", fault=False)
    yield from finish("lhotse", found, rename, SPEAKER)


def _list(root: Path, name: str | None, kind: str) -> Path:
    if name is not None:
        if not (root / name).is_file():
            raise DataError(f"lhotse: no {name} in {root}; give options.{kind}= below the root")
        return root / name
    found = sorted(p for p in root.glob(f"*{kind}*") if p.name.endswith((".jsonl", ".jsonl.gz")))
    if len(found) != 1:
        raise DataError(
            f"lhotse: {len(found)} lists of {kind} in {root} ({some(p.name for p in found)}); name "
            f"one in options.{kind}, a jsonl or jsonl.gz file"
        )
    return found[0]


def _text(row: dict[str, Any], key: str, where: str) -> str:
    if not isinstance(row.get(key), str) or not row[key]:
        raise DataError(f"{where}: {key} is {row.get(key)!r}; {REMEDY}")
    return str(row[key])


def _recording(row: dict[str, Any], where: str, paths: Paths) -> _Recording:
    sources = row.get("sources")
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
        have = len(sources) if isinstance(sources, list) else repr(sources)
        raise DataError(
            f"{where}: sources is {have}, but one file for all channels is read; join the channels "
            "into one file"
        )
    source = sources[0]
    if source.get("type") != "file":
        what = source.get("type")
        raise DataError(
            f"{where}: the source is of type {what!r}, and only 'file' is read (a command is never "
            "run); save the recordings as files (CutSet.save_audios)"
        )
    if row.get("transforms"):
        raise DataError(
            f"{where}: the recording has transforms, which are not applied; save the changed audio "
            "as files (CutSet.save_audios)"
        )
    channels = tuple(source.get("channels") or (0,))
    seconds = number(row.get("duration"), where, "duration", nan)
    return _Recording(paths.below(source.get("source"), where), seconds, channels)


def _utterance(
    row: dict[str, Any], where: str, recording: _Recording, columns: Columns, root: Path
) -> Utterance:
    start = number(row.get("start"), where, "start", 0.0)
    seconds = number(row.get("duration"), where, "duration", nan)
    if start < 0 or seconds <= 0 or start + seconds > recording.seconds + SLACK:
        raise DataError(
            f"{where}: {start:g} s and {seconds:g} s long is outside its recording of "
            f"{recording.seconds:g} s; correct it (lhotse.fix_manifests)"
        )
    channel = row.get("channel", 0)
    channel = channel if isinstance(channel, list) else [channel]
    one = None
    if len(recording.channels) > 1 and len(channel) == 1:
        one = recording.channels.index(channel[0]) + 1 if channel[0] in recording.channels else 0
        if not one:
            raise DataError(
                f"{where}: channel is {channel[0]}, but the recording has "
                f"{list(recording.channels)}; correct it"
            )
    whole = not start and abs(seconds - recording.seconds) < 1e-6
    return utterance(
        "lhotse",
        root / recording.audio,
        root,
        id=f"lhotse/{_text(row, 'id', where)}",
        start=start,
        end=nan if whole else start + seconds,
        channel=one,
        **columns.facts(row, where),
    )


def to_lhotse(
    utterances: Sequence[Utterance], root: str | Path, folder: str | Path
) -> tuple[Path, Path]:
    """Write recordings and supervisions for Lhotse.

    Emotion, session, ratings and split become ``custom`` fields of a supervision.

    Args:
        utterances: utterances of one corpus, as :func:`.prepare.prepare` returns them.
        root: folder of the corpus; recordings get absolute paths.
        folder: where ``recordings.jsonl.gz`` and ``supervisions.jsonl.gz`` are written.

    Returns:
        The two files.

    Raises:
        DataError: if there is no utterance, one lies inside an archive, or a file is missing.
    """
    import soundfile

    base, place = Path(root).absolute(), Path(folder)
    packed = [u.id for u in utterances if inside(base / u.audio) is not None]
    if not utterances or packed:
        raise DataError(
            f"to_lhotse: {len(packed)} of {len(utterances)} utterances lie inside an archive "
            f"({some(packed)}); give utterances, and write the audio of these to files first"
        )
    first, second = place / "recordings.jsonl.gz", place / "supervisions.jsonl.gz"
    check_place(first)
    place.mkdir(parents=True, exist_ok=True)
    names: dict[str, tuple[str, int]] = {}
    with gzip.open(first, "wt", encoding="utf-8") as file:
        for audio in dict.fromkeys(u.audio for u in utterances):
            try:
                facts = soundfile.info(str(base / audio))
            except (soundfile.SoundFileError, OSError) as error:
                raise DataError(
                    f"to_lhotse: {base / audio} cannot be read ({error}); prepare the corpus first"
                ) from None
            name = audio.rpartition(".")[0] or audio
            names[audio] = name, facts.channels
            every = list(range(facts.channels))
            record = {
                "id": name,
                "sources": [{"type": "file", "channels": every, "source": str(base / audio)}],
                "sampling_rate": facts.samplerate,
                "num_samples": facts.frames,
                "duration": facts.frames / facts.samplerate,
                "channel_ids": every,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    with gzip.open(second, "wt", encoding="utf-8") as file:
        for u in utterances:
            name, channels = names[u.audio]
            every = list(range(channels))
            custom: dict[str, Any] = {"emotion": u.label, "session": u.session, **u.labels}
            if u.dims is not None:
                custom |= dict(zip(("valence", "arousal", "dominance"), u.dims, strict=True))
            record = {
                "id": u.id.partition("/")[2],
                "recording_id": name,
                "start": u.start,
                "duration": u.duration,
                "channel": u.channel - 1 if u.channel else every if channels > 1 else 0,
                "text": u.text,
                "language": u.language,
                "speaker": u.speaker,
                "gender": u.gender,
                "custom": {k: v for k, v in custom.items() if v is not None},
            }
            kept = {k: v for k, v in record.items() if v is not None and v != {}}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
    return first, second
