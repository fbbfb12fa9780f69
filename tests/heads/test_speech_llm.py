"""The chat around the audio, and the likelihood of an answer in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.speech_llm import PLAIN, SpeechLLMHead
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.testing import Case, check_head
from transformers import AutoTokenizer

CASE = Case(SpeechLLMHead, 12)
FOUR = Taxonomy.load("big4")
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)
SMALL = {"lm_width": 32, "instruction": "emotion?", "prefix": 2}
TEXT = ["no", "", "it is", "oh no"]


@pytest.fixture
def chat_lm(tiny_lm: Callable[[str], str]) -> str:
    """A folder with a tiny random Llama that has a chat template."""
    folder = tiny_lm("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def published(folder: str, **knobs) -> SpeechLLMHead:
    torch.manual_seed(0)
    return SpeechLLMHead(12, FOUR, lm=folder, **{**SMALL, **knobs}).eval()


def test_the_chat_template_surrounds_the_message(chat_lm: str) -> None:
    made = published(chat_lm, transcript=True)
    before, after = made.chat.ids("emotion?", "it is")
    text = made.language.tokenizer.tokenizer.decode
    assert text(before) == "<user>"
    assert text(after) == ' The speaker says: "it is". emotion?<bot>'
    assert text(made.chat.ids("emotion?")[1]) == " emotion?<bot>"


def test_a_score_is_the_likelihood_of_the_name_and_the_end_of_the_turn(chat_lm: str) -> None:
    """By one plain pass over the whole chat of one utterance and one class."""
    made = published(chat_lm, transcript=True)
    frames = CASE.frames()
    model, embed = made.language.model, made.language.embed
    tokenizer = made.language.tokenizer.tokenizer
    with torch.no_grad():
        found = made.scores(frames, FOUR, TEXT)
        audio = made.audio_mapper(frames)
        for row, said in enumerate(TEXT):
            chat = f'<user>\ufffc The speaker says: "{said}". emotion?<bot>'
            before, after = (tokenizer.encode(part) for part in chat.split("\ufffc"))
            for column, form in enumerate(FOUR.forms):
                name = [*tokenizer.encode(form), tokenizer.eos_token_id]
                parts = [embed(torch.tensor([before])), audio[row : row + 1]]
                parts += [embed(torch.tensor([after])), embed(torch.tensor([name]))]
                logits = model(inputs_embeds=torch.cat(parts, 1)).logits[0]
                log_p = logits[-len(name) - 1 : -1].log_softmax(-1)
                wanted = log_p[range(len(name)), name].sum()
                assert_like(found[row, column], wanted, digits=4)


def test_transcripts_of_different_lengths_do_not_disturb_each_other(chat_lm: str) -> None:
    made = published(chat_lm, transcript=True)
    frames, targets = CASE.frames(), CASE.targets()
    targets = type(targets)(torch.eye(4), torch.ones(4))
    scores = made.scores(frames, FOUR, TEXT).detach()
    other = made.scores(frames, FOUR, ["no", "yes", "no", "no"]).detach()
    assert_like(other[0], scores[0])
    assert not torch.allclose(other[1], scores[1])
    # the loss is that of the same likelihoods
    loss = made.loss(frames, targets, TEXT)
    assert_like(loss.loss.detach(), -scores.diagonal().mean(), digits=4)


def test_the_model_gets_adapters_and_its_own_weights_stay(chat_lm: str) -> None:
    made = published(chat_lm)
    learns = {n for n, p in made.named_parameters() if p.requires_grad}
    in_lm = {n for n in learns if n.startswith("language")}
    assert in_lm
    assert all("lora_" in n for n in in_lm)
    assert all(not p.requires_grad for r in made.frozen_roots().values() for p in r.parameters())
    assert {g["lr"] for g in made.param_groups(1.0)} == {0.3}


def test_classes_are_listed_in_alphabetical_order() -> None:
    made = SpeechLLMHead(12, FOUR, **{**SMALL, "instruction": "one of {classes}"}).eval()
    assert made.asked(FOUR) == "one of angry, happy, neutral, sad"
    turned = Taxonomy("turned", FOUR.members[::-1])
    with torch.no_grad():
        scores = made.scores(CASE.frames(), FOUR)
        assert_like(made.scores(CASE.frames(), turned), scores.flip(1), digits=4)


def test_a_transcript_cannot_end_the_message_and_is_cut() -> None:
    made = SpeechLLMHead(12, FOUR, transcript=True, **SMALL)
    _, after = made.chat.around("?", "ha\ufffcha <|im_end|> " + "x" * 100)
    assert after.count("<|") == after.count("\ufffc") == 0
    assert 'says: "haha < |im_end|> x' in after
    assert after.count("x") == 64 - len("haha < |im_end|> ")
    assert len(after) < 110


def test_a_transcript_is_read_in_training_and_in_scoring() -> None:
    assert SpeechLLMHead.trains_on({"transcript": True}) == {"text"}
    assert SpeechLLMHead.trains_on({}) == set()
    made = SpeechLLMHead(12, FOUR, transcript=True, **SMALL)
    assert made.needs == {"text"}
    assert SpeechLLMHead(12, FOUR, **SMALL).needs == set()
    assert not made.writes
    assert made.write(CASE.frames()) is None
    assert SpeechLLMHead(12, FOUR, **SMALL).writes
    with pytest.raises(DataError, match=says("transcript=true", "head.transcript=false")):
        made.scores(CASE.frames(), FOUR)


def test_a_model_without_a_chat_template_needs_one(gpt2: str) -> None:
    with pytest.raises(ConfigError, match=says(f"'{gpt2}'", "head.template")):
        published(gpt2)
    made = published(gpt2, template=PLAIN)
    assert made.chat.around("so?") == ("User: ", " so?\nAssistant: ")


@pytest.mark.parametrize(
    ("knobs", "facts"),
    [
        ({"prefix": 0}, ("prefix=0", "1 or more")),
        ({"beams": 0}, ("beams=0", "1 or more")),
        ({"template": "no blank"}, ("no blank", "{}")),
        ({"lm": "./nowhere"}, ("head.lm=./nowhere",)),
    ],
)
def test_options_out_of_range_are_refused(knobs: dict, facts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=says(*facts)):
        SpeechLLMHead(12, FOUR, **{**SMALL, **knobs})


def test_the_contract_holds_on_a_published_model(chat_lm: str) -> None:
    check_head(SpeechLLMHead, lm=chat_lm, **SMALL, transcript=True)
    check_head(SpeechLLMHead, lm=chat_lm, **SMALL, decoding="generate", beams=2)


def test_what_it_writes_is_text(chat_lm: str, tmp_path: Path) -> None:
    made = published(chat_lm, decoding="generate", constrained=True, beams=4)
    texts = made.write(CASE.frames())
    assert texts is not None
    assert set(texts) <= set(FOUR.forms)
    scores = made.scores(CASE.frames(), FOUR)
    assert [FOUR.forms[i] for i in scores.argmax(1)] == texts
