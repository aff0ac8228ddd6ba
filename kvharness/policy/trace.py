"""What one prefill yields."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch

from kvharness.policy.seeds import generator
from kvharness.policy.view import Needs, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from kvharness.policy.probe import Probe, Probed


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTrace:
    """One compressed layer: shapes as in `View`."""

    keys: Tensor
    values: Tensor
    scaling: float
    queries: Tensor | None = None
    column_sums: Tensor | None = None
    future: Tensor | None = None
    similarity: float | None = None
    hidden_states: Tensor | None = None
    probes: Mapping[Probe, tuple[Probed, ...]] | None = None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name."""
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, torch.Tensor):
                yield part.name, value
        for probe, parts in (self.probes or {}).items():
            for each in parts:
                yield f"probes[{probe}].queries", each.queries
                yield f"probes[{probe}].keys", each.keys

    def moved(self, device: str) -> LayerTrace:
        """The layer with every tensor on a device."""
        here = {
            part.name: getattr(self, part.name).to(device)
            for part in fields(self)
            if isinstance(getattr(self, part.name), torch.Tensor)
        }
        probes = self.probes and {
            probe: tuple(
                replace(each, queries=each.queries.to(device), keys=each.keys.to(device))
                for each in parts
            )
            for probe, parts in self.probes.items()
        }
        return replace(self, **here, probes=probes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The compressible layers of one prefilled context.

    ``rng_words`` (seed, item, policy) fix the generators of the views; `for_policy` sets them
    and hides what the policy did not ask for.
    """

    layers: tuple[LayerTrace, ...]
    positions: Tensor
    needs: Needs
    rng_words: tuple[str, ...] = ()
    boundaries: Tensor | None = None

    @property
    def tokens(self) -> int:
        return int(self.positions.shape[0])

    @property
    def kv_heads(self) -> int:
        return int(self.layers[0].keys.shape[0])

    @property
    def views(self) -> list[View]:
        return [self._view(index) for index in range(len(self.layers))]

    def for_policy(self, needs: Needs, rng_words: Sequence[str]) -> Trace:
        return replace(self, needs=needs, rng_words=tuple(rng_words))

    def with_future(self, future: Sequence[Tensor]) -> Trace:
        """The same trace knowing ``future`` (`View.future`), a tensor for each layer."""
        pairs = zip(self.layers, future, strict=True)
        return replace(self, layers=tuple(replace(layer, future=f) for layer, f in pairs))

    def _view(self, index: int) -> View:
        layer, needs = self.layers[index], self.needs
        queries = layer.queries if needs.queries else None
        return View(
            layer=index,
            keys=layer.keys,
            values=layer.values,
            positions=self.positions,
            scaling=layer.scaling,
            rng=generator(*self.rng_words, str(index)),
            queries=None if queries is None else queries[:, -needs.queries :],
            column_sums=layer.column_sums if needs.column_sums else None,
            future=layer.future if needs.future else None,
            similarity=layer.similarity if needs.hidden_similarity else None,
            boundaries=self.boundaries if needs.boundaries else None,
            probes=_shown(layer.probes or {}, needs.probes) if needs.probes else None,
            hidden_states=layer.hidden_states if needs.hidden_states else None,
        )


def _shown(
    probes: Mapping[Probe, tuple[Probed, ...]], wanted: frozenset[Probe]
) -> dict[Probe, tuple[Probed, ...]]:
    return {probe: parts for probe, parts in probes.items() if probe in wanted}
