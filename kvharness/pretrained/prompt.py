"""How a context, a question and a reply become one prompt, in pieces that the cache can split."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\u241ekvharness\u241e"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    """The fixed text around context and question.

    The prompt is ``head + context + separator + question + turn + answer prefix``; the cache
    is compressed after the context (question unseen) or after the question (seen).
    """

    head: str
    separator: str
    turn: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
        """The tokenizer's chat template, or plain text for a base model."""
        if not tokenizer.chat_template:
            return cls(head="", separator="\n\nQuestion: ", turn="\nAnswer:")
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}], tokenize=False, add_generation_prompt=True
        )
        head, _, turn = str(rendered).partition(_MARK)
        return cls(head=head, separator="\n\n", turn=turn)

    @property
    def digest(self) -> str:
        text = f"{self.head}\x1f{self.separator}\x1f{self.turn}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Encoder:
    """A tokenizer without special tokens of its own, with the prompt template it implies."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.template = PromptTemplate.of(tokenizer)

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: tuple[int, ...]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    @property
    def head(self) -> tuple[int, ...]:
        """Ids before the context; a base model's beginning-of-sequence token counts."""
        start = self.tokenizer.bos_token_id
        ids = self.ids(self.template.head)
        if self.template.head or start is None:
            return ids
        return (start, *ids)

    def question(self, text: str) -> tuple[int, ...]:
        return self.ids(f"{self.template.separator}{text}")

    def tail(self, answer_prefix: str) -> tuple[int, ...]:
        """Ids from the end of the question to the answer.

        ``answer_prefix`` opens the reply and ends before the space that the answer begins with.
        """
        turn = self.template.turn
        joint = (
            f"{turn}{answer_prefix}" if turn.endswith(("\n", " ")) else f"{turn} {answer_prefix}"
        )
        return self.ids(joint if answer_prefix else turn)
