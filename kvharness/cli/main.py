"""The `kvharness` command: what is installed, and what a store holds."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import inspect
import re
from typing import TYPE_CHECKING

from tabulate import tabulate

from kvharness.cli.reading import warn
from kvharness.contract import Anchor
from kvharness.discovery import registry
from kvharness.discovery.presses import INSTALL, NAMING, peer_version
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import KvharnessError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = """\
examples:
  kvharness policies                    what can be given to --policy
  kvharness show                        the tables of the store .kvharness, without a model
  kvharness claims .kvharness           the verdicts on its claims
  kvharness budget --policy snapkv      how far snapkv may compress
  kvharness new-policy mine             a package for a policy of your own
  kvharness report -o report.html       a page with curves, verdicts and every output
  pytest suites --policy=snapkv         run one policy beside the anchors
  pytest suites --help                  every option of a run
"""


_CLOSED_PIPE = 141
_PAPER = re.compile(r" \((arXiv \d{4}\.\d{4,5})\)")
_SOURCE = re.compile(r"Source: ([^;,.]+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0, or 1 for a verdict that was not expected, or 2 for what the user has to change.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        return given.run(given) or 0
    except KvharnessError as error:
        warn(str(error))
        return 2
    except BrokenPipeError:
        # As a shell reports a process that a closed pipe ended: never 0, nothing was decided.
        return _CLOSED_PIPE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvharness",
        description="Claims about KV-cache compression as regression tests.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = importlib.metadata.version("kvharness")
    parser.add_argument("--version", action="version", version=f"kvharness {version}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, function, text in (
        (
            "policies",
            _policies,
            "list installed policies with their distribution, status and source",
        ),
        ("suites", _suites, "list suites with their metric"),
        ("models", _models, "list embedded models and how to install them"),
    ):
        commands.add_parser(name, help=text, description=text).set_defaults(run=function)
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text}; needs no model")
        _add(command, f"kvharness.cli.{name.replace('-', '_')}")
    text = "train a learned policy on text of your own"
    _add(commands.add_parser("train", help=text, description=text), "kvharness.training.command")
    text = "draw what a learned policy knows"
    _add(commands.add_parser("analyse", help=text, description=text), "kvharness.training.analysis")
    return parser


#: Each is a module of `kvharness.cli`.
_COMMANDS = {
    "show": "print the tables of a store",
    "claims": "judge the claims on a store",
    "compare": "show what changed between two stores",
    "budget": "find the smallest retention that is certified not worse than the full cache",
    "report": "write an HTML page, and figures",
    "agree": "check that a fresh run does what a recording says",
    "pack": "compress a store into a recording for version control",
    "new-policy": "write a package for a policy of your own",
}


def _add(parser: argparse.ArgumentParser, home: str) -> None:
    module = importlib.import_module(home)
    module.add(parser)
    parser.set_defaults(run=module.run)


def _policies(_: argparse.Namespace) -> None:
    known = registry.installed()
    rows = []
    for name, found in known.items():
        status, source, summary = _status(name, known)
        rows.append([name, f"{found.distribution} {found.version}", status, source, summary])
    _print(tabulate(rows, headers=["policy", "distribution", "status", "source", "what it keeps"]))
    if not rows:
        _print("none is installed; run\n    pip install kvharness-policies")
    version = peer_version()
    state = f"kvpress {version} is installed" if version else f"kvpress is not installed; {INSTALL}"
    _print(f"\n{NAMING}. {state}")


def _status(name: str, known: dict[str, registry.Installed]) -> tuple[str, str, str]:
    """Whether a policy loads, and its docstring's source and first line."""
    try:
        offered, oracle = _offered(name, known)
    except KvharnessError as error:
        return "broken", "", str(error)
    text = inspect.getdoc(offered) or ""
    summary = _PAPER.sub("", text.partition("\n")[0])
    return _standing(known[name], oracle=oracle), _source(text), summary


def _standing(found: registry.Installed, *, oracle: bool) -> str:
    if found.name in set(Anchor):
        return "anchor"
    if found.wraps:
        return "wrapper"
    if oracle:
        return "oracle"
    return "on request" if found.on_request else "ready"


def _source(text: str) -> str:
    """The paper in a docstring's first line, or the beginning of what follows ``Source:``."""
    paper = _PAPER.search(text.partition("\n")[0])
    if paper:
        return paper[1]
    told = _SOURCE.search(text)
    return " ".join(told[1].replace("`", "").split()) if told else ""


def _offered(name: str, known: dict[str, registry.Installed]) -> tuple[object, bool]:
    """What carries the docstring, and whether it knows the true answers."""
    if known[name].wraps:
        return registry.imported(known[name], name), False
    loaded = registry.load(PolicySpec(name=name), known)
    return getattr(loaded.policy, "function", loaded.policy), loaded.oracle


def _suites(_: argparse.Namespace) -> None:
    from kvharness.items.suites import SUITES  # noqa: PLC0415 - other commands need no generators

    rows = [[suite.name, suite.score, suite.collected, suite.summary] for suite in SUITES.values()]
    _print(tabulate(rows, headers=["suite", "score", "collected", "what it asks"]))


def _models(_: argparse.Namespace) -> None:
    from kvharness.pretrained.find import EMBEDDED  # noqa: PLC0415

    rows = [
        [
            model.name,
            "installed" if model.weights() else "not installed",
            model.install,
            f"{model.note}; {model.licence}",
        ]
        for model in EMBEDDED.values()
    ]
    _print(tabulate(rows, headers=["model", "status", "install", "note"]))
    _print("\n--kv-model also takes a local path (as save_pretrained writes it) or a Hub id.")


def _print(text: str) -> None:
    print(text)  # noqa: T201
