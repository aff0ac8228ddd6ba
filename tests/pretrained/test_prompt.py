from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvharness.pretrained.prompt import Encoder, PromptTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: "<|" not in text)
SYSTEM = (
    "<|im_start|>system\nBe brief.<|im_end|>\n{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


def _other(
    tokenizer: PreTrainedTokenizerFast, template: str | None, *, bos: bool = False
) -> Encoder:
    """The encoder of a tokenizer with another chat template, or none."""
    other = deepcopy(tokenizer)
    other.chat_template = template
    if bos:
        other.bos_token = "<|im_start|>"  # noqa: S105 - a token of text
    return Encoder(other)


@pytest.fixture(scope="module")
def base(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return _other(tokenizer, None)


def _rendered(encoder: Encoder, content: str) -> str:
    message = [{"role": "user", "content": content}]
    rendered = encoder.tokenizer.apply_chat_template(
        message, tokenize=False, add_generation_prompt=True
    )
    return str(rendered)


@given(TEXTS, TEXTS)
def test_the_pieces_are_the_rendered_chat(encoder: Encoder, context: str, question: str) -> None:
    template = encoder.template
    content = f"{context}{template.separator}{question}"
    assert f"{template.head}{content}{template.turn}" == _rendered(encoder, content)


def test_the_pieces_as_tokens_read_as_the_rendered_chat(encoder: Encoder) -> None:
    context, question = "The mill is red.", "What colour is the mill?"
    ids = (
        *encoder.head,
        *encoder.ids(context),
        *encoder.question(question),
        *encoder.tail(""),
    )
    assert encoder.text(ids) == _rendered(encoder, f"{context}\n\n{question}")


def test_a_template_may_speak_first_and_trim(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = _other(tokenizer, SYSTEM)
    template = encoder.template
    assert template.head.startswith("<|im_start|>system\nBe brief.")
    content = f"Some text.{template.separator}A question?"
    assert f"{template.head}{content}{template.turn}" == _rendered(encoder, content)


def test_special_tokens_of_the_template_are_single_ids(encoder: Encoder) -> None:
    start, end = map(encoder.tokenizer.convert_tokens_to_ids, ("<|im_start|>", "<|im_end|>"))
    assert encoder.head[0] == start
    assert encoder.tail("")[0] == end
    assert start in encoder.tail("The code is")


def test_a_base_model_is_asked_in_plain_text(base: Encoder) -> None:
    assert base.template == PromptTemplate(head="", separator="\n\nQuestion: ", turn="\nAnswer:")
    assert base.head == ()
    assert base.text(base.question("Why?")) == "\n\nQuestion: Why?"
    assert base.text(base.tail("")) == "\nAnswer:"
    assert base.text(base.tail("The code is")) == "\nAnswer: The code is"


def test_a_base_model_begins_with_its_first_token(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = _other(tokenizer, None, bos=True)
    assert encoder.head == (encoder.tokenizer.bos_token_id,)


def test_a_chat_model_has_its_first_token_from_the_template(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    bos = _other(tokenizer, tokenizer.chat_template, bos=True)
    assert bos.head == Encoder(tokenizer).head
    assert bos.head.count(bos.head[0]) == 1


def test_a_question_stands_after_the_separator(encoder: Encoder) -> None:
    assert encoder.question("Why?") == encoder.ids("\n\nWhy?")


def test_a_reply_follows_the_turn(encoder: Encoder) -> None:
    assert encoder.text(encoder.tail("The code is")) == (
        "<|im_end|>\n<|im_start|>assistant\nThe code is"
    )
    assert encoder.tail("") == encoder.ids(encoder.template.turn)


def test_a_reply_is_set_apart_from_a_turn_without_a_space(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tight = _other(tokenizer, "{{ messages[0]['content'] }}[reply]")
    spaced = _other(tokenizer, "{{ messages[0]['content'] }}[reply] ")
    assert tight.text(tight.tail("It is")) == "[reply] It is"
    assert spaced.text(spaced.tail("It is")) == "[reply] It is"


@given(TEXTS)
def test_text_comes_back_from_its_ids(encoder: Encoder, text: str) -> None:
    assert encoder.text(encoder.ids(text)) == text


def test_the_digest_is_that_of_all_parts(encoder: Encoder, base: Encoder) -> None:
    template = encoder.template
    parts = [{"head": "x"}, {"separator": "x"}, {"turn": "x"}]
    digests = {replace(template, **part).digest for part in parts}
    assert len({*digests, template.digest, base.template.digest}) == 5
    assert template.digest == PromptTemplate.of(encoder.tokenizer).digest
