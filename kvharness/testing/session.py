"""A cache that grows and is compressed again and again, beside a list of positions.

The harness's own cache stores the entries; the list says which tokens they must be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from kvharness.contract import Protection, budget_of
from kvharness.model.evicted_cache import BatchCache, Kept
from kvharness.model.prefilled import Prefilled
from kvharness.policy.observation.reading import AttentionCall
from kvharness.policy.trace import LayerTrace
from kvharness.policy.view import Positions
from kvharness.testing.case import trace_of
from kvharness.testing.mistake import Mistake, expect
from kvharness.testing.reading import copied, read_as_is
from kvharness.testing.storage import stored
from kvharness.testing.strategies import Act, Append, Compress
from kvharness.testing.tensors import SCALING, LayerTensors

if TYPE_CHECKING:
    from fractions import Fraction

    from torch import Tensor

    from kvharness.policy.interface import Policy
    from kvharness.testing.reading import Reading
    from kvharness.testing.strategies import Step

#: One KV head, since all heads of a view share its positions; two query heads read it.
_HEADS, _SIZE = 2, 8
#: New tokens that fit behind a compressed context.
_ROOM = 64


class Session:
    """One policy on one growing cache.

    Args:
        policy: a fresh copy is asked each time: state is another check's subject.
        sinks: first tokens of each prompt that must stay through every compression.
        recents: last tokens that must stay at each compression.
    """

    def __init__(self, policy: Policy, *, sinks: int = 2, recents: int = 3) -> None:
        self._policy = policy
        self._contract = Protection(sinks=sinks, recents=recents)
        self._prompts = 0
        self.reset()

    def reset(self) -> None:
        """A new prompt begins with an empty cache."""
        self._prompts += 1
        self.positions: list[int] = []
        self._next = 0
        self._compressed = 0
        empty = self._token([])
        self._evict(empty.keys, empty.values, torch.ones(1, 1, 0, dtype=torch.bool))

    def take(self, step: Step) -> None:
        """Do one step of `strategies.sessions`."""
        match step:
            case Append(tokens):
                self.append(tokens)
            case Compress(retention):
                self.compress(retention)
            case Act("read"):
                self.read()
            case Act():
                self.reset()

    def append(self, tokens: int) -> None:
        """New tokens enter the cache, in parts that fit."""
        if self._cache.used + tokens > _ROOM:
            self._evict(*self._entries(), torch.ones(1, 1, len(self.positions), dtype=torch.bool))
        new = list(range(self._next, self._next + tokens))
        self._attend(new)
        self._cache.used += tokens
        self.positions += new
        self._next += tokens

    def compress(self, retention: Fraction) -> None:
        """The policy evicts; ``retention`` is of what the cache holds.

        Raises:
            Mistake: it evicts a sink or recent, keeps another number, or fails on positions
                that have gaps.
        """
        tokens = len(self.positions)
        if tokens <= self._contract.sinks:
            return
        budget = max(self._contract.sinks, budget_of(retention, tokens))
        reading = self._reading(budget, self._places())
        if reading.mask is None:
            self._blame(reading, budget)
            return
        self._evict(*self._entries(), reading.mask)
        before, self.positions = self.positions, self._kept(reading.mask)
        self._expect_protected(before, budget)
        self._compressed += 1

    def read(self) -> None:
        """A token attends to the cache: the output is that of the listed tokens, in order.

        Raises:
            Mistake: the cache holds other tokens, or reads them wrongly.
        """
        if not self.positions:
            return
        self._expect_stored()
        last = self.positions[-1]
        got, due = self._attend([last + 1]), self._softmax(last + 1)
        expect(
            torch.allclose(got, due, atol=1e-4),
            f"reading {len(self.positions)} entries after {self._compressed} compressions is wrong "
            f"by {float((got - due).abs().max()):.3g}",
        )

    def _token(self, positions: list[int]) -> LayerTensors:
        """Vectors of tokens, fixed by the prompt and the position; values begin with it."""
        rows = []
        for position in positions:
            generator = torch.Generator().manual_seed(10_000 * self._prompts + position)
            rows.append(torch.randn(_HEADS + 2, _SIZE, generator=generator))
        stack = torch.stack(rows, dim=1) if rows else torch.zeros(_HEADS + 2, 0, _SIZE)
        values = stack[-1:].clone()
        values[0, :, 0] = torch.tensor(positions, dtype=torch.float32)
        return LayerTensors(
            queries=stack[:_HEADS],
            keys=stack[_HEADS : _HEADS + 1],
            values=values,
            future=stack[:_HEADS, :, 0].abs(),
        )

    def _entries(self) -> tuple[Tensor, Tensor]:
        """Keys and values ``[1, entries, d]`` as the cache holds them."""
        ((keys, values),) = stored(self._cache, 0)
        return keys[None].clone(), values[None].clone()

    def _evict(self, keys: Tensor, values: Tensor, mask: Tensor) -> None:
        layer = LayerTrace(keys=keys, values=values, scaling=SCALING)
        context = Prefilled(layers={0: layer}, sliding={}, tokens=mask.shape[-1])
        self._cache = BatchCache(context, [Kept(mask=mask)], room=_ROOM)

    def _attend(self, positions: list[int]) -> Tensor:
        tokens, new = self._token(positions), len(positions)
        offsets = torch.arange(self._cache.used, self._cache.used + new)
        before = torch.ones(new, self._cache.used, dtype=torch.bool)
        causal = torch.ones(new, new, dtype=torch.bool).tril()
        self._cache.expect(offsets, torch.cat((before, causal), dim=1))
        call = AttentionCall(
            layer=0,
            query=tokens.queries[None],
            key=tokens.keys[None],
            value=tokens.values[None],
            scaling=SCALING,
            window=None,
        )
        return self._cache.attend(call)[0]

    def _softmax(self, position: int) -> Tensor:
        """What that token must read: the listed tokens and itself, without the cache."""
        listed, own = self._token([*self.positions, position]), self._token([position])
        logits = own.queries @ listed.keys.transpose(1, 2) * SCALING
        return logits.softmax(dim=-1) @ listed.values

    def _places(self) -> list[int]:
        """Positions as a view shows them: with gaps, unless the policy asks for compact ones."""
        compact = self._policy.positions is Positions.COMPACT
        return list(range(len(self.positions))) if compact else self.positions

    def _reading(self, budget: int, places: list[int]) -> Reading:
        needs, (keys, values) = self._policy.needs, self._entries()
        tensors = replace(self._token(self.positions), keys=keys, values=values)
        trace = trace_of([tensors], needs, positions=places)
        protection = self._contract.fit(budget)
        return read_as_is(copied(self._policy), trace, budget, protection)

    def _blame(self, reading: Reading, budget: int) -> None:
        """Fail only where gaps are the cause; other checks are about everything else."""
        count = len(self.positions)
        if self._reading(budget, list(range(count))).mask is not None:
            raise Mistake(
                f"compression {self._compressed + 1} fails: {reading.reason}; {count} cached "
                f"tokens up to position {self.positions[-1]} are left by then, so index by slot "
                f"(0 .. view.tokens - 1) and never by view.positions"
            )

    def _kept(self, mask: Tensor) -> list[int]:
        return [p for p, keep in zip(self.positions, mask[0, 0].tolist(), strict=True) if keep]

    def _expect_protected(self, before: list[int], budget: int) -> None:
        kept, fitted = self.positions, self._contract.fit(budget)
        number = self._compressed + 1
        expect(
            len(kept) == budget,
            f"compression {number} keeps {len(kept)} entries, expected {budget}",
        )
        for sink in range(fitted.sinks):
            expect(sink in kept, f"sink {sink} was lost in compression {number}")
        for recent in before[len(before) - fitted.recents :]:
            expect(recent in kept, f"recent token {recent} was lost in compression {number}")

    def _expect_stored(self) -> None:
        ((_, values),) = stored(self._cache, 0)
        held = [round(number) for number in values[:, 0].tolist()]
        expect(
            held == self.positions,
            f"after {self._compressed} compressions the cache holds tokens {held}, expected "
            f"{self.positions}",
        )
