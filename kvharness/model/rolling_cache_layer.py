"""One layer of caches that grow and are cut back, several cells side by side."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from kvharness.policy.observation.base import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLayer:
    """One layer of all cells; ``R`` rows are (cell, KV head) pairs with ``m`` entries each.

    Attributes:
        keys, values: ``[R, m, d]``, in the order of the text.
        seen: keys as the tokens read last saw them: moved to their places where these are compact.
        positions: int64 ``[R, m]``, in the text.
        rotated: int64 ``[R, m]``, the positions that the keys were made for.
        observed: ``[R, G, ...]``, what grows with the cache.
        window: of a sliding layer, which nobody evicts from.
    """

    keys: Tensor
    values: Tensor
    seen: Tensor
    positions: Tensor
    rotated: Tensor
    scaling: float
    observed: Mapping[Observation[Any], Tensor] = field(default_factory=dict)
    window: int | None = None

    @property
    def entries(self) -> int:
        return int(self.keys.shape[1])

    def take(self, index: Tensor) -> HeldLayer:
        """The entries ``index`` int64 ``[R, k]`` of each row; what was observed stays as it is."""
        rows, kept = index.shape
        # Whole entries are copied, which a gather over all their numbers would not do.
        flat = (torch.arange(rows, device=index.device)[:, None] * self.entries + index).flatten()

        def taken(each: Tensor) -> Tensor:
            return each.flatten(0, 1).index_select(0, flat).view(rows, kept, -1)

        keys = taken(self.keys)
        return replace(
            self,
            keys=keys,
            values=taken(self.values),
            seen=keys,
            positions=self.positions.gather(1, index),
            rotated=self.rotated.gather(1, index),
        )


def side_by_side(cells: Sequence[HeldLayer]) -> HeldLayer:
    """One layer of several cells that hold equally many entries."""

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(cell, name) for cell in cells])

    # An observation may have failed for one of them.
    shared = [each for each in cells[0].observed if all(each in cell.observed for cell in cells)]
    return replace(
        cells[0],
        keys=joined("keys"),
        values=joined("values"),
        seen=joined("seen"),
        positions=joined("positions"),
        rotated=joined("rotated"),
        observed={each: torch.cat([cell.observed[each] for cell in cells]) for each in shared},
    )


def visible(layer: HeldLayer, new: int) -> Tensor | None:
    """Bool ``[new, m]``, what each new token sees; None where a single one sees all."""
    if new == 1 and layer.window is None:
        return None
    # Of the entries before the new tokens only those of sliding layers are ever out of sight,
    # and these hold the same tokens in all rows.
    places = layer.positions[0]
    distance = places[-new:, None] - places
    visible = distance >= 0
    return visible if layer.window is None else visible & (distance < layer.window)


def within(layer: HeldLayer) -> HeldLayer:
    """A sliding layer without what no later token will see."""
    assert layer.window is not None  # noqa: S101 - the caller asked
    last = min(layer.entries, layer.window)
    index = torch.arange(layer.entries - last, layer.entries, device=layer.keys.device)
    return layer.take(index.expand(len(layer.keys), -1))
