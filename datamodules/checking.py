"""Check that a corpus reader keeps its contract: in a test of your own reader, or by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from ..zoo.core import own, registry
from ..zoo.core.errors import ContractError
from .archives import holds
from .info import CorpusInfo
from .manifest import Utterance


def check_reader(
    reader: Callable[..., Iterable[Utterance]] | str,
    root: str | Path,
    *,
    speakers: bool = True,
    **options: Any,
) -> list[Utterance]:
    """Run a reader on a folder and check every utterance; no audio is decoded.

    Args:
        reader: the function, ``FILE.py:NAME``, or a registered name.
        root: folder of the corpus; a few files of the publisher's layout are enough.
        speakers: whether every utterance must name its speaker, as speaker-disjoint folds need.
        options: keywords of the reader.

    Returns:
        The utterances.

    Raises:
        ContractError: naming every broken promise, each with the first utterance that breaks it.
        ConfigError: if there is no such reader, or it is not described.
    """
    name = own.name_for("corpora", reader)
    info, folder = CorpusInfo.load(name), Path(root)
    read = registry.get("corpora", name)
    found = list(read(folder, **options))
    broken: dict[str, str] = {}

    def check(key: str, wrong: list[str], remedy: str) -> None:
        if wrong:
            broken[key] = f"{len(wrong)} of {len(found)} (first: {wrong[0]}); {remedy}"

    check("kind", [type(u).__name__ for u in found if not isinstance(u, Utterance)],
          "yield serzoo.datamodules.manifest.Utterance")  # fmt: skip
    if not found:
        broken["kind"] = f"it yields nothing from {folder}; raise a DataError with the reason"
    if broken:
        raise _error(name, broken)
    counts = Counter(u.id for u in found)
    repeated = [i for i, n in counts.items() if n > 1]
    check("ids", repeated, "ids must be unique; add a part to them that differs")
    check(
        "corpus",
        [
            f"{u.id} of '{u.corpus}'"
            for u in found
            if u.corpus != name or not u.id.startswith(f"{name}/")
        ],
        f"set corpus='{name}', and ids such as {name}/NAME",
    )
    check("audio", [f"{u.id}: {u.audio}" for u in found if not _is_below(u.audio, folder)],
          "give a file below the root, as a relative path with forward slashes")  # fmt: skip
    unnamed = [u.id for u in found if speakers and not u.speaker]
    check("speakers", unnamed, "name the speaker, or check with speakers=False")
    unknown = [f"{u.id}: '{u.label}'" for u in found if _unknown_label(u, info)]
    check("labels", unknown, f"the label map has {', '.join(info.labels) or 'none'}; add these")
    if [u.id for u in read(folder, **options)] != [u.id for u in found]:
        broken["order"] = "a second call yields other utterances, or another order; sort the files"
    if broken:
        raise _error(name, broken)
    return found


def _is_below(audio: str, folder: Path) -> bool:
    path = PurePosixPath(audio)
    return not path.is_absolute() and ".." not in path.parts and holds(folder / path)


def _unknown_label(utterance: Utterance, info: CorpusInfo) -> bool:
    return utterance.label is not None and utterance.label not in info.labels


def _error(name: str, broken: dict[str, str]) -> ContractError:
    lines = "\n".join(f"  {key}: {message}" for key, message in broken.items())
    return ContractError(f"the reader of '{name}' breaks its contract:\n{lines}", broken)
