from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness import Policy, Queries, View
from kvharness.claims.file import read_claims
from kvharness.cli import new_policy
from kvharness.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = "x" * 32
FILES = {
    ".github/workflows/check.yml",
    ".gitignore",
    "LICENSE",
    "README.md",
    "kvharness_my_idea/__init__.py",
    "kvharness_my_idea/claims.toml",
    "kvharness_my_idea/policy.py",
    "kvharness_my_idea/py.typed",
    "pyproject.toml",
    "tests/test_policy.py",
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new_policy, "_author", lambda: 'Ada "A" Lovelace')


@pytest.fixture
def package() -> Path:
    assert main(["new-policy", "my-idea"]) == 0
    return Path("my-idea")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command says about arguments that it refuses."""

    def refuse(*arguments: str) -> str:
        assert main(["new-policy", *arguments]) == 2
        return capsys.readouterr().err

    return refuse


def test_writes_every_file(package: Path) -> None:
    found = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert found == FILES


def test_says_what_to_run_next(capsys: pytest.CaptureFixture[str]) -> None:
    main(["new-policy", "my-idea", "here"])
    out = capsys.readouterr().out
    assert "here/pyproject.toml" in out
    assert "pip install -e ." in out
    readme = Path("here/README.md").read_text(encoding="utf-8")
    for package in ("testing", "suites"):
        command = f"pytest --pyargs kvharness.{package} --policy=my-idea"
        assert command in out
        assert command in readme


def test_nothing_is_left_to_substitute(package: Path) -> None:
    for path in package.rglob("*"):
        if path.is_file():
            assert "$" not in path.read_text(encoding="utf-8"), path


def test_entry_points_and_author(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"] == {
        "kvharness.policies": {"my-idea": "kvharness_my_idea.policy:MyIdeaPolicy"},
        "kvharness.claims": {"my-idea": "kvharness_my_idea:claims.toml"},
    }
    assert project["authors"] == [{"name": 'Ada "A" Lovelace'}]
    assert 'Ada "A" Lovelace' in (package / "LICENSE").read_text(encoding="utf-8")


def test_without_a_git_name_the_authors_are_those_of_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(new_policy, "_author", str)
    main(["new-policy", "mine"])
    licence = Path("mine/LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Copyright \(c\) \d{4} the kvharness-mine authors\n", licence)


def test_the_author_is_the_one_of_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.name")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "Grace  Hopper")
    assert new_policy._author() == "Grace Hopper"
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert new_policy._author() == ""


def test_the_claim_is_one(package: Path) -> None:
    (claim,) = read_claims(package / "kvharness_my_idea" / "claims.toml")
    assert claim.id == "my-idea-better-than-random"
    assert (claim.metric, claim.margin) == ("recovered", 0)


def test_the_bench_of_the_workflow_covers_the_claim(package: Path) -> None:
    text = (package / ".github/workflows/check.yml").read_text(encoding="utf-8")
    (claim,) = read_claims(package / "kvharness_my_idea" / "claims.toml")
    assert [f"-k {suite}" in text for suite in claim.suites] == [True]
    assert f"--retention={','.join(claim.retentions)}\n" in text


def test_the_policy_scores(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package)
    policy = importlib.import_module("kvharness_my_idea.policy").MyIdeaPolicy(power=2.0)
    for module in ("kvharness_my_idea", "kvharness_my_idea.policy"):
        del sys.modules[module]  # the next test would find it installed
    assert isinstance(policy, Policy)
    view = View(
        layer=0,
        keys=torch.zeros(2, 6, 4),
        values=torch.full((2, 6, 4), 1.5),
        positions=torch.arange(6),
        scaling=1.0,
        rng=torch.Generator(),
        observed={Queries(16): torch.zeros(4, 1, 4)},
    )
    # A sixth of the attention, times the norm 3 squared.
    torch.testing.assert_close(policy.score(view), torch.full((2, 6), 1.5))


@pytest.mark.parametrize("name", ["q", "a.b+c", LONGEST])
def test_what_is_written_is_clean_whatever_the_name(name: str) -> None:
    assert main(["new-policy", name, "package"]) == 0
    _run("ruff", "check", "--no-cache", ".")
    _run("ruff", "format", "--no-cache", "--check", ".")


def _run(tool: str, *arguments: str) -> None:
    pytest.importorskip(tool)
    command = [sys.executable, "-m", tool, *arguments]
    done = subprocess.run(command, cwd="package", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("My_Idea", "Did you mean 'my-idea'?"),
        ("4bit", "a letter first"),
        ("", "lower-case letters"),
        ("mine/../x", "lower-case letters"),
        ("mine(power=2)", "lower-case letters"),
        ("x" * 33, "at most 32"),
        ("a-", "between them"),
        ("a--b", "between them"),
        ("SnapKV", "between them."),
        ("ö", "lower-case letters"),
    ],
)
def test_bad_names_are_refused(name: str, hint: str, refused: Callable[..., str]) -> None:
    assert hint in refused(name)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("snapkv", "snapkv (kvharness-policies 0.1.0); choose another name, such as 'my-snapkv'"),
        ("policies", "a module kvharness_policies is installed"),
    ],
)
def test_a_name_that_is_installed_is_refused(
    name: str, reason: str, refused: Callable[..., str]
) -> None:
    assert reason in refused(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("random", "belongs to a policy of kvharness-policies"),
        ("floor", "belongs to a policy of kvharness-policies"),
        ("h2o", "has a claim 'h2o-better-than-random'"),
    ],
)
def test_names_of_the_first_policies_are_refused_without_them(
    name: str, reason: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvharness.discovery.registry.installed", dict)
    assert reason in refused(name)


def test_a_folder_that_is_not_empty_is_refused(package: Path, refused: Callable[..., str]) -> None:
    before = (package / "README.md").stat().st_mtime_ns
    assert "my-idea holds .github, .gitignore, LICENSE" in refused("other", str(package))
    assert (package / "README.md").stat().st_mtime_ns == before


def test_a_fresh_repository_is_an_empty_folder() -> None:
    Path("fresh/.git").mkdir(parents=True)
    assert main(["new-policy", "mine", "fresh"]) == 0


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_told(folder: str, refused: Callable[..., str]) -> None:
    Path("file").touch()
    text = refused("mine", folder)
    assert "cannot be written: Not a directory; name another folder" in text
    assert "file" in text


def test_a_folder_without_permission_is_told(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", deny)
    assert "mine: cannot be written: Permission denied" in refused("mine")


def test_templates_are_no_code_of_this_project() -> None:
    files = [path for path in new_policy.TEMPLATES.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".tmpl"}
