"""What installed packages offer to kvharness, by entry-point group."""

from __future__ import annotations

import importlib.metadata
import os
import sysconfig
from pathlib import Path

#: Set by the sessions that judge this project, which share an environment with a user's packages.
FIRST_PARTY = "KVHARNESS_FIRST_PARTY"
_OURS = frozenset({"kvharness", "kvharness-policies"})


def entry_points_of(group: str) -> list[importlib.metadata.EntryPoint]:
    """The entry points of a group.

    If the environment variable `FIRST_PARTY` is set, those that other packages were installed with
    into this environment are left out. Packages elsewhere on the path stay: tests make some.
    """
    found = list(importlib.metadata.entry_points(group=group))
    if not os.environ.get(FIRST_PARTY):
        return found
    return [entry for entry in found if not _is_a_users(entry.dist)]


def _is_a_users(distribution: importlib.metadata.Distribution | None) -> bool:
    if distribution is None or distribution.name in _OURS:
        return False
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    return Path(str(distribution.locate_file(""))) in installed
