"""The names of trainings, in the files of their weights."""

from __future__ import annotations

from kvharness_policies.sip.features import parse_features
from kvharness_policies.sip.scorer import DEFAULT_FEATURES, NOTEBOOK


def variant_of(*, size: str, features: str, mode: str) -> str:
    """``small``, ``1.7m``, ``small-position``, ``notebook``.

    Raises:
        ValueError: unknown features, or features for the notebook's network, which has its own.
    """
    chosen = "+".join(parse_features(features))
    if mode != NOTEBOOK:
        return size if chosen == DEFAULT_FEATURES else f"{size}-{chosen}"
    if chosen != DEFAULT_FEATURES:
        raise ValueError(f"features={features!r}: mode='notebook' sees keys, values and positions")
    return NOTEBOOK
