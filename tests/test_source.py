from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING

import pytest

from kvharness.source import source_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: ``main`` uses ``near``, which uses ``sub.deep`` in several ways; ``alone`` uses nothing.
FILES = {
    "__init__.py": "",
    "main.py": "from somepkg.near import helper\nimport json\n",
    "near.py": "from .sub import deep\n",
    "lazy.py": "def f():\n    from . import near\n    return near\n",
    "plain.py": "import somepkg.sub.deep\n",
    "alone.py": "import json\n",
    "first.py": "from . import second\n",
    "second.py": "from somepkg import first\n",
    "sub/__init__.py": "from .reexported import name\n",
    "sub/deep.py": "from .. import top\n",
    "sub/reexported.py": "name = 1\n",
    "sub/up.py": "from ..alone import x\n",
    "top.py": "",
}
USES = {
    "main": {"__init__", "main", "near", "sub/__init__", "sub/deep", "sub/reexported", "top"},
    "near": {"__init__", "near", "sub/__init__", "sub/deep", "sub/reexported", "top"},
    "lazy": {"__init__", "lazy", "near", "sub/__init__", "sub/deep", "sub/reexported", "top"},
    "plain": {"__init__", "plain", "sub/__init__", "sub/deep", "sub/reexported", "top"},
    "alone": {"__init__", "alone"},
    "first": {"__init__", "first", "second"},
    "second": {"__init__", "first", "second"},
    "sub": {"__init__", "sub/__init__", "sub/reexported"},
    "sub.deep": {"__init__", "sub/__init__", "sub/deep", "sub/reexported", "top"},
    "sub.up": {"__init__", "alone", "sub/__init__", "sub/reexported", "sub/up"},
    "top": {"__init__", "top"},
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = tmp_path / "somepkg"
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield home
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "somepkg"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    source_digest.cache_clear()


def digests() -> dict[str, str]:
    forget()
    return {name: source_digest(f"somepkg.{name}") for name in USES}


@pytest.mark.parametrize("edited", [name.removesuffix(".py") for name in FILES])
def test_editing_a_module_changes_what_uses_it_and_nothing_else(edited: str, package: Path) -> None:
    before = digests()
    path = package / f"{edited}.py"
    path.write_text(path.read_text() + "# edited\n")
    after = digests()
    changed = {name for name in USES if before[name] != after[name]}
    assert changed == {name for name, uses in USES.items() if edited in uses}


def test_digests_are_short_and_differ(package: Path) -> None:
    assert package.is_dir()
    found = digests()
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in found.values())
    # These two import each other: what one uses, the other uses.
    assert found["first"] == found["second"]
    assert len(set(found.values())) == len(USES) - 1


def test_renaming_and_moving_code_between_modules_is_an_edit(package: Path) -> None:
    before = digests()
    (package / "near.py").write_text("")
    (package / "top.py").write_text("from .sub import deep\n")
    assert digests()["main"] != before["main"]


def test_where_a_package_lies_does_not_matter(package: Path, tmp_path: Path) -> None:
    before = digests()
    other = tmp_path / "elsewhere"
    other.mkdir()
    package.rename(other / "somepkg")
    sys.path.insert(0, str(other))
    try:
        assert digests() == before
    finally:
        sys.path.remove(str(other))


def test_modules_that_are_missing_are_left_out(package: Path) -> None:
    before = digests()["alone"]
    text = (
        "import somepkg.nowhere\n"
        "from somepkg.nowhere.deeper import x\n"
        "from . import nothing\n"
        "from ...... import beyond\n"
    )
    (package / "alone.py").write_text(text)
    missing = digests()["alone"]
    assert missing != before
    # Once it is there, it counts.
    (package / "nowhere.py").write_text("")
    assert digests()["alone"] != missing


def test_a_module_that_does_not_exist_has_a_digest_of_nothing() -> None:
    assert source_digest("no_such_module_anywhere") == source_digest("nor.this.one")
    assert source_digest("math") == source_digest("nor.this.one")


def test_other_packages_do_not_count(package: Path, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("")
    (package / "alone.py").write_text("import neighbour\n")
    before = digests()["alone"]
    (tmp_path / "neighbour.py").write_text("# edited\n")
    assert digests()["alone"] == before


def test_a_package_without_init(package: Path) -> None:
    (package / "bare").mkdir()
    (package / "bare" / "inner.py").write_text("")
    (package / "alone.py").write_text("from .bare import inner\n")
    before = digests()["alone"]
    (package / "bare" / "inner.py").write_text("# edited\n")
    assert digests()["alone"] != before


def test_a_single_file_is_a_module_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "somepkg.py").write_text("import json\n")
    forget()
    before = source_digest("somepkg")
    (tmp_path / "somepkg.py").write_text("import json, math\n")
    forget()
    assert source_digest("somepkg") != before
    forget()


def test_digesting_runs_no_code_that_is_only_imported_later(package: Path) -> None:
    (package / "near.py").write_text("raise RuntimeError('imported')\n")
    (package / "alone.py").write_text("def f():\n    from somepkg.near import helper\n")
    forget()
    source_digest("somepkg.alone")
    assert "somepkg.near" not in sys.modules
