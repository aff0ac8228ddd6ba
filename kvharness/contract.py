"""What is held fixed while policies are compared, and the arithmetic of budgets."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from kvharness.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

_RETENTION = re.compile(r"\d+(\.\d+)?|\.\d+|\d+[/_]\d+", re.ASCII)
_LONGEST_RETENTION = 24
#: Tokens of a block when the context is read in blocks, as in the papers that do.
BLOCK = 128


class QuestionMode(StrEnum):
    """How much of the prompt after the context is in the cache when the cache is compressed.

    UNSEEN: nothing. SEEN: the question. PROMPT: all of it, up to the answer; its last token is then
    read once more, from the compressed cache.
    """

    UNSEEN = "unseen"
    SEEN = "seen"
    PROMPT = "prompt"


class EvictMode(StrEnum):
    """When eviction happens: once, after each new token too, or between blocks of the context."""

    PREFILL = "prefill"
    DECODE = "decode"
    BLOCKS = "blocks"


class Anchor(StrEnum):
    """Policies that every table carries: ceiling, ground and positive control."""

    FULL = "full"
    FLOOR = "floor"
    ORACLE = "oracle"


#: Anchors whose budget does not depend on the retention: one cell per seed.
FIXED_ANCHORS = (Anchor.FULL, Anchor.FLOOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """First (``sinks``) and last (``recents``) cached tokens that stay whatever the scores."""

    sinks: int = 4
    recents: int = 16

    @property
    def total(self) -> int:
        return self.sinks + self.recents

    def fit(self, budget: int) -> Protection:
        """Shrink to ``budget`` entries a head: recents give way before sinks.

        Raises:
            UsageProblem: the budget cannot hold the sinks.
        """
        if budget < self.sinks:
            msg = (
                f"a budget of {budget} entries a head cannot hold the {self.sinks} sinks; "
                f"raise --retention or --kv-context, or lower --kv-sinks"
            )
            raise UsageProblem(msg)
        return Protection(sinks=self.sinks, recents=min(self.recents, budget - self.sinks))

    def extend(self, extra: Protection, budget: int) -> Protection:
        """Add a policy's own protection; where ``budget`` is short, the policy's part shrinks."""
        sinks = max(self.sinks, min(extra.sinks, budget - self.recents))
        recents = max(self.recents, min(extra.recents, budget - sinks))
        return Protection(sinks=sinks, recents=recents)


#: Settings of the contract that every key and header has. One that came later is not in the key
#: while it has its default, so that its coming makes no record stale.
FIRST = ("context", "sinks", "recents", "question", "evict")
#: Settings of the contract that are parts of its protection.
_PROTECTED = ("sinks", "recents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Everything that must be equal for two cells to be comparable.

    ``context`` is the number of tokens in the cache before the question, template head
    included: the ``n`` of every budget when the question is unseen. ``others`` has the settings of
    the contract, by name, that have no attribute of their own.
    """

    context: int = 1024
    protection: Protection = Protection()
    question: QuestionMode = QuestionMode.UNSEEN
    evict: EvictMode = EvictMode.PREFILL
    others: tuple[tuple[str, object], ...] = ()

    @property
    def least(self) -> int:
        """Entries a head that a budget needs: the sinks, and a prompt's last token."""
        return max(1, self.protection.sinks + (self.question is QuestionMode.PROMPT))

    def ground(self, after: int) -> Protection:
        """What `Anchor.FLOOR` keeps, if so many of the compressed tokens come after the context."""
        if self.question is not QuestionMode.PROMPT:
            return self.protection
        return replace(self.protection, recents=max(1, after, self.protection.recents))

    def protected(self, budget: int) -> Protection:
        """What every policy keeps of a budget: in the prompt layout the last token at least.

        Raises:
            UsageProblem: the budget cannot hold it.
        """
        if self.question is not QuestionMode.PROMPT:
            return self.protection.fit(budget)
        found = replace(self.protection, recents=max(1, self.protection.recents)).fit(budget)
        if not found.recents:
            raise UsageProblem(
                f"a budget of {budget} entries a head cannot hold the {found.sinks} sinks and the "
                f"last token of the prompt; raise --retention or --kv-context, or lower --kv-sinks"
            )
        return found

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Contract:
        """From the value of each setting of the contract, by name."""
        protection = Protection(sinks=values["sinks"], recents=values["recents"])
        rest = {name: value for name, value in values.items() if name not in _PROTECTED}
        own = {name: rest.pop(name) for name in cls.__slots__ if name in rest}
        return cls(protection=protection, others=tuple(rest.items()), **own)

    def as_dict(self) -> dict[str, object]:
        """By the names of the settings: numbers and switches as they are, all else as text."""
        found: dict[str, object] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, Protection):
                found |= {part: getattr(value, part) for part in _PROTECTED}
            else:
                found |= dict(value) if name == "others" else {name: value}
        return {name: each if isinstance(each, int) else str(each) for name, each in found.items()}


def parse_retention(text: str) -> Fraction:
    """Read "0.1" or "1/10", or "1_10" as in test ids, as the exact fraction 1/10.

    Raises:
        UsageProblem: not a number, or outside (0, 1].
    """
    given = text.strip()
    problem = f"--retention {given[:40]!r}: expected a fraction in (0, 1] such as 0.25 or 1/4"
    if len(given) > _LONGEST_RETENTION or not _RETENTION.fullmatch(given):
        raise UsageProblem(problem)
    try:
        value = retention_from_text(given)
    except ZeroDivisionError:
        raise UsageProblem(problem) from None
    if not 0 < value <= 1:
        raise UsageProblem(problem)
    return value


def retention_text(retention: Fraction) -> str:
    """The shortest exact text: "0.25" where the decimal ends, "1_3" (safe in ids) where not."""
    rest, twos, fives = retention.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{retention.numerator}_{retention.denominator}"
    places = max(twos, fives)
    digits = str(retention.numerator * 10**places // retention.denominator).zfill(places + 1)
    return digits if places == 0 else f"{digits[:-places]}.{digits[-places:]}"


def retention_from_text(text: str) -> Fraction:
    """The inverse of `retention_text`."""
    return Fraction(text.replace("_", "/"))


def budget_of(retention: Fraction, tokens: int) -> int:
    """Entries kept per KV head: ``floor(retention * tokens + 1/2)``, in integers."""
    twice = 2 * retention.numerator * tokens + retention.denominator
    return twice // (2 * retention.denominator)
