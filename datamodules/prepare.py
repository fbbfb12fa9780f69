"""Make a manifest of a raw corpus: its reader names the utterances, and every file is decoded.

Bad audio is refused here, counted and recorded, so that training never meets it.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..zoo.core import registry
from ..zoo.core.errors import DataError, DataNote, DataWarning, counted, tally
from ..zoo.core.files import check_place
from ..zoo.core.notices import shown, tell
from ..zoo.core.speakers import counted_speakers
from .audio import (
    LOSS,
    parse_channel,
)
from .counts import Notice, contents, count_notice, lost_labels, nothing_labelled, unknown_words
from .info import CorpusInfo
from .listening import Journal, Refusal, listen, processes_of
from .manifest import Utterance, write_lines, write_manifest
from .protocols import listed_speakers
from .walk import Spelling, as_on_disk, respelt

PREPARE_VERSION = 4
"""Prepared corpora are remembered under this number. Raise it if the same files get another
manifest, other refusals or other notes. Code that is called from here counts: finding files,
decoding, hashing. If one reader changes, raise the ``VERSION`` of that reader instead."""

NEAREST = 20  # missing files for which a similar name is looked up (our choice)


@dataclass(frozen=True)
class Prepared:
    """A prepared corpus.

    Attributes:
        corpus: registered name.
        root: folder that the utterances' ``audio`` is relative to.
        utterances: those of the manifest.
        refusals: those that are not in it.
        warnings: what people must know of the corpus.
        out: the manifest's file; None if none was written.
    """

    corpus: str
    root: Path
    utterances: list[Utterance]
    refusals: list[Refusal]
    warnings: list[Notice]
    out: Path | None = None

    @property
    def refused(self) -> dict[str, int]:
        """Refusals by reason, the most frequent first."""
        return dict(Counter(r.reason for r in self.refusals).most_common())

    @property
    def refused_list(self) -> Path | None:
        """The file that lists every refusal; None if no manifest was written."""
        return None if self.out is None else beside(self.out, ".refused.jsonl")

    def faults(self) -> str:
        """Return the number of faults, ``2 warnings and 1 refusal``; empty if there are none."""
        faults = {"warning": sum(w.fault for w in self.warnings), "refusal": len(self.refusals)}
        return " and ".join(counted(n, what) for what, n in faults.items() if n)

    def notes(self) -> dict[str, Any]:
        """Return the notes of run records: numbers of utterances and refusals, and warnings.

        Warnings that are not faults are listed under ``remarks``, which is left out without any.
        """
        remarks = [w.message for w in self.warnings if not w.fault]
        return {
            "utterances": len(self.utterances),
            "refused": self.refused,
            "warnings": [w.message for w in self.warnings if w.fault],
            **({"remarks": remarks} if remarks else {}),
        }

    def __str__(self) -> str:
        seconds = sum(u.duration for u in self.utterances)
        text = (
            f"{self.corpus}: {len(self.utterances)} utterances of "
            f"{counted_speakers(listed_speakers(self.utterances))}, {seconds / 60:.1f} min"
        )
        if self.refusals:
            text += f"; refused {len(self.refusals)} ({tally(self.refused)})"
        return text


def tell_notes(corpus: str, notes: Mapping[str, Any], refused: Path | None = None) -> None:
    """Warn of what was found when a corpus was prepared, now or by an earlier call.

    This tells every warning and remark, and each reason of refusals with its first file.

    Args:
        corpus: name of the corpus or manifest.
        notes: see :meth:`Prepared.notes`.
        refused: file that lists the refusals; None if there is none.
    """
    for fault, key in ((True, "warnings"), (False, "remarks")):
        for text in notes.get(key, ()):
            tell(text, fault=fault)
    counts: Mapping[str, int] = notes.get("refused", {})
    if not counts:
        return
    first = _first_refusals(refused)
    for reason, n in counts.items():
        r = first.get(reason)
        named = r and (r.detail if r.path in r.detail else f"{r.path}: {r.detail}").rstrip(": ")
        tell(f"{corpus}: refused {n}, {reason}" + (f" (first: {named})" if named else ""))
    if first:
        tell(f"{corpus}: all that was refused is listed in {refused}", fault=False)


def _first_refusals(path: Path | None) -> dict[str, Refusal]:
    """Return the first refusal of each reason; nothing if the file is gone or damaged."""
    found: dict[str, Refusal] = {}
    if path is not None:
        with suppress(OSError, ValueError, TypeError), path.open(encoding="utf-8") as file:
            for line in file:
                refusal = Refusal(**json.loads(line))
                found.setdefault(refusal.reason, refusal)
    return found


def prepare(
    corpus: str,
    *,
    root: str | Path,
    out: str | Path | None = None,
    options: dict[str, Any] | None = None,
    strict: bool = False,
    progress: bool = True,
    processes: int | None = 1,
) -> Prepared:
    """Read a corpus, decode every file once, and refuse all that is not usable speech.

    An utterance is refused if its file

    - is missing, unreadable, cut short or empty, or its name is not UTF-8;
    - is silent (peak below 1e-4 of full scale), not finite, out of range or shorter than 0.1 s;
    - has channels that cancel each other, or lacks the channel that was asked for;
    - ends before the utterance does.

    It is also refused if an explicit label map does not know its label. Any sample rate and number
    of channels is accepted. A file whose name differs only in case or Unicode form is taken, and
    counted.

    With ``out``, what was heard is kept beside it until the manifest is written (``NAME.heard``).
    So if the work is killed, the next call decodes only the rest.

    If the reader chooses no channel, the mean of all is used. A notice counts the recordings whose
    channels are not the same sound (:func:`.audio.mean_loss`).

    Args:
        corpus: registered name of a reader.
        root: folder that holds the corpus as its publisher distributes it.
        out: manifest to write, ``NAME.jsonl``. ``NAME.refused.jsonl`` (one refusal per line) and
            ``NAME.json`` (root and notes) are written beside it.
        options: keywords of the reader. Any reader has ``channel``: ``mean`` of all channels,
            ``first``, or a number counted from 1.
        strict: whether counts other than the published ones are an error, and not a warning.
        progress: whether to show a bar on a terminal.
        processes: 1 = this process, with threads. More are new processes; a script that calls this
            then needs ``if __name__ == "__main__"``. None = one for each core if files are many.

    Returns:
        Utterances in the reader's order, with ``end``, ``sample_rate`` and ``sha`` filled in.

    Raises:
        ConfigError: if there is no such corpus, or its reader lacks an option.
        DataError: if the reader cannot use the folder, an id occurs twice, or no utterance is left.
            With ``strict``, also if counts differ from the published ones.
    """
    root = Path(root) if Path(root).is_dir() else Path(root).expanduser()
    reader = registry.get("corpora", corpus)
    schema, own = registry.schema_of(reader), dict(options or {})
    asked = "channel" in own and "channel" not in schema  # a reader may have its own `channel`
    channel = parse_channel(own.pop("channel")) if asked else None
    knobs = {"channel": registry.Knob("channel", str | int, "mean"), **schema}
    own = registry.check_knobs(f"corpus '{corpus}'", knobs, own)
    info = CorpusInfo.load(corpus)
    if out is not None:
        check_place(Path(out))
    found, notices = read_corpus(corpus, reader, root, own)
    if asked:
        found = [replace(utterance, channel=channel) for utterance in found]
    if registry.added("corpora", corpus) is not None:
        _refuse_other_corpus(corpus, found)
    _refuse_duplicates(corpus, found)

    utterances: list[Utterance] = []
    refusals: list[Refusal] = []
    wanted = []
    found, other = as_on_disk(found, root)
    if other:
        notices.append(Notice("passed", f"{corpus}: {respelt(other)}", fault=False))
    for utterance in found:
        if shown(utterance.audio) != utterance.audio:
            names = shown(utterance.id), shown(utterance.audio)
            remedy = "rename the file, such as `convmv -f latin1 -t utf8 -r --notest .` does"
            refusals.append(Refusal(*names, "name is not UTF-8", remedy))
        elif utterance.label is not None and utterance.label not in info.labels:
            known = f"known: {', '.join(info.labels)}"
            reason = f"unknown label '{utterance.label}'"
            refusals.append(Refusal(utterance.id, utterance.audio, reason, known))
        else:
            wanted.append(utterance)
    journal = Journal(None if out is None else beside(Path(out), ".heard"), PREPARE_VERSION)
    with journal:
        if journal.known:
            tell(
                f"{corpus}: an earlier call was stopped; its results for {journal.known} files are "
                "used, and only the others are decoded",
                fault=False,
            )
        results, losses = listen(
            wanted,
            root,
            journal=journal,
            progress=progress,
            processes=processes_of(processes, len({u.audio for u in wanted})),
        )
    for result in results:
        if isinstance(result, Refusal):
            refusals.append(result)
        else:
            utterances.append(result)
    refusals = _with_nearest(refusals, Spelling(root))
    if not utterances:
        reasons = tally(dict(Counter(r.reason for r in refusals).most_common()))
        first = f" (first: {refusals[0].path}: {refusals[0].detail})" if refusals else ""
        raise DataError(
            f"{corpus}: none of {len(found)} utterances under {root} can be used"
            f"{': ' + reasons if reasons else ''}{first}{_also(notices)}"
        )
    off = count_notice(info, utterances, len(refusals))
    if off is not None:
        if strict:
            raise DataError(off.message)
        notices.append(off)
    notices += unknown_words(info, utterances)
    notices += nothing_labelled(info, utterances)
    notices += lost_labels(info, found, utterances)
    notices += contents(info, utterances)
    if not asked:
        notices += _apart(corpus, losses)
    prepared = Prepared(
        corpus, root, utterances, refusals, notices, Path(out) if out is not None else None
    )
    if prepared.out is not None:
        _write(prepared, prepared.out)
        journal.remove()
    return prepared


def read_corpus(
    corpus: str, reader: Callable[..., Iterable[Utterance]], root: Path, options: dict[str, Any]
) -> tuple[list[Utterance], list[Notice]]:
    """Return the utterances of a reader, and its warnings, each text once; no audio is decoded.

    Args:
        corpus: name of the corpus.
        reader: its reader.
        root: folder of the corpus.
        options: keywords of the reader.

    Raises:
        DataError: if the reader cannot use the folder; its warnings are part of the message.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found: list[Utterance] = []
        failed: DataError | None = None
        try:
            found += reader(root, **options)
        except DataError as error:
            failed = error
    notices: dict[str, Notice] = {}
    for warning in caught:
        if issubclass(warning.category, DataWarning):
            # run records hold these texts, which must not name the users' folders
            message = _without(root, str(warning.message))
            if not message.startswith(f"{corpus}: "):
                message = f"{corpus}: {message}"
            fault = not issubclass(warning.category, DataNote)
            notices[message] = Notice("reader" if fault else "passed", message, fault)
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if failed is not None:  # its warnings often say why
        raise DataError(f"{failed}{_also(notices.values())}") from failed
    return found, list(notices.values())


