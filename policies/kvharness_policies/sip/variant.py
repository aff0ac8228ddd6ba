"""The names of trainings, in the files of their weights, and what trains them."""

from __future__ import annotations

from kvharness_policies.sip.features import parse_features
from kvharness_policies.sip.scorer import DEFAULT_FEATURES, NOTEBOOK, PER_HEAD

SMALL = "small"


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


def options_of(*, size: str, features: str, mode: str) -> str:
    """What ``kvharness train sip`` is given for a training; nothing that is its default."""
    given = {"size": size, "features": "+".join(parse_features(features)), "mode": mode}
    usual = {"size": SMALL, "features": DEFAULT_FEATURES, "mode": PER_HEAD}
    return " ".join(f"--{name} {value}" for name, value in given.items() if value != usual[name])
