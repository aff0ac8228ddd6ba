"""The picture of the whole: the order of its layers, how many rooms and how many arrows.

A room is a folder of the package or a module that lies beside the folders; an arrow is an import
between two rooms, for types too. A room stands one floor above the highest one that it imports.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
PACKAGES = ("kvharness", "kvharness_policies")
#: One file a method, so it may have many.
METHODS = "kvharness_policies"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]
LAYERS = [
    layer.strip("()").split(" | ") for layer in next(c["layers"] for c in CONTRACTS if c["layers"])
]
#: What each contract must catch: a line, and the module that it is written into.
BREACHES = {
    "layers": ("records/store.py", "from kvharness.report import notation"),
    "words": ("errors.py", "from kvharness.cell import Cell"),
    "no-torch": ("statistics/power.py", "import torch"),
    "no-pytest": ("engine/task.py", "import pytest"),
    "public-face": ("snapkv.py", "from kvharness.engine.select import keep_mask"),
    "acyclic": ("policy/seeds.py", "from kvharness.model.loaded import Runtime"),
}


@pytest.fixture(scope="module")
def graph() -> Any:
    grimp = pytest.importorskip("grimp")
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def room(module: str) -> str:
    package, _, rest = module.partition(".")
    return package if package == METHODS or not rest else f"{package}.{rest.partition('.')[0]}"


@pytest.fixture(scope="module")
def arrows(graph: Any) -> Mapping[str, set[str]]:
    """For each room those that it imports. A package's own names are a face and no room."""
    modules = graph.modules - {"kvharness"}
    found: dict[str, set[str]] = {room(module): set() for module in modules}
    for module in modules:
        for imported in graph.find_modules_directly_imported_by(module) - {"kvharness"}:
            found[room(module)] |= {room(imported)} - {room(module)}
    return found


def test_there_are_few_rooms_and_arrows(arrows: Mapping[str, set[str]]) -> None:
    assert len(arrows) <= 30, sorted(arrows)
    assert sum(map(len, arrows.values())) <= 120, arrows


def test_there_is_no_circle_and_few_floors(arrows: Mapping[str, set[str]]) -> None:
    floor: dict[str, int] = {}
    # It raises CycleError, which names the rooms.
    for each in TopologicalSorter(arrows).static_order():
        floor[each] = 1 + max((floor[below] for below in arrows[each]), default=0)
    assert max(floor.values()) <= 10, floor


def test_no_module_is_in_a_circle_inside_its_room(graph: Any) -> None:
    """For types too; what a package's face exports in its stub is no import."""
    imports = {each: graph.find_modules_directly_imported_by(each) for each in graph.modules}
    # It raises CycleError, which names the modules.
    assert len([*TopologicalSorter(imports).static_order()]) == len(graph.modules)


def test_no_folder_but_that_of_the_methods_has_many_modules(graph: Any) -> None:
    folders = Counter(
        module.rpartition(".")[0]
        for module in graph.modules
        if not graph.find_children(module) and module.rpartition(".")[0] != METHODS
    )
    assert {name: count for name, count in folders.items() if count > 20} == {}


def test_types_follow_the_order_of_the_layers_as_well(arrows: Mapping[str, set[str]]) -> None:
    """import-linter leaves them out, since statistics and reports name types of torch."""
    height = {f"kvharness.{name}": -number for number, names in enumerate(LAYERS) for name in names}
    upward = [
        (upper, lower)
        for upper, imported in arrows.items()
        for lower in imported & height.keys()
        if upper in height and height[lower] >= height[upper]
    ]
    assert upward == []


def test_the_picture_of_contributing_has_these_layers() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = page.partition("## The layers")[2].partition("```text\n")[2].partition("```")[0]
    drawn = [re.findall(r"\w+", line.partition("  ")[0]) for line in picture.splitlines()]
    assert drawn[: len(LAYERS)] == LAYERS


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(linter), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "data", "suites", "template", "weights")
    shutil.copytree(ROOT / "kvharness", tmp_path / "kvharness", ignore=ignored)
    methods = ROOT / "policies/kvharness_policies"
    shutil.copytree(methods, tmp_path / METHODS, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_tried() -> None:
    assert {contract["id"] for contract in CONTRACTS} == BREACHES.keys()


@pytest.mark.parametrize("contract", BREACHES)
def test_a_contract_fails_if_it_is_broken(copy: Path, contract: str) -> None:
    name, line = BREACHES[contract]
    package = METHODS if contract == "public-face" else "kvharness"
    module = copy / package / name
    text = module.read_text(encoding="utf-8")
    module.write_text(f"{text}\n{line}\n", encoding="utf-8")
    result = linted(copy)
    told = next(each["name"] for each in CONTRACTS if each["id"] == contract)
    assert result.returncode == 1
    assert f"{told} BROKEN" in result.stdout, result.stdout
    module.write_text(text, encoding="utf-8")
    assert linted(copy).returncode == 0


def test_the_paths_of_contributing_are_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:kvharness|policies|suites|tests|\.nox|\.ci|\.github)/[\w./-]*)`", page
    )
    paths = [path for path in named if "NAME" not in path and not path.startswith(".nox")]
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
