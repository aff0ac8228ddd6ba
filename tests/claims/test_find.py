from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import tomlkit

from kvharness.claims import find
from kvharness.claims.find import all_claims
from kvharness.errors import ClaimProblem
from tests.claims.test_file import GOOD

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


class Install(Protocol):
    """Put a distribution on the path that registers ``value``; its modules fail on import."""

    def __call__(self, name: str, value: str, **files: str) -> Path: ...


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, value: str, **files: str) -> Path:
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[kvharness.claims]\nany = {value}\n")
        (tmp_path / "fake_kv" / "below").mkdir(parents=True, exist_ok=True)
        for module in ("fake_kv/__init__.py", "fake_kv/below/__init__.py", "fake_one.py"):
            (tmp_path / module).write_text("raise RuntimeError('imported')\n")
        for path, text in files.items():
            (tmp_path / path.replace("__", "/").replace("DOT", ".")).write_text(text)
        return tmp_path

    yield make
    assert not {"fake_kv", "fake_one"} & set(sys.modules)


def text(*claims: dict[str, Any]) -> str:
    return tomlkit.dumps({"claim": list(claims)})


def ids(*files: Path) -> list[str]:
    return [claim.id for claim in all_claims(files)]


def test_the_claims_of_the_suites_are_always_there() -> None:
    found = all_claims()
    assert {claim.origin for claim in found} == {str(ROOT / "suites" / "claims.toml")}
    assert "sip-not-better-than-random" in ids()
    assert ids() == sorted(ids())


def test_a_users_file_is_added(claims_file: Path) -> None:
    claims_file.write_text(text({**GOOD, "id": "aaa"}))
    assert ids(claims_file) == ["aaa", *ids()]
    assert ids(claims_file, claims_file.parent / "." / claims_file.name) == ["aaa", *ids()]


@pytest.mark.parametrize(
    ("value", "file"),
    [
        ("fake_kv:claims.toml", "fake_kv__claimsDOTtoml"),
        ("fake_kv", "fake_kv__claimsDOTtoml"),
        ("fake_kv:my-claims.toml", "fake_kv__my-claimsDOTtoml"),
        ("fake_kv.below:c.toml", "fake_kv__below__cDOTtoml"),
        ("fake_kv : below/c.toml", "fake_kv__below__cDOTtoml"),
        ("fake_one:claims.toml", "claimsDOTtoml"),
    ],
)
def test_an_installed_package_registers_a_file_and_is_not_imported(
    install: Install, value: str, file: str
) -> None:
    install("fake-kv", value, **{file: text({**GOOD, "id": "theirs"})})
    assert "theirs" in ids()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package:claims.toml", "there is no module 'no_such_package'"),
        ("fake_kv:none.toml", "there is no file .*fake_kv/none.toml"),
        (":claims.toml", "there is no module ''"),
        ("sys.path:claims.toml", "there is no file"),
    ],
)
def test_a_broken_registration_names_its_distribution(
    install: Install, value: str, reason: str
) -> None:
    install("fake-kv", value)
    with pytest.raises(ClaimProblem, match=reason) as told:
        all_claims()
    assert str(told.value).startswith(f"fake-kv 1.2 registers claims as '{value}', but there is ")
    assert "expected package:file.toml" in str(told.value)
    assert "--kv-claims=off" in str(told.value)


def test_two_packages_may_not_use_one_id(install: Install, claims_file: Path) -> None:
    folder = install("fake-kv", "fake_kv:claims.toml", fake_kv__claimsDOTtoml=text(GOOD))
    claims_file.write_text(text(GOOD))
    with pytest.raises(ClaimProblem, match="two claims have the id 'mine'") as told:
        all_claims([claims_file])
    assert f"[[claim]] 1 of {claims_file}" in str(told.value)
    assert str(folder / "fake_kv" / "claims.toml") in str(told.value)


def test_a_control_may_stand_in_another_file(claims_file: Path) -> None:
    mine = {**GOOD, "kind": "not_better", "control": "oracle-better-than-random"}
    claims_file.write_text(text(mine))
    assert "mine" in ids(claims_file)


@pytest.mark.parametrize(
    ("control", "hint"),
    [
        ("oracle-bettr-than-random", "; did you mean 'oracle-better-than-random'?"),
        ("mine", ""),
        ("sip-not-better-than-random", ""),
    ],
)
def test_a_control_is_a_claim_that_sees_a_difference(
    claims_file: Path, control: str, hint: str
) -> None:
    claims_file.write_text(text({**GOOD, "kind": "not_better", "control": control}))
    with pytest.raises(ClaimProblem) as told:
        all_claims([claims_file])
    start = f"{claims_file}: claim 'mine': control {control!r}: expected the id of a claim of kind"
    assert str(told.value).startswith(start)
    assert str(told.value).endswith(f"better{hint}") or not hint


def test_in_a_wheel_the_suites_lie_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "kvharness"
    for folder in (package / "suites", package.parent / "suites"):
        folder.mkdir(parents=True)
        (folder / "claims.toml").write_text(text({**GOOD, "id": folder.parent.name}))
    monkeypatch.setattr(find, "PACKAGE", package)
    assert ids() == ["kvharness"], "not a folder of that name that lies beside it"


def test_reading_claims_imports_nothing_heavy() -> None:
    code = (
        "import sys, kvharness.claims.find as d; d.all_claims();"
        "print(sorted({'numpy', 'scipy', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
