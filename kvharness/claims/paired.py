"""Paired differences of two columns, one for each unit that both have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.inference.estimate import Sample
from kvharness.inference.method import Method

if TYPE_CHECKING:
    from collections.abc import Mapping


def paired(
    policy: Mapping[str, float],
    baseline: Mapping[str, float],
    *,
    method: Method = Method.AUTO,
    seed: int = 0,
) -> Sample:
    """Policy minus baseline, in the order of the units' names.

    Here it is known what the differences are of: where both sides are nothing but right and wrong
    (1 and 0), AUTO is the exact method, and everywhere else Student's t. Differences that are all
    zero do not tell.

    Raises:
        ValueError: no unit is shared, or the method does not take these differences.
    """
    shared = sorted(policy.keys() & baseline.keys())
    if method is Method.AUTO:
        numbers = [side[unit] for side in (policy, baseline) for unit in shared]
        method = Method.EXACT if all(number in {0, 1} for number in numbers) else Method.T
    return Sample.of([policy[unit] - baseline[unit] for unit in shared], method=method, seed=seed)
