"""The speech language model: audio as a part of a chat with an instruction-tuned model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..zoo.core.errors import ConfigError, DataError
from ..zoo.core.head import Head
from ..zoo.core.registry import Count, Dropout, Positive, Size
from ..zoo.core.taxonomy import Taxonomy
from ..zoo.core.types import Frames, HeadLoss, Targets
from .selm.answers import Answers, Writer, expected_nll
from .selm.head import PRETRAINED_LR, RELATIVE_LR, Decoding
from .selm.language import SCRATCH, LanguageModel, Tuning
from .selm.mappers import AudioMapper, Reduction
from .selm.spelling import ByteTokenizer, PretrainedTokenizer, Tokenizer

BLANK = "{}"
CLASSES = "{classes}"
AUDIO = "\N{OBJECT REPLACEMENT CHARACTER}"  # marks the place of the audio in the text of a chat
PLAIN = "User: {}\nAssistant: "
"""The template of the model from scratch, which has none of its own."""
SAID = 'The speaker says: "{}". '
TRANSCRIPT_TOKENS = 64  # a longer transcript is cut; our choice


class SpeechLLMHead(Head):
    """Asks a chat model for the emotion, with the utterance as a part of the user's message.

    The message holds the audio prefix of SELM's mapper, the transcript if it is wanted, and an
    instruction. The model's own chat template surrounds it. The answer is a class name and the
    end of the model's turn::

        <user> [audio prefix] The speaker says: "...". Which emotion ...? <assistant> happy <end>

    The loss is the negative log-likelihood of the answer, as in :class:`.selm.head.SELMHead`. A
    published model gets LoRA adapters; the mapper is trained. This is the common recipe of speech
    language models, such as SALMONN (arXiv 2310.13289); sizes and wording are our choice.

    Utterances whose transcripts have equally many tokens are read together, so nothing is padded.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes.
        lm: ``scratch`` (a small GPT-2 over bytes), a hub id, or a folder.
        lm_revision: commit, tag or branch of a hub id; None = its main branch.
        lm_tuning: ``frozen``, ``lora``, ``full``, or ``auto``: lora if the weights are published,
            full otherwise.
        lm_seed: seed of random weights that are not trained.
        lm_width, lm_layers: size of the model from scratch.
        lora_rank, lora_alpha: rank of the adapters; their updates are scaled by alpha over rank.
        reduction: how frames become a prefix (:class:`.selm.mappers.AudioMapper`).
        prefix: length of the audio prefix.
        mapper_layers: transformer layers of the mapper.
        dropout: dropout rate in the mapper, and in the model from scratch.
        instruction: what the user asks; ``{classes}`` becomes the class names in alphabetical
            order, so that their order gives nothing away.
        transcript: whether the message holds the transcript.
        template: a chat with ``{}`` for the message, instead of the model's own chat template.
        decoding: ``rank`` scores all classes; ``generate`` searches for a text, as SELM's does.
        beams: beams of the search; 1 = greedy.
        constrained: the search writes only class names.
        length_normalised: divide scores by the number of tokens.

    Raises:
        ConfigError: if the model cannot be loaded or has no chat template, or an option is out of
            its range. Also if two classes have the same spelling.
    """

    open_labels: ClassVar[bool] = True
    sizes: ClassVar[Mapping[str, int]] = {"lm_width": 32, "prefix": 1}

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        lm: str = SCRATCH,
        lm_revision: str | None = None,
        lm_tuning: Tuning = "auto",
        lm_seed: Count = 0,
        lm_width: int = 128,
        lm_layers: Count = 1,
        lora_rank: Size = 8,
        lora_alpha: Positive = 16.0,
        reduction: Reduction = "queries",
        prefix: int = 8,
        mapper_layers: Count = 0,
        dropout: Dropout = 0.0,
        instruction: str = "Which emotion does the speaker feel?",
        transcript: bool = False,
        template: str | None = None,
        decoding: Decoding = "rank",
        beams: int = 1,
        constrained: bool = False,
        length_normalised: bool = False,
    ) -> None:
        super().__init__(dim, taxonomy)
        for name, value in (("prefix", prefix), ("beams", beams)):
            if value < 1:
                raise ConfigError(f"{name}={value}; give 1 or more")
        if template is not None and template.count(BLANK) != 1:
            raise ConfigError(
                f"template={template!r}; give a chat with one {BLANK} at the place of the message"
            )
        if lm_tuning == "auto":
            lm_tuning = "full" if lm == SCRATCH else "lora"
        self.language = LanguageModel(
            lm, revision=lm_revision, tuning=lm_tuning, width=lm_width, layers=lm_layers,
            dropout=dropout, seed=lm_seed, rank=lora_rank, alpha=lora_alpha,
        )  # fmt: skip
        self.chat = Chat(self.language.tokenizer, template, lm)
        self.language.tokenizer = self.chat.answers
        self.instruction, self.transcript = instruction, transcript
        self.decoding, self.length_normalised = decoding, length_normalised
        searching = decoding == "generate"
        self.writer = Writer(beams, constrained, length_normalised) if searching else Writer()
        size = self.language.model.get_input_embeddings().weight.detach().square().mean().sqrt()
        self.audio_mapper = AudioMapper(
            dim, self.language.width, prefix, mapper_layers, dropout, float(size), reduction
        )
        if transcript:
            self.needs = frozenset({"text"})  # type: ignore[misc]  # depends on an option
        self._answers(taxonomy)  # fail now if two classes have the same spelling

    @classmethod
    def trains_on(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return ``{"text"}`` if the message holds the transcript."""
        return frozenset({"text"} if options.get("transcript") else ())

    def asked(self, taxonomy: Taxonomy) -> str:
        """Return the instruction for these classes."""
        return self.instruction.replace(CLASSES, ", ".join(sorted(taxonomy.forms)))

    def _answers(self, taxonomy: Taxonomy) -> Answers:
        _, after = self.chat.around(self.asked(taxonomy))
        return Answers(self.language.spell(after, taxonomy.forms), list(range(len(taxonomy))))

    def _groups(
        self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None
    ) -> list[tuple[list[int], Tensor]]:
        """Return utterances whose contexts have one length, with these contexts ``[n, P, W]``."""
        audio = self.audio_mapper(frames)
        said: list[str] | None = None
        if self.transcript:
            if text is None:
                raise DataError(
                    "transcript=true needs transcripts, and this batch has none; give batches with "
                    "text, or set head.transcript=false"
                )
            said = text
        chats = [
            self.chat.ids(self.asked(taxonomy), None if said is None else said[row])
            for row in range(len(audio))
        ]
        rows: dict[int, list[int]] = {}
        for row, (_, following) in enumerate(chats):
            rows.setdefault(len(following), []).append(row)
        groups = []
        for members in rows.values():
            around = [
                self.language.embed(
                    torch.tensor([chats[i][side] for i in members]).to(audio.device)
                )
                for side in (0, 1)
            ]
            first, last = (part.to(audio.dtype) for part in around)
            groups.append((members, torch.cat([first, audio[members], last], 1)))
        return groups

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        answers = self._answers(self.taxonomy)
        nll = torch.zeros(len(targets.probs), device=targets.probs.device)
        per_token = torch.zeros_like(nll)
        for members, context in self._groups(frames, self.taxonomy, text):
            rows = torch.tensor(members, device=nll.device)
            # every group must reach every parameter, because any may be the only one
            each, per = expected_nll(self.language, context, answers, targets.probs[rows], True)
            nll, per_token = nll.index_add(0, rows, each), per_token.index_add(0, rows, per)
        return HeadLoss(targets.average(nll), {"nll_per_token": targets.average(per_token)})

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        answers = self._answers(taxonomy)

        def score(context: Tensor) -> Tensor:
            if self.decoding == "generate":
                return self.writer.scores(self.language, context, answers, taxonomy.class_said)
            log_p = self.language.rank(context, [(None, answers.spelt)])[0]
            return log_p / answers.counts(log_p.device) if self.length_normalised else log_p

        groups = self._groups(frames, taxonomy, text)
        return _in_order([m for m, _ in groups], [score(context) for _, context in groups])

    @property
    def writes(self) -> bool:
        return not self.transcript

    def write(self, frames: Frames) -> list[str] | None:
        """Return what the model answers: by its search, or freely if it ranks.

        None if the message holds a transcript, because there is none here.
        """
        if self.transcript:
            return None
        ((_, context),) = self._groups(frames, self.taxonomy, None)
        texts = self.writer.texts(self.language, context, self._answers(self.taxonomy))
        return [self.language.tokenizer.text(list(found[0].ids)) for found in texts]

    def add_utterance(self, width: int) -> None:
        """Give the utterance's vector one more position in the audio prefix."""
        self.audio_mapper.read_utterance(width)

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Accept new classes by name: this adds no weights, but each name needs its own tokens."""
        self._answers(taxonomy)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return groups as SELM's: at ``0.3 lr``, or ``0.03 lr`` for full published weights."""
        slow = {id(p) for p in self.language.parameters()} if self.language.slow else set()
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = (
            ([p for p in trained if id(p) not in slow], RELATIVE_LR),
            ([p for p in trained if id(p) in slow], PRETRAINED_LR),
        )
        return [{"params": params, "lr": lr * scale} for params, scale in groups if params]

    @property
    def reads_frames(self) -> bool:
        return self.audio_mapper.reads_frames

    def frozen_roots(self) -> dict[str, nn.Module]:
        return {f"language.{name}": part for name, part in self.language.frozen_parts().items()}