def _without(root: Path, text: str) -> str:
    """Replace the path of the root by ``root``, unless the path is a single word."""
    for path in {str(root), str(root.resolve())}:
        if len(Path(path).parts) > 1:
            text = text.replace(path, "root")
    return text


def _also(notices: Iterable[Notice]) -> str:
    """Return notices as the end of an error's message; otherwise they would be lost."""
    found = [n.message.partition(": ")[2] for n in notices]
    return f"; also: {'; '.join(found)}" if found else ""


def _refuse_other_corpus(corpus: str, found: list[Any]) -> None:
    """Refuse objects of a user's own reader that are not utterances, or of another corpus."""
    for u in found:
        if not isinstance(u, Utterance):
            raise DataError(
                f"{corpus}: its reader yields a {type(u).__name__}; yield "
                "serzoo.datamodules.manifest.Utterance"
            )
        if u.corpus != corpus:
            raise DataError(
                f"{corpus}: its reader says that {shown(u.id)} is of corpus '{u.corpus}'; a reader "
                f"called prepare is named after its file, so say corpus='{corpus}'"
            )


def _refuse_duplicates(corpus: str, found: list[Utterance]) -> None:
    counts = Counter(u.id for u in found)
    twice = [i for i, n in counts.items() if n > 1]
    if twice:
        first, second = [u.audio for u in found if u.id == twice[0]][:2]
        remedy = "remove the second copy, or point root= at one of them"
        if first == second:
            remedy = "keep one row of each recording"
        raise DataError(
            f"{corpus}: {len(twice)} ids occur more than once (first: {shown(twice[0])}, "
            f"{shown(first)} and {shown(second)}); ids must be unique: {remedy}"
        )


