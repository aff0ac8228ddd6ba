from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kvharness.plugin.result import CellResult


@pytest.mark.kv_suite("qa")
def test_qa(kv_result: CellResult) -> None:
    kv_result.check()


@pytest.mark.kv_suite("qa-records")
def test_qa_records(kv_result: CellResult) -> None:
    kv_result.check()


@pytest.mark.kv_suite("qa-two-hop")
def test_qa_two_hop(kv_result: CellResult) -> None:
    kv_result.check()


@pytest.mark.kv_suite("qa-comparison")
def test_qa_comparison(kv_result: CellResult) -> None:
    kv_result.check()
