from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvharness_policies
from kvharness.cell import Cell
from kvharness.contract import Contract
from kvharness.discovery import registry
from kvharness.discovery.code_digest import code_digest, file_digest, source_digest
from kvharness.discovery.spec import PolicySpec
from kvharness.records.key import record_key, shared_key
from tests.rewriting import rewritten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
    "beside.py": "import somehelper\n",
    "free.py": "import importlib\nmade = importlib.import_module('somepkg.alone')\n",
}
HELPER = "power = 1.0\n"
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
    "beside": {"__init__", "beside", "../somehelper"},
    "free": {name.removesuffix(".py") for name in FILES} | {"../somehelper"},
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = tmp_path / "site" / "somepkg"
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    (home.parent / "somehelper.py").write_text(HELPER)
    distribution(home.parent, "some-kv", [*FILES])
    monkeypatch.syspath_prepend(home.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield home
    for name in [name for name in sys.modules if name.partition(".")[0] == "somepkg"]:
        del sys.modules[name]


def distribution(
    site: Path, name: str, files: list[str], *, requires: tuple[str, ...] = ()
) -> PathDistribution:
    """As a wheel of a package and a helper leaves it."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    needed = "".join(f"Requires-Dist: {each}\n" for each in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}\n")
    (info / "entry_points.txt").write_text("[kvharness.policies]\nmine = somepkg.main:Mine\n")
    named = [*(f"somepkg/{file}" for file in files), "somehelper.py"]
    (info / "RECORD").write_text("".join(f"{each},,\n" for each in named))
    return PathDistribution(info)


def installed(package: Path) -> PathDistribution:
    return PathDistribution(package.parent / "some_kv-1.0.dist-info")


def digests(package: Path) -> dict[str, str]:
    importlib.invalidate_caches()
    given = installed(package)
    return {name: source_digest([f"somepkg.{name}"], given) for name in USES}


@pytest.mark.parametrize("edited", [*(n.removesuffix(".py") for n in FILES), "../somehelper"])
def test_editing_a_module_changes_what_uses_it_and_nothing_else(edited: str, package: Path) -> None:
    before = digests(package)
    path = package / f"{edited}.py"
    path.write_text(rewritten(path.read_text()))
    assert digests(package) == before
    path.write_text(f"{path.read_text()}edited = 1\n")
    after = digests(package)
    changed = {name for name in USES if before[name] != after[name]}
    assert changed == {name for name, uses in USES.items() if edited in uses}


def test_digests_are_short_and_differ(package: Path) -> None:
    found = digests(package)
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in found.values())
    # These two import each other: what one uses, the other uses.
    assert found["first"] == found["second"]
    assert len(set(found.values())) == len(USES) - 1


@given(data=st.data())
def test_any_package(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    names = [f"m{number}" for number in range(data.draw(st.integers(2, 6)))]
    uses = {name: data.draw(st.sets(st.sampled_from(names)), label=name) for name in names}
    edited = data.draw(st.sampled_from(names), label="edited")
    site = tmp_path_factory.mktemp("any")
    (site / "somepkg").mkdir()
    for name in names:
        lines = [f"from somepkg import {other}\n" for other in sorted(uses[name])]
        (site / "somepkg" / f"{name}.py").write_text("".join(lines))
    given = distribution(site, "any-kv", [f"{name}.py" for name in names])
    before = {name: source_digest([f"somepkg.{name}"], given) for name in names}
    path = site / "somepkg" / f"{edited}.py"
    path.write_text(f"{path.read_text()}edited = 1\n")
    for name in names:
        changed = source_digest([f"somepkg.{name}"], given) != before[name]
        assert changed == (edited in reached(name, uses))


def reached(name: str, uses: Mapping[str, set[str]]) -> set[str]:
    """By repetition, until nothing is added."""
    found = {name}
    for _ in uses:
        found |= {other for each in found for other in uses[each]}
    return found


def test_where_a_distribution_lies_does_not_matter(package: Path, tmp_path: Path) -> None:
    before = digests(package)
    package.parent.rename(tmp_path / "elsewhere")
    assert digests(tmp_path / "elsewhere" / "somepkg") == before


def test_data_files_count_for_every_module(package: Path) -> None:
    before = digests(package)
    (package / "table.json").write_text("[1, 2]")
    assert digests(package) == before, "no part of the distribution"
    distribution(package.parent, "some-kv", [*FILES, "table.json", "gone.bin"])
    with_table = digests(package)
    assert not set(with_table.values()) & set(before.values())
    (package / "table.json").write_text("[1, 2, 3]")
    assert not set(digests(package).values()) & set(with_table.values())


def test_modules_that_are_missing_are_left_out(package: Path) -> None:
    text = (
        "import somepkg.nowhere\n"
        "from somepkg.nowhere.deeper import x\n"
        "from . import nothing\n"
        "from ...... import beyond\n"
    )
    (package / "alone.py").write_text(text)
    missing = digests(package)["alone"]
    # Once it is there, it counts.
    (package / "nowhere.py").write_text("")
    distribution(package.parent, "some-kv", [*FILES, "nowhere.py"])
    assert digests(package)["alone"] != missing


def test_without_a_distribution_the_package_counts_as_it_lies(package: Path) -> None:
    before = source_digest(["somepkg.beside"], None)
    (package.parent / "somehelper.py").write_text("power = -1.0\n")
    assert source_digest(["somepkg.beside"], None) == before
    (package / "beside.py").write_text("power = -1.0\n")
    assert source_digest(["somepkg.beside"], None) != before
    assert source_digest(["no_such_module"], None) == source_digest(["nor.this.one"], None)


def test_no_module_is_imported(package: Path) -> None:
    (package / "near.py").write_text("raise RuntimeError('imported')\n")
    digests(package)
    assert "somepkg.near" not in sys.modules


def test_the_digest_of_code_has_neither_data_nor_versions(package: Path) -> None:
    before = {name: code_digest([f"somepkg.{name}"]) for name in USES}
    (package / "table.json").write_text("[1, 2]")
    assert {name: code_digest([f"somepkg.{name}"]) for name in USES} == before
    (package / "top.py").write_text("edited = 1\n")
    changed = {name for name in USES if code_digest([f"somepkg.{name}"]) != before[name]}
    assert changed == {name for name, uses in USES.items() if "top" in uses}


# -- what it requires -----------------------------------------------------------------------------


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, PathDistribution]:
    """Other distributions that are installed, by name."""
    found: dict[str, PathDistribution] = {}

    def get(name: str) -> PathDistribution:
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "distribution", get)
    return found


def other(folder: Path, name: str, version: str, **modules: str) -> PathDistribution:
    """A distribution whose project lies in a folder: editable where it has modules."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if modules:
        module = next(iter(modules))
        (info / "entry_points.txt").write_text(f"[any]\nx = {module}:X\n")
        origin = {"url": folder.as_uri(), "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(origin))
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    return PathDistribution(info)


def test_requirements_count_by_version(
    package: Path, tmp_path: Path, versions: dict[str, PathDistribution]
) -> None:
    requires = ("some_lib>=1", 'absent; extra == "dev"', "kvharness", "not a requirement!")
    given = distribution(package.parent, "some-kv", [*FILES], requires=requires)
    lacking = source_digest(["somepkg.main"], given)
    versions["some-lib"] = other(tmp_path / "1", "some_lib", "1.0")
    first = source_digest(["somepkg.main"], given)
    versions["some-lib"] = other(tmp_path / "2", "some_lib", "1.1")
    assert len({lacking, first, source_digest(["somepkg.main"], given)}) == 3
    now = source_digest(["somepkg.main"], given)
    # The engine has a number, and what an extra asks for is there for other reasons.
    versions["kvharness"] = other(tmp_path / "3", "kvharness", "9.9")
    versions["absent"] = other(tmp_path / "4", "absent", "9.9")
    assert source_digest(["somepkg.main"], given) == now


def test_an_editable_requirement_counts_by_its_files_where_it_is_used(
    package: Path,
    tmp_path: Path,
    versions: dict[str, PathDistribution],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tmp_path / "project"
    versions["some-lib"] = other(project, "some_lib", "1.0", some_lib="x = 1\n")
    monkeypatch.syspath_prepend(project)
    (package / "alone.py").write_text("import some_lib\n")
    given = distribution(package.parent, "some-kv", [*FILES], requires=("some-lib",))
    before = {name: source_digest([f"somepkg.{name}"], given) for name in ("alone", "top")}
    (project / "some_lib.py").write_text("x = 1  # a comment\n")
    assert source_digest(["somepkg.alone"], given) == before["alone"]
    (project / "some_lib.py").write_text("x = 23\n")
    assert source_digest(["somepkg.alone"], given) != before["alone"]
    assert source_digest(["somepkg.top"], given) == before["top"]


# -- files ----------------------------------------------------------------------------------------


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    opened = []
    usual = Path.open

    def counting(self: Path, mode: str = "r") -> object:
        opened.append(self)
        return usual(self, mode)

    monkeypatch.setattr(Path, "open", counting)
    first = file_digest(path)
    assert file_digest(path) == first
    assert opened == [path]
    monkeypatch.undo()
    path.write_bytes(b"other weights")
    assert file_digest(path) != first
    assert file_digest(tmp_path / "gone") == ""


# -- the whole tree -------------------------------------------------------------------------------

#: Run on a copy of both packages, and in this process on the packages as they are.
KEYS = """
import json, sys
from tests.discovery.test_code_digest import keys

print(json.dumps(keys()))
"""
WRAPPED = "ada(snapkv),caote(h2o),lkv-h(snapkv),squeeze(snapkv)"
ROOT = Path(__file__).parents[2]
POLICIES = Path(str(kvharness_policies.__file__)).parent


def keys() -> dict[str, str]:
    """Of every policy, for a model and an item that are always the same."""
    known = registry.installed()
    shared = shared_key(
        {"digest": "0123"}, Contract().as_dict(), generate="first", schema=1, engine=1
    )
    cell = Cell(suite="qa", policy="any", retention=Fraction(1, 4), seed=1)
    plain = [PolicySpec(name=name) for name, found in known.items() if not found.wraps]
    loaded = [registry.load(spec, known) for spec in (*plain, *PolicySpec.parse_list(WRAPPED))]
    item = {"digest": "cdef"}
    return {str(each.spec): record_key(shared, each.identity(), cell, item) for each in loaded}


def test_moving_and_commenting_the_engine_leaves_every_key_and_an_edited_helper_those_of_others(
    tmp_path: Path,
) -> None:
    without = shutil.ignore_patterns("__pycache__", "data", "suites")
    for package in (ROOT / "kvharness", POLICIES):
        shutil.copytree(package, tmp_path / package.name, ignore=without, symlinks=True)
    (tmp_path / "kvharness" / "engine_parts").mkdir()
    moved = {"kvharness.engine.score": "kvharness.engine_parts.score"}
    (tmp_path / "kvharness/engine/score.py").rename(tmp_path / "kvharness/engine_parts/score.py")
    for path in tmp_path.rglob("*.py"):
        text = rewritten(path.read_text())
        for old, new in moved.items():
            text = text.replace(old, new)
        path.write_text(text)
    helper = tmp_path / "kvharness_policies" / "lkv" / "soft_top_k.py"
    helper.write_text(f"{helper.read_text()}edited = 1\n")
    done = subprocess.run(
        [sys.executable, "-c", KEYS],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = keys(), json.loads(done.stdout)
    assert len(before) > 25
    assert {name for name in before if before[name] != after[name]} == {"lkv", "lkv-h(snapkv)"}
