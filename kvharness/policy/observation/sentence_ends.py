"""Where sentences and records end in a context: what belongs together ends there."""

from __future__ import annotations

import re
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kvharness.pretrained.prompt import Encoder

#: A full stop with what closes after it, before a space; or the end of a line.
_END = re.compile(r"""[.!?]["')\]]*(?=\s|$)|\n""")


def boundaries(encoder: Encoder, ids: Sequence[int]) -> Tensor:
    """The last token of every sentence, line and record: bool ``[n]``.

    Read from the text of the tokens alone, so abbreviations end sentences too. A token that holds
    an end belongs to what it ends, with whatever follows inside it.
    """
    pieces = _pieces(encoder, ids)
    ends = list(accumulate(len(piece) for piece in pieces))
    marked = torch.zeros(len(pieces), dtype=torch.bool)
    places = [match.end() for match in _END.finditer("".join(pieces))]
    index = torch.searchsorted(torch.tensor(ends), torch.tensor(places, dtype=torch.int64))
    marked[index] = True
    return marked


def _pieces(encoder: Encoder, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text of the one before: alone, some lose their space."""

    @cache
    def added(before: tuple[int, ...], token: int) -> str:
        return encoder.text((*before, token))[len(encoder.text(before)) :]

    return [added(tuple(ids[max(0, i - 1) : i]), token) for i, token in enumerate(ids)]
