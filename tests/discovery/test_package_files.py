from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kvharness
import kvharness_policies
from kvharness.discovery.package_files import PackageFiles, owner_of, project_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILES = {
    "pkg_a/__init__.py": "",
    "pkg_a/policy.py": "x = 1\n",
    "pkg_a/sub/__init__.py": "",
    "pkg_a/sub/deep.py": "",
    "pkg_a/sub/table.json": "{}",
    "pkg_a/fast.so": "compiled",
    "pkg_a/claims.toml": "",
    "pkg_a/tests/test_policy.py": "",
    "pkg_a/tests/cases.json": "{}",
    "pkg_a/__pycache__/policy.cpython-311.pyc": "",
    "helper_a.py": "y = 2\n",
}
ENTRIES = {
    "kvharness.policies": {"mine": "pkg_a.policy:Mine"},
    "kvharness.claims": {"mine": "pkg_a:claims.toml"},
}
MODULES = {
    "helper_a",
    "pkg_a",
    "pkg_a.policy",
    "pkg_a.sub",
    "pkg_a.sub.deep",
    "pkg_a.tests.test_policy",
}
DATA = {"pkg_a/fast.so", "pkg_a/sub/table.json"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in {"pkg_a", "helper_a"}]:
        del sys.modules[name]


def write(home: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    importlib.invalidate_caches()


def described(
    folder: Path, *, record: list[str] | None = None, project: Path | None = None
) -> PathDistribution:
    """A distribution as pip leaves it in a folder."""
    info = folder / "mine_kv-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine-kv\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in given.items())
            for group, given in ENTRIES.items()
        )
    )
    if record is not None:
        named = [*record, f"{info.name}/METADATA", "../../../bin/mine", "mine_kv-1.0.data/x.txt"]
        (info / "RECORD").write_text("".join(f"{name},,\n" for name in named))
    if project is not None:
        origin = {"url": project.as_uri(), "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(origin))
    return PathDistribution(info)


def test_a_wheel_says_what_it_brought(home: Path) -> None:
    write(home, FILES)
    found = PackageFiles.of(described(home, record=[*FILES]), ["pkg_a.policy"])
    assert set(found.modules) == MODULES
    assert set(found.data) == DATA
    assert found.modules["pkg_a.sub"] == home / "pkg_a/sub/__init__.py"
    # What lies beside its packages belongs to others.
    write(home, {"pkg_a/later.py": "", "pkg_b/__init__.py": ""})
    assert PackageFiles.of(described_again(home), ["pkg_a.policy"]) == found


def described_again(home: Path) -> PathDistribution:
    return PathDistribution(home / "mine_kv-1.0.dist-info")


def test_an_editable_project_is_what_its_folder_holds(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    # An editable wheel records how its packages are found, never what is in them.
    given = described(site, record=["__editable___mine_kv_finder.py"], project=home)
    beside = {
        "setup.py": "",
        "conftest.py": "",
        "test_mine.py": "",
        "tests/__init__.py": "",
        "build/lib/pkg_a/__init__.py": "",
        "results/records.jsonl": "{}",
        ".venv/pkg_c/__init__.py": "",
        "README.md": "",
    }
    write(home, {**FILES, **beside, "pkg_b/__init__.py": "", "pkg_b/data.txt": ""})
    found = PackageFiles.of(given, ["pkg_a.policy"])
    assert set(found.modules) == MODULES | {"pkg_b"}
    assert set(found.data) == DATA | {"pkg_b/data.txt"}
    assert project_folder(given) == home
    monkeypatch.chdir(tmp_path)
    assert PackageFiles.of(given, ["pkg_a.policy"]) == found


def test_kvharness_belongs_to_no_policy(home: Path, tmp_path: Path) -> None:
    write(home, {**FILES, "kvharness/__init__.py": "", "kvharness/data.json": "{}"})
    site = tmp_path / "site"
    site.mkdir()
    for given in (described(site, project=home), described(home, record=["kvharness/x.py"])):
        found = PackageFiles.of(given, ["kvharness.engine.item_run", "pkg_a"])
        assert not {name for name in found.modules if name.startswith("kvharness")}
        assert not {name for name in found.data if name.startswith("kvharness")}
    assert PackageFiles.of(None, ["kvharness"]) == PackageFiles()


def test_packages_may_lie_in_a_folder_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    assert home.is_dir()
    project = tmp_path / "a project"
    write(project / "src", FILES)
    write(project, {"tools.py": ""})
    monkeypatch.syspath_prepend(project / "src")
    found = PackageFiles.of(described(home, project=project), ["pkg_a.policy"])
    assert set(found.modules) == MODULES
    assert set(found.data) == DATA


def test_without_a_record_a_package_is_what_lies_there(home: Path) -> None:
    write(home, {**FILES, "pkg_b/__init__.py": ""})
    for given in (described(home), None):
        found = PackageFiles.of(given, ["pkg_a.policy", "gone.module"])
        assert set(found.modules) == MODULES - {"helper_a"}
        # Only entry points say that claims are claims.
        assert set(found.data) == DATA | (set() if given else {"pkg_a/claims.toml"})
    single = PackageFiles.of(None, ["helper_a"])
    assert single == PackageFiles(modules={"helper_a": home / "helper_a.py"})
    assert PackageFiles.of(None, ["sys", "gone"]) == PackageFiles()


def test_tests_are_not_shipped_modules(home: Path) -> None:
    write(home, FILES)
    found = PackageFiles.of(described(home, record=[*FILES]), [])
    assert set(found.shipped_modules()) == MODULES - {"pkg_a.tests.test_policy"}
    assert found.paths == {found.modules[n] for n in MODULES} | {home / name for name in DATA}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"url": "file:///x"}', '{"url": "x", "dir_info": {"editable": false}}']
)
def test_only_an_editable_installation_has_a_project(home: Path, text: str) -> None:
    given = described(home, record=[])
    (home / "mine_kv-1.0.dist-info/direct_url.json").write_text(text)
    assert project_folder(given) is None


def test_the_owner_of_a_module_is_who_offers_something_of_its_package(home: Path) -> None:
    write(home, FILES)
    described(home, record=[*FILES])
    found = owner_of("pkg_a.sub.deep")
    assert found is not None
    assert found.name == "mine-kv"
    ours = owner_of("kvharness_policies.snapkv")
    assert ours is not None
    assert ours.name == "kvharness-policies"
    assert owner_of("helper_a") is None
    assert owner_of("torch.nn") is None


def test_the_first_party_policies_bring_modules_and_weights() -> None:
    folder = Path(str(kvharness_policies.__file__)).parent
    found = PackageFiles.of(owner_of("kvharness_policies"), [])
    assert set(found.modules.values()) == {*folder.rglob("*.py")}
    due = {path for path in folder.rglob("*") if path.suffix in {".json", ".safetensors", ".typed"}}
    assert set(found.data.values()) == due
    assert not any(
        path.is_relative_to(Path(str(kvharness.__file__)).parent) for path in found.paths
    )
