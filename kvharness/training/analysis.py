"""`kvharness analyse`: figures of what a learned policy knows, from stored measurements."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from kvharness.training.command import add_source, open_job
from kvharness.training.offered import ANALYSTS, add_choice, load, own_parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from kvharness.training.job import Job


class Analyst(Protocol):
    """What an entry point of ``kvharness.analysts`` is: a module or object with these."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Declare arguments beside the common ones."""

    def analyse(self, options: argparse.Namespace, job: Callable[[], Job]) -> Sequence[Path]:
        """Measure what is to be measured, draw everything; returns the files of the figures.

        ``job`` reads ``options.text`` and loads the model.
        """


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments; an analyst's own are known once it is chosen."""
    add_choice(parser, ANALYSTS, "what to look at")


def run(given: argparse.Namespace) -> int:
    """Draw; exit status 0."""
    analyst = cast("Analyst", load(ANALYSTS, given.policy))
    parser = own_parser("analyse", given.policy, analyst)
    parser.add_argument(
        "--figures",
        type=Path,
        default=Path("figures"),
        metavar="DIR",
        help="where PNG and PDF files go (default: figures)",
    )
    add_source(parser, required=False)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder that kvharness train was given as --out"
    )
    analyst.add(parser)
    options = parser.parse_args(given.rest)
    for file in analyst.analyse(options, partial(open_job, given.policy, options, seeds=())):
        print(file)  # noqa: T201
    return 0
