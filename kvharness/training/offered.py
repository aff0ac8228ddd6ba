"""What installed packages offer to train and to analyse: modules behind entry points."""

from __future__ import annotations

import argparse
import difflib
from typing import TYPE_CHECKING

from kvharness._entry_points import entry_points_of
from kvharness.errors import TrainingProblem, UsageProblem

if TYPE_CHECKING:
    import importlib.metadata

TRAINERS = "kvharness.trainers"
ANALYSTS = "kvharness.analysts"


def offered(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Entry points of a group by name."""
    return {entry.name: entry for entry in entry_points_of(group)}


def add_choice(parser: argparse.ArgumentParser, group: str, purpose: str) -> None:
    """Declare which of them is meant; its own arguments are known once it is chosen."""
    names = ", ".join(sorted(offered(group))) or "none is installed"
    parser.add_argument("policy", metavar="POLICY", help=f"{purpose}: {names}")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="see POLICY --help")


def own_parser(command: str, name: str, module: object) -> argparse.ArgumentParser:
    """The parser of one of them, which its docstring's first paragraph describes."""
    described = " ".join((module.__doc__ or "").partition("\n\n")[0].split())
    return argparse.ArgumentParser(prog=f"kvharness {command} {name}", description=described)


def load(group: str, name: str) -> object:
    """What an entry point stands for.

    Raises:
        UsageProblem: no installed package has it.
        TrainingProblem: it cannot be imported.
    """
    known = offered(group)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        names = ", ".join(sorted(known)) or "none; run pip install kvharness-policies"
        verb = "trains" if group == TRAINERS else "analyses"
        raise UsageProblem(f"no installed package {verb} {name!r}.{hint} Installed: {names}")
    entry = known[name]
    where = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
    try:
        return entry.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TrainingProblem(f"{group} {name!r} of {where}: {reason}") from error
