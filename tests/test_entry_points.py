from __future__ import annotations

import importlib.metadata
import sysconfig
from importlib.metadata import EntryPoint, EntryPoints, PathDistribution
from typing import TYPE_CHECKING

import pytest

from kvharness._entry_points import FIRST_PARTY, entry_points_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GROUP = "kvharness.policies"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a distribution with one policy into a folder."""
    entries: list[EntryPoint] = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: EntryPoints(entries))

    def install(folder: str, name: str) -> Path:
        info = tmp_path / folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = some:Policy\n")
        entries.extend(PathDistribution(info).entry_points)
        return tmp_path / folder

    return install


@pytest.mark.parametrize(
    ("value", "due"),
    [
        ("", ["kvharness-policies", "a-users", "of-a-test"]),
        ("1", ["kvharness-policies", "of-a-test"]),
    ],
)
def test_what_a_user_installed_is_left_out_if_this_project_is_judged(
    install: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, value: str, due: list[str]
) -> None:
    site = install("site-packages", "kvharness-policies")
    install("site-packages", "a-users")
    install("elsewhere", "of-a-test")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(site))
    monkeypatch.setenv(FIRST_PARTY, value)
    assert [entry.name for entry in entry_points_of(GROUP)] == due
