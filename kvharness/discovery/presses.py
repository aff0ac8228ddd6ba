"""Presses of NVIDIA/kvpress as policies, loaded only where one is named: ``kvpress:KnormPress``."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from kvharness.errors import UsageProblem

if TYPE_CHECKING:
    from kvharness.discovery.spec import PolicySpec

PREFIX = "kvpress:"
INSTALL = "run pip install 'kvharness[kvpress]' (it needs transformers below 5.3)"
NAMING = (
    "--policy 'kvpress:SnapKVPress(window_size=32)' runs a press, and "
    "'kvpress:AdaKVPress(press=SnapKVPress())' one around another"
)


def is_press(spec: PolicySpec) -> bool:
    return spec.name.startswith(PREFIX)


def peer_version() -> str | None:
    """The installed kvpress, which is not imported; None without it."""
    try:
        return importlib.metadata.version("kvpress")
    except importlib.metadata.PackageNotFoundError:
        return None


def provided() -> frozenset[str]:
    """Of `requirements`, what kvpress meets where it is installed."""
    return frozenset() if peer_version() is None else frozenset({PREFIX})


def requirements(spec: PolicySpec) -> tuple[str, ...]:
    """What must be installed for a specification: its policies, or `PREFIX` for kvpress."""
    return (PREFIX,) if is_press(spec) else spec.names


def require_press(spec: PolicySpec) -> None:
    """Check that kvpress is there for a specification.

    Raises:
        UsageProblem: it is not; says what to install.
    """
    if peer_version() is None:
        raise UsageProblem(f"--policy {spec}: kvpress is not installed; {INSTALL}")


def refuse_inside(spec: PolicySpec) -> None:
    """Refuse a press inside a policy of another kind, which could not tell it what to score.

    Raises:
        UsageProblem: there is one.
    """
    if problem := misplaced(spec):
        raise UsageProblem(f"--policy {spec}: {problem}")


def misplaced(spec: PolicySpec) -> str:
    """Why a press inside this policy cannot be there; empty without one."""
    inside = [part.name.removeprefix(PREFIX) for part in spec.parts[1:] if is_press(part)]
    if is_press(spec) or not inside:
        return ""
    return (
        f"a press can only be wrapped by a press, such as 'kvpress:AdaKVPress(press={inside[0]}())'"
    )
