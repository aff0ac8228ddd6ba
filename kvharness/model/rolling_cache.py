"""A cache that grows by what is read and is cut back again: several cells side by side.

All cells hold equally many entries in every layer and head, so that a batch needs no padding.
Every change makes new tensors, so that a copy is a fork.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

from kvharness.model.growing import Growing
from kvharness.model.rolling_cache_layer import HeldLayer, side_by_side, visible, within
from kvharness.policy.trace import LayerTrace, Trace
from kvharness.policy.view import Positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kvharness.model.prefilled import Prefilled
    from kvharness.model.rotary import Rotation
    from kvharness.model.watch import Guard
    from kvharness.policy.observation.base import Observations
    from kvharness.policy.observation.reading import AttentionCall


#: Of a layer, what has an entry for each token.
_ENTRIES = ("keys", "values", "seen", "positions", "rotated")


class HeldCache:
    """The caches of ``cells`` cells over one text; a reader of attention calls.

    Args:
        cells: how many.
        needs: of what their policies ask for, together, that which grows.
        kind: where entries sit, the same for all cells.
        rotation: needed for compact positions.
        whole: the full context, for what was observed of it.
        guard: entered around the code of an observation.

    Attributes:
        growing: what policies see between evictions.
    """

    def __init__(
        self,
        cells: int,
        *,
        needs: Observations,
        kind: Positions = Positions.ORIGINAL,
        rotation: Rotation | None = None,
        whole: Prefilled | None = None,
        guard: Guard = nullcontext,
    ) -> None:
        self.cells = cells
        self.tokens = 0
        self.growing = Growing(needs, whole, guard)
        self._kind = kind
        self._rotation = rotation
        #: Whether the next token was observed before.
        self._again = False
        self._announced = False
        self._layers: dict[int, HeldLayer] = {}

    def hold(self, context: Prefilled, masks: Sequence[Tensor]) -> None:
        """Start from a prefilled context, of which each cell keeps a mask ``[layers, K, n]``."""
        self.tokens = context.tokens
        for number, (name, layer) in enumerate(sorted(context.layers.items())):
            whole = self._of_context(layer)
            index = [mask[number].nonzero()[:, 1].view(len(mask[0]), -1) for mask in masks]
            taken = [self._taken(whole, each.to(layer.keys.device)) for each in index]
            self._layers[name] = side_by_side(taken)
        for name, sliding in context.sliding.items():
            # Only compressed layers are asked for their scaling before the next token is read.
            bare = LayerTrace(keys=sliding.keys, values=sliding.values, scaling=0.0)
            whole = self._of_context(bare, first=context.tokens - sliding.keys.shape[1])
            self._layers[name] = side_by_side([replace(whole, window=sliding.window)] * self.cells)

    def take_back_last(self) -> None:
        """Take the last token out, which is to be read once more, and leave what is seen of it."""
        self.tokens -= 1
        self._again = True
        for name, layer in self._layers.items():
            parts = {part: getattr(layer, part)[:, :-1] for part in _ENTRIES}
            self._layers[name] = replace(layer, **parts)

    def _of_context(self, layer: LayerTrace, *, first: int = 0) -> HeldLayer:
        """All of a context, for one cell."""
        heads, tokens, _ = layer.keys.shape
        positions = torch.arange(first, first + tokens, device=layer.keys.device).expand(heads, -1)
        return HeldLayer(
            keys=layer.keys,
            values=layer.values,
            seen=layer.keys,
            positions=positions,
            rotated=positions,
            scaling=layer.scaling,
            observed=self.growing.of_context(layer),
        )

    def fork(self) -> HeldCache:
        """The same cache, to go on from twice."""
        other = HeldCache(self.cells, needs=frozenset(), kind=self._kind, rotation=self._rotation)
        other.growing = self.growing.fork()
        other.tokens = self.tokens
        other._again, other._announced = self._again, self._announced
        other._layers = dict(self._layers)
        return other

    def by_name(self) -> dict[int, HeldLayer]:
        """Layers by their index in the model, in its order."""
        return dict(sorted(self._layers.items()))

    @property
    def layers(self) -> list[HeldLayer]:
        """Those that are compressed, in the order of the model."""
        return [layer for layer in self.by_name().values() if layer.window is None]

    def of_cell(self, layer: HeldLayer, cell: int) -> HeldLayer:
        """The rows of one cell."""
        heads = len(layer.keys) // self.cells
        rows = slice(cell * heads, (cell + 1) * heads)
        return replace(
            layer,
            keys=layer.keys[rows],
            values=layer.values[rows],
            seen=layer.seen[rows],
            positions=layer.positions[rows],
            rotated=layer.rotated[rows],
            observed={each: value[rows] for each, value in layer.observed.items()},
        )

    @property
    def entries(self) -> int:
        """Held by each head of the first layer, 0 before anything was read."""
        return self.layers[0].entries if self._layers else 0

    def counts(self) -> tuple[int, int]:
        """Fewest and most entries that any head holds, as they are stored."""
        counts = [layer.entries for layer in self.layers]
        return min(counts), max(counts)

    def cell_bytes(self) -> int:
        """Bytes of one cell's keys and values, as they are stored."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers) // self.cells

    def expect(self, new: int) -> Tensor:
        """Announce so many new tokens; their position ids, int64 ``[new]``."""
        first = self.tokens if self._kind is Positions.ORIGINAL else self.entries
        self.tokens += new
        self._again = self._again and not self._announced
        self._announced = True
        return torch.arange(first, first + new)

    # -- reading ------------------------------------------------------------------------------

    def attend(self, call: AttentionCall) -> Tensor:
        batch, heads, new, size = call.query.shape
        kv_heads = call.key.shape[1]
        query = call.query.reshape(batch * kv_heads, -1, new, size)
        layer = self._grown(call, call.key.flatten(0, 1), call.value.flatten(0, 1))
        mask = visible(layer, new)
        if layer.window is not None:
            self._layers[call.layer] = within(layer)
        elif self._again:
            self._layers[call.layer] = layer
        else:
            observed = self.growing.grown(call.layer, layer, query, mask)
            self._layers[call.layer] = replace(layer, observed=observed)
        out = scaled_dot_product_attention(
            query.flatten(1, 2)[:, None],
            layer.seen[:, None],
            layer.values[:, None],
            attn_mask=None if mask is None else _additive(mask, query),
            scale=call.scaling,
        )
        return out[:, 0].view(batch, heads, new, -1)

    def _grown(self, call: AttentionCall, keys: Tensor, values: Tensor) -> HeldLayer:
        rows, new, _ = keys.shape
        before = self._layers.get(call.layer)
        text = torch.arange(self.tokens - new, self.tokens, device=keys.device).expand(rows, -1)
        held = 0 if before is None else before.entries
        slots = torch.arange(held, held + new, device=keys.device).expand(rows, -1)
        added = HeldLayer(
            keys=keys,
            values=values,
            seen=keys,
            positions=text,
            rotated=text if self._kind is Positions.ORIGINAL else slots,
            scaling=call.scaling,
            window=call.window,
        )
        if before is None:
            return added
        grown = replace(
            added,
            keys=torch.cat((before.keys, keys), dim=1),
            values=torch.cat((before.values, values), dim=1),
            positions=torch.cat((before.positions, added.positions), dim=1),
            rotated=torch.cat((before.rotated, added.rotated), dim=1),
            observed=before.observed,
        )
        return replace(grown, seen=self._moved(grown))

    def _moved(self, layer: HeldLayer) -> Tensor:
        """Keys as they are read: always moved from where they were made, so errors never add up."""
        if self._rotation is None or self._kind is Positions.ORIGINAL:
            return layer.keys
        slots = torch.arange(layer.entries, device=layer.keys.device)
        return self._rotation.move(layer.keys, slots - layer.rotated)

    # -- evicting -----------------------------------------------------------------------------

    def trace(self, cell: int) -> Trace:
        """What one cell holds, as a policy sees it; positions count places in the cache."""
        layers = [self.of_cell(layer, cell) for layer in self.layers]
        return Trace(
            layers=tuple(
                LayerTrace(
                    keys=layer.seen,
                    values=layer.values,
                    scaling=layer.scaling,
                    observed={each: value.flatten(0, 1) for each, value in layer.observed.items()},
                )
                for layer in layers
            ),
            positions=torch.arange(layers[0].entries, device=layers[0].keys.device),
        )

    def positions(self, cell: int) -> list[Tensor]:
        """Where the entries of a cell stand in the text: int64 ``[K, m]`` for each layer."""
        return [self.of_cell(layer, cell).positions for layer in self.layers]

    def keep(self, masks: Sequence[Tensor]) -> None:
        """Evict all but bool ``[layers, K, m]`` of each cell; equally many in every row."""
        stack = torch.stack(list(masks), dim=1)
        compressed = {n: layer for n, layer in self.by_name().items() if layer.window is None}
        for (name, layer), rows in zip(compressed.items(), stack.flatten(1, 2), strict=True):
            index = rows.nonzero()[:, 1].view(len(rows), -1)
            self._layers[name] = self._taken(layer, index.to(layer.keys.device))

    def _taken(self, layer: HeldLayer, index: Tensor) -> HeldLayer:
        observed = self.growing.evicted(layer.observed, index)
        return replace(layer.take(index), observed=observed)


def _additive(mask: Tensor, query: Tensor) -> Tensor:
    added = torch.zeros(mask.shape, dtype=query.dtype, device=query.device)
    return added.masked_fill_(~mask, float("-inf")).repeat(query.shape[1], 1)
