from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors
import safetensors.torch
import torch
from safetensors import safe_open

from kvharness import ModelSource, Policy, as_policy
from kvharness.discovery.package_files import owner_of
from kvharness.testing import Mistake, check_reads_are_in_the_key
from kvharness.testing.reads import noted, uncovered

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kvharness import LoadedModel, View

HOME = Path(__file__).parent


def seen(act: Callable[[], object]) -> list[str]:
    """What of an act no key covers."""
    policy = type("Fresh", (Policy,), {"__module__": __name__})()
    with noted(policy, "scoring"):
        act()
    return [thing for _, thing in uncovered(policy)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    path.write_text("[1]")
    return path


def test_every_way_to_open_a_file_is_seen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, array = file.with_name("w.safetensors"), file.with_name("a.npy")
    safetensors.torch.save_file({"x": torch.zeros(2)}, tensors)
    torch.save(torch.zeros(2), file.with_name("w.pt"))
    with array.open("wb") as opened:
        import numpy as np

        np.save(opened, np.zeros(2))
    monkeypatch.chdir(file.parent)
    acts: list[tuple[Callable[[], object], str]] = [
        (lambda: json.loads(file.read_text()), "table.json"),
        (lambda: Path("table.json").read_bytes(), "table.json"),
        (lambda: os.close(os.open(file, os.O_RDONLY)), "table.json"),
        (lambda: file.open("r+").close(), "table.json"),
        (lambda: os.open(os.fsencode(file), os.O_RDWR), "table.json"),
        (lambda: torch.load("w.pt"), "w.pt"),
        (lambda: np.load(array, mmap_mode="r"), "a.npy"),
        (lambda: safetensors.torch.load_file(tensors), "w.safetensors"),
        (lambda: safetensors.safe_open("w.safetensors", "pt").keys(), "w.safetensors"),
        # As it is named in this module.
        (lambda: safe_open(str(tensors), "pt").keys(), "w.safetensors"),
    ]
    for act, name in acts:
        assert seen(act) == [f"the file {str(file.parent / name)!r}"]
    assert vars(safetensors.torch)["safe_open"] is safetensors.safe_open is safe_open


def test_what_versions_or_the_package_cover_may_be_read(tmp_path: Path) -> None:
    def reads() -> None:
        Path(torch.__file__).with_name("version.py").read_text()
        Path(os.__file__).read_text()
        Path(pytest.__file__).with_name("py.typed").read_text()
        Path("/dev/null").read_text()
        Path(__file__).read_text()
        (HOME / "test_broken.py").read_bytes()
        (tmp_path / "written.txt").write_text("x")
        os.close(os.open(tmp_path / "other.txt", os.O_WRONLY | os.O_CREAT))

    assert seen(reads) == []
    assert seen(partial(__import__, "this")) == []


def test_only_the_policys_own_code_is_asked_why_it_needs_the_environment() -> None:
    asked: list[Callable[[], object]] = [
        lambda: os.environ.get("A_NAME"),
        lambda: os.environ.setdefault("A_NAME", "x"),
        lambda: os.environ.pop("A_NAME"),
        lambda: os.getenv("A_NAME"),
        lambda: "A_NAME" in os.environ,
    ]
    for ask in asked:
        assert seen(ask) == ["the environment variable A_NAME"]
    assert seen(lambda: dict(os.environ) or None)
    # In Python's own library, as if it asked for itself.
    assert seen(lambda: eval("x.get('A_NAME')", {"x": os.environ, "__file__": os.__file__})) == []  # noqa: S307
    assert type(os.environ) is os._Environ


def test_nothing_is_noted_between_runs(file: Path) -> None:
    policy = type("Idle", (Policy,), {})()
    with noted(policy, "scoring"):
        pass
    file.read_text()
    assert os.environ.get("A_NAME") is None
    assert uncovered(policy) == []


def test_what_was_read_is_noted_when_a_policy_fails(file: Path) -> None:
    policy = type("Failing", (Policy,), {})()
    with pytest.raises(ZeroDivisionError), noted(policy, "ready"):
        assert len(file.read_text()) // 0
    assert uncovered(policy) == [("ready", f"the file {str(file)!r}")]
    assert type(os.environ) is os._Environ


@dataclass(frozen=True)
class Reader(Policy):
    """Reads a file while it gets ready and another one in score."""

    heads: str = ""
    more: tuple[str, ...] = ()
    digest: str = ""

    def checkpoint(self, source: ModelSource, seed: int) -> str:
        del source, seed
        return self.digest

    def ready(self, model: LoadedModel, seed: int) -> Policy:
        del model, seed
        if self.heads:
            Path(self.heads).read_text()
        return self

    def score(self, view: View) -> Tensor:
        for name in self.more:
            Path(name).expanduser().read_text()
        return torch.zeros(view.kv_heads, view.tokens)


@dataclass(frozen=True)
class Around(Policy):
    inner: Policy

    def score(self, view: View) -> Tensor:
        return self.inner.score(view)


def test_files_that_parameters_name_may_be_read(file: Path) -> None:
    check_reads_are_in_the_key(Reader(heads=str(file), more=(str(file),)), count=2)


def test_a_checkpoint_covers_what_is_read(file: Path) -> None:
    class Loads(Reader):
        def ready(self, model: LoadedModel, seed: int) -> Policy:
            file.read_text()
            return super().ready(model, seed)

    check_reads_are_in_the_key(Loads(digest="abc"), count=2)
    with pytest.raises(Mistake, match=r"^ready reads the file '.*table.json', which no key covers"):
        check_reads_are_in_the_key(Loads(), count=2)


def test_a_score_function_is_watched_too(file: Path) -> None:
    @as_policy()
    def reading(view: View) -> Tensor:
        file.read_text()
        return torch.zeros(view.kv_heads, view.tokens)

    def innocent(view: View) -> Tensor:
        return torch.zeros(view.kv_heads, view.tokens)

    with pytest.raises(Mistake, match=r"^the policy reads the file '.*table.json', which no key"):
        check_reads_are_in_the_key(reading, count=2)
    check_reads_are_in_the_key(innocent, count=2)


def test_data_of_the_policys_own_package_may_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "kv_with_data"
    package.mkdir()
    (package / "table.txt").write_text("2")
    (package / "__init__.py").write_text(
        "from pathlib import Path\n"
        "import torch\n"
        "from kvharness import Policy\n"
        "def score(view):\n"
        "    power = float(Path(__file__).with_name('table.txt').read_text())\n"
        "    return torch.full((view.kv_heads, view.tokens), power)\n"
        "class Score(Policy):\n"
        "    def score(self, view):\n"
        "        return score(view)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made: Any = __import__("kv_with_data")
    assert owner_of("kv_with_data") is None
    check_reads_are_in_the_key(made.score, count=2)
    # A policy around it, or derived from it, brings its data along.
    check_reads_are_in_the_key(Around(inner=made.Score()), count=2)
    check_reads_are_in_the_key(type("Derived", (made.Score,), {"__module__": __name__})(), count=2)


def test_a_conformance_run_names_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("1")
    (tmp_path / "test_it.py").write_text(
        "from pathlib import Path\n"
        "import torch\n"
        "from kvharness import Policy\n"
        "from kvharness.testing import parametrize_with_checks\n"
        "class Reads(Policy):\n"
        "    def score(self, view):\n"
        f"        Path({str(tmp_path / 'data.txt')!r}).read_text()\n"
        "        return torch.zeros(view.kv_heads, view.tokens)\n"
        "@parametrize_with_checks([Reads()])\n"
        "def test_reads(policy, check):\n"
        "    check(policy)\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-k",
            "reads_are",
            "-pno:cacheprovider",
            str(tmp_path),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "Mistake: the policy reads the file '" in done.stdout
    assert "let checkpoint return its digest" in done.stdout
