"""EMOVO: 6 actors, 14 sentences, 7 emotions, Italian (Costantini et al. 2014).

``f1/dis-f1-b1.wav``: emotion, speaker, sentence. Sentences are short (b), long (l), nonsense (n)
or questions (d), and the same in every emotion.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..layout import check_once
from ..manifest import Utterance
from . import find_files, left_out, nothing_found, split_names, utterance

VERSION = 1
_NAME = r"(?i)(dis|gio|pau|rab|sor|tri|neu)-([fm][123])-(b[1-3]|l[1-4]|n[1-5]|d[12])"

SENTENCES = {
    "b1": "Gli operai si alzano presto.",
    "b2": "I vigili sono muniti di pistola.",
    "b3": "La cascata fa molto rumore.",
    "l1": "L'autunno prossimo Tony partirà per la Spagna: nella prima metà di ottobre.",
    "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata.",
    "l3": "Un attimo dopo s'è incamminato... ed è inciampato.",
    "l4": "Vorrei il numero telefonico del Signor Piatti.",
    "n1": "La casa forte vuole col pane.",
    "n2": "La forza trova il passo e l'aglio rosso.",
    "n3": "Il gatto sta scorrendo nella pera.",
    "n4": "Insalata pastasciutta coscia d'agnello limoncello.",
    "n5": "Uno quarantatré dieci mille cinquantasette venti.",
    "d1": "Sabato sera cosa farà?",
    "d2": "Porti con te quella cosa?",
}


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of EMOVO, from the first channel.

    Its two microphones are at different places, so their mean is a comb filter. It loses up to
    14 dB between 0.7 and 1.5 kHz (measured). ``channel=mean`` still selects the mean.

    Args:
        root: the unpacked archive, with or without the folders per speaker.

    Raises:
        DataError: if no file has a name of the corpus, or a recording is there twice.
    """
    named, other = split_names(find_files(root), _NAME)
    if not named:
        raise nothing_found("emovo", root, "f1/dis-f1-b1.wav")
    left_out("emovo", {"not named like dis-f1-b1.wav": other})
    check_once("emovo", root, ((path.stem.lower(), path) for path, _ in named))
    for path, match in named:
        label, speaker, sentence = (group.lower() for group in match.groups())
        yield utterance(
            "emovo",
            path,
            root,
            id=f"emovo/{label}-{speaker}-{sentence}",
            speaker=speaker,
            gender="female" if speaker.startswith("f") else "male",
            language="it",
            label=label,
            text=SENTENCES[sentence],
            text_source="human",
            label_source="acted",
            channel=1,
        )
