from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kvharness.plugin.result import CellResult


@pytest.mark.kv_suite("ledger")
def test_ledger(kv_result: CellResult) -> None:
    kv_result.check()
