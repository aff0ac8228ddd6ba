"""What one prefill yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from kvharness.policy.seeds import generator
from kvharness.policy.view import View

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from kvharness.policy.observation.base import Observation, Observations


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTrace:
    """One compressed layer: shapes as in `View`."""

    keys: Tensor
    values: Tensor
    scaling: float
    observed: Mapping[Observation[Any], Any] = field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name, those inside what was observed included."""
        yield "keys", self.keys
        yield "values", self.values
        for observation, value in self.observed.items():
            yield from _inside(f"[{observation}]", value)

    def moved(self, device: str) -> LayerTrace:
        """The layer with every tensor on a device."""
        return replace(
            self,
            keys=self.keys.to(device),
            values=self.values.to(device),
            observed={each: _moved(value, device) for each, value in self.observed.items()},
        )

    def narrowed(self, needs: Observations) -> LayerTrace:
        """The layer without what nobody declared."""
        observed = {each: value for each, value in self.observed.items() if each in needs}
        return replace(self, observed=observed)


def _inside(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    """The tensors of what an observation found: in dataclasses, mappings, lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif is_dataclass(value):
        for part in fields(value):
            yield from _inside(f"{name}.{part.name}", getattr(value, part.name))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _inside(f"{name}[{key!r}]", each)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _inside(f"{name}[{index}]", each)


def _moved(value: Any, device: str) -> Any:
    """The same with its tensors on a device; sequences become tuples."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: _moved(getattr(value, part.name), device) for part in fields(value)}
        return replace(value, **parts)
    if isinstance(value, Mapping):
        return {key: _moved(each, device) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_moved(each, device) for each in value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The compressible layers of one prefilled context.

    ``rng_words`` (seed, item, policy) fix the generators of the views; `for_policy` sets them
    and leaves out what the policy did not ask for.
    """

    layers: tuple[LayerTrace, ...]
    positions: Tensor
    rng_words: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        return int(self.positions.shape[0])

    @property
    def kv_heads(self) -> int:
        return int(self.layers[0].keys.shape[0])

    @property
    def views(self) -> list[View]:
        return [self._view(index) for index in range(len(self.layers))]

    def for_policy(self, needs: Observations, rng_words: Sequence[str]) -> Trace:
        layers = tuple(layer.narrowed(needs) for layer in self.layers)
        return replace(self, layers=layers, rng_words=tuple(rng_words))

    def _view(self, index: int) -> View:
        layer = self.layers[index]
        return View(
            layer=index,
            keys=layer.keys,
            values=layer.values,
            positions=self.positions,
            scaling=layer.scaling,
            rng=generator(*self.rng_words, str(index)),
            observed=layer.observed,
        )
