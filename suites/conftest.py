"""Speed is measured only when asked for: it needs a machine of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "kv_speed" in config.getoption("markexpr", default=""):
        return
    timed = [item for item in items if item.get_closest_marker("kv_speed")]
    if timed:
        config.hook.pytest_deselected(items=timed)
        items[:] = [item for item in items if item not in timed]
