"""Names under which hooks, tests and reports find each other's things."""

from __future__ import annotations

import pytest

FIXTURE = "kv_result"
#: The user property under which a test tells which records it looked at.
PROPERTY = "kvharness"
PROBLEM: pytest.StashKey[pytest.UsageError] = pytest.StashKey()