def _in_order(groups: list[list[int]], values: list[Tensor]) -> Tensor:
    """Return the rows of all groups, in the order of the batch."""
    order = [row for members in groups for row in members]
    found = torch.cat(values)
    back = torch.argsort(torch.tensor(order, device=found.device))
    return found[back].float()


class Chat:
    """The text around the audio, by a chat template.

    Args:
        tokenizer: tokenizer of the language model.
        template: a chat with ``{}`` for the message; None = the model's own chat template.
        name: name of the language model, for errors.

    Attributes:
        answers: the tokenizer that spells an answer directly after the chat.

    Raises:
        ConfigError: if a published model has no chat template, and none is given.
    """

    def __init__(self, tokenizer: Tokenizer, template: str | None, name: str) -> None:
        self.answers: Tokenizer = tokenizer
        self._own: Callable[..., str] | None = None
        self.template = template or PLAIN
        if isinstance(tokenizer, PretrainedTokenizer):
            self.answers = AfterChat(tokenizer.tokenizer, name)
            if template is None:
                if not tokenizer.tokenizer.chat_template:
                    raise ConfigError(
                        f"lm '{name}' has no chat template, which an instruction-tuned model has; "
                        f"give one as head.template={PLAIN!r}, or choose another head.lm"
                    )
                self._own = tokenizer.tokenizer.apply_chat_template

    def around(self, instruction: str, said: str | None = None) -> tuple[str, str]:
        """Return the text before and after the audio, up to the place of the answer.

        Args:
            instruction: what the user asks.
            said: the transcript; None = the message has none.
        """
        spoken = "" if said is None else SAID.replace(BLANK, self._cut(said))
        message = f"{AUDIO} {spoken}{instruction}"
        if self._own is None:
            whole = self.template.replace(BLANK, message)
        else:
            turns = [{"role": "user", "content": message}]
            whole = self._own(turns, tokenize=False, add_generation_prompt=True)
        before, _, after = whole.partition(AUDIO)
        return before, after

    def ids(self, instruction: str, said: str | None = None) -> tuple[list[int], list[int]]:
        """Return the token ids of :meth:`around`."""
        before, after = self.around(instruction, said)
        return self._spelt(before), self._spelt(after)

    def _cut(self, said: str) -> str:
        # a transcript must not end the message or move the audio
        plain = said.replace("<|", "< |").replace(AUDIO, "")
        ids = self._spelt(plain)[:TRANSCRIPT_TOKENS]
        return self.answers.text(ids) if len(ids) == TRANSCRIPT_TOKENS else plain.strip()

    def _spelt(self, text: str) -> list[int]:
        if isinstance(self.answers, ByteTokenizer):
            return list(text.encode())
        return self.answers.prompt(text)


class AfterChat(PretrainedTokenizer):
    """Spells an answer directly after a text, without the space that a sentence has there."""

    def label(self, prompt: str, label: str) -> list[int]:
        """Return the ids that ``prompt + label`` has beyond those of the prompt.

        Raises:
            ConfigError: if the tokenizer cannot spell it.
        """
        before, whole = self.prompt(prompt), self.prompt(prompt + label)
        ids = whole[len(before) :] if whole[: len(before)] == before else self.prompt(label)
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown != self.end and unknown in ids:
            raise ConfigError(
                f"lm '{self.name}' cannot spell the label '{label}'; rename the class, or use an "
                "lm whose tokenizer falls back on bytes"
            )
        return ids
