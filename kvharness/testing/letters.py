"""Text for models that have no tokenizer: probes may be made of it."""

from __future__ import annotations

from kvharness.pretrained.prompt import Encoder, PromptTemplate

#: Ids of the tiny models.
VOCABULARY = 97


class Letters(Encoder):
    """A token for each byte; ids say nothing but which bytes are equal."""

    def __init__(self) -> None:
        self.template = PromptTemplate(head="", separator="\n", turn="\n")

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(byte % VOCABULARY for byte in text.encode())

    def text(self, ids: tuple[int, ...]) -> str:
        """One id in ten ends a sentence."""
        return "".join(". " if each % 10 == 0 else "a" for each in ids)


LETTERS = Letters()