def _apart(corpus: str, losses: dict[str, float]) -> list[Notice]:
    """Return a notice of recordings whose averaged channels are not the same sound, if any."""
    apart = {audio: loss for audio, loss in losses.items() if loss > LOSS}
    if not apart:
        return []
    first, loss = next(iter(apart.items()))
    return [
        Notice(
            "channels",
            f"{corpus}: the channels of {len(apart)} of {len(losses)} recordings with several "
            f"channels are not the same sound (first: {first}: their mean is {loss:.1f} dB weaker "
            "than that of equal channels). They may hold two speakers of a call, or come from "
            "distant microphones. Their mean is used, which mixes the speakers or removes some "
            "frequencies. Set channel=first, channel=2 and so on to use one channel, or "
            "channel=mean to keep the mean without this warning",
        )
    ]


def _with_nearest(refusals: list[Refusal], spelling: Spelling) -> list[Refusal]:
    """Add the name that was perhaps meant to the first missing files; all would take too long."""
    first = [r.id for r in refusals if r.reason == "missing"][:NEAREST]
    return [
        replace(r, detail=r.detail + spelling.nearest(r.path)) if r.id in first else r
        for r in refusals
    ]


def _write(prepared: Prepared, out: Path) -> None:
    """Write the manifest last, so that its presence says that all three files are whole."""
    write_lines(
        beside(out, ".refused.jsonl"),
        (json.dumps(asdict(r), ensure_ascii=False) for r in prepared.refusals),
    )
    root = str(prepared.root.resolve())
    sidecar = {"root": root, "notes": prepared.notes()}
    strange = shown(root) != root  # a name that is not UTF-8 is escaped, so that JSON can hold it
    write_lines(beside(out, ".json"), [json.dumps(sidecar, indent=1, ensure_ascii=strange)])
    write_manifest(out, prepared.utterances)


def beside(manifest: Path, ending: str) -> Path:
    """Return the path of a manifest with another ending instead of ``.jsonl``."""
    base = manifest.with_suffix("") if manifest.suffix == ".jsonl" else manifest
    return base.with_name(base.name + ending)
