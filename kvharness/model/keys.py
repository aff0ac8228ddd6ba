"""Where a model puts the keys of the same tokens, read from one position on and from another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvharness.model.attention import PrefillReader, reading

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

#: Not the first ids, which are control tokens: their hidden states are so large that the last
#: layer's keys come out 0.17 apart in bfloat16.
_IDS = tuple(range(16, 32))


def read_at(model: PreTrainedModel, start: int) -> PrefillReader:
    """A few fixed tokens, of which the first stands at position ``start``."""
    reader = PrefillReader()
    places = torch.arange(start, start + len(_IDS), device=model.device)[None]
    ids = torch.tensor([_IDS], device=model.device)
    with torch.no_grad(), reading(reader):
        model.get_decoder()(input_ids=ids, position_ids=places, use_cache=False)
    return reader


def keys_at(model: PreTrainedModel, start: int) -> list[Tensor]:
    """Keys ``[K, t, d]`` of the same ``t`` tokens in each layer that is compressed, in order.

    With another ``start`` they are the same tokens elsewhere: where a layer's positions are rotary,
    its keys are turned by the difference, and else they are equal.

    Args:
        model: observed, as `LoadedModel.module` is.
        start: position of the first token.
    """
    layers = read_at(model, start).layers
    return [layers[index].keys for index in sorted(layers)]
