"""Hypothesis strategies for everything that a policy meets; keyword arguments only.

Tensors come from a drawn seed: that is fast, and shrinks to few tokens and simple sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from hypothesis import strategies as st

from kvharness.contract import Contract, Protection, QuestionMode, budget_of
from kvharness.testing.case import DTYPES, Case
from kvharness.testing.tensors import Shape, Texture

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

    from kvharness.policy.observation.base import Observations
    from kvharness.policy.trace import Trace

#: Query heads and KV heads: MHA, MQA, GQA.
HEADS = ((1, 1), (2, 1), (3, 1), (4, 2), (6, 2), (4, 4))
#: Longer than the default windows of the first-party policies.
MOST_TOKENS = 48
#: Past windows of 64 and two blocks of 128. Only one context in so many is longer than
#: `MOST_TOKENS`: they cost most of the time, and what is wrong in short ones shows better there.
LONGEST, _LONG_EVERY = 400, 16


def lengths(*, most_tokens: int = LONGEST) -> SearchStrategy[int]:
    """Tokens of a context: one in two is tiny, one in sixteen long."""
    usual = st.integers(1, min(6, most_tokens)) | st.integers(1, min(MOST_TOKENS, most_tokens))
    if most_tokens <= MOST_TOKENS:
        return usual
    long = st.integers(MOST_TOKENS + 1, most_tokens)
    return st.integers(1, _LONG_EVERY).flatmap(lambda n: long if n == _LONG_EVERY else usual)


def shapes(*, most_tokens: int = LONGEST) -> SearchStrategy[Shape]:
    """Shapes of 1 to 3 layers, and `lengths` of at most ``most_tokens``."""
    return st.builds(
        lambda layers, heads, tokens, size: Shape(
            layers=layers, heads=heads[0], kv_heads=heads[1], tokens=tokens, size=size
        ),
        layers=st.integers(1, 3),
        heads=st.sampled_from(HEADS),
        tokens=lengths(most_tokens=most_tokens),
        size=st.sampled_from((4, 8)),
    )


def textures() -> SearchStrategy[Texture]:
    """Plain numbers, attention sinks, ties, NaN-prone magnitudes, zeros."""
    return st.sampled_from(Texture)


def dtypes() -> SearchStrategy[str]:
    """``float32``, ``bfloat16`` or ``float16``."""
    return st.sampled_from(sorted(DTYPES, reverse=True)).map(str)


def retentions() -> SearchStrategy[Fraction]:
    """Exact fractions in (0, 1], those of the default run among them."""
    usual = st.sampled_from([Fraction(part) for part in ("1", "1/2", "1/4", "3/4", "1/10")])
    return usual | st.builds(Fraction, st.integers(1, 50), st.just(50))


def protections() -> SearchStrategy[Protection]:
    """Up to 5 sinks and 8 recents; `Protection.fit` makes them fit a budget."""
    return st.builds(Protection, sinks=st.integers(0, 5), recents=st.integers(0, 8))


def contracts(*, most_tokens: int = MOST_TOKENS) -> SearchStrategy[Contract]:
    """Contracts with any protection and both places of the question."""
    return st.builds(
        Contract,
        context=st.integers(1, most_tokens),
        protection=protections(),
        question=st.sampled_from(QuestionMode),
    )


# Made once: to make and validate a strategy takes longer than to draw from it.
_SHAPES, _RETENTIONS, _DTYPES, _TEXTURES = shapes(), retentions(), dtypes(), textures()
_SINKS, _RECENTS, _SEEDS = st.integers(0, 5), st.integers(0, 8), st.integers(0, 999)


@st.composite
def cases(
    draw: DrawFn,
    *,
    shape: SearchStrategy[Shape] | None = None,
    texture: SearchStrategy[Texture] | None = None,
    dtype: SearchStrategy[str] | None = None,
) -> Case:
    """A context with a contract and a budget that holds its sinks.

    Args:
        draw: Hypothesis gives it.
        shape: instead of `shapes`.
        texture: instead of `textures`.
        dtype: instead of `dtypes`.
    """
    drawn = draw(_SHAPES if shape is None else shape)
    budget = budget_of(draw(_RETENTIONS), drawn.tokens)
    return Case(
        shape=drawn,
        budget=budget,
        sinks=min(draw(_SINKS), budget),
        recents=draw(_RECENTS),
        dtype=draw(_DTYPES if dtype is None else dtype),
        texture=draw(_TEXTURES if texture is None else texture),
        seed=draw(_SEEDS),
    )


def traces(*, needs: Observations = frozenset()) -> SearchStrategy[Trace]:
    """Traces as a policy with these needs sees them."""
    return cases().map(lambda case: case.trace(needs))


@dataclass(frozen=True, slots=True)
class Append:
    """New tokens enter the cache."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Compress:
    """The policy evicts; ``retention`` is of what the cache holds now."""

    retention: Fraction


@dataclass(frozen=True, slots=True)
class Act:
    """``read``: attend to the cache; ``reset``: a new prompt begins."""

    kind: Literal["read", "reset"]


Step = Append | Compress | Act


def appends() -> SearchStrategy[Append]:
    """1 to 8 new tokens."""
    return st.builds(Append, st.integers(1, 8))


def compressions() -> SearchStrategy[Compress]:
    """Compression at any retention."""
    return st.builds(Compress, retentions())


def steps() -> SearchStrategy[Step]:
    """One thing that happens to a cache; reads and resets are rarer."""
    acts = st.sampled_from((Act("read"), Act("reset")))
    return appends() | compressions() | appends() | compressions() | acts


def sessions(*, most_steps: int = 8) -> SearchStrategy[list[Step]]:
    """Up to so many steps after a first prompt of 12 tokens, compressed at once."""
    first: list[Step] = [Append(12), Compress(Fraction(1, 2))]
    return st.lists(steps(), min_size=1, max_size=most_steps).map(lambda more: first + more)


def larger_budgets(case: Case) -> SearchStrategy[Case]:
    """The same case with a budget at least as large."""
    return st.integers(case.budget, case.shape.tokens).map(case.with_budget)


def other_prompts(case: Case) -> SearchStrategy[Case]:
    """Another context of the same kind: of the same length, or of any that holds the sinks."""
    same, least = case.shape.tokens, max(1, case.sinks)
    tokens = st.just(max(same, least)) | st.integers(least, MOST_TOKENS)

    def resized(tokens: int, seed: int) -> Case:
        shape = replace(case.shape, tokens=tokens)
        return replace(case, shape=shape, budget=max(case.sinks, tokens // 2), seed=seed)

    return st.builds(resized, tokens=tokens, seed=st.integers(1000, 1999))
