"""A figure about DapQ: does it matter more where a made-up query stands, or what it says?

It is drawn from `nearness.json` in the folder --data; where that is missing it is measured first,
on the first window of each passage of --text, whose true continuation is the standard.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kvharness import UsageProblem
from kvharness_policies.measurement import read_measurement, write_measurement

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from kvharness.training import Job

SHIPPED = Path(__file__).parents[1] / "measured"
#: Less leaves nothing to choose beside what the contract protects.
_LEAST = 64


def add(parser: argparse.ArgumentParser) -> None:
    """Declare DapQ's own arguments."""
    parser.add_argument(
        "--data",
        type=Path,
        default=SHIPPED,
        metavar="DIR",
        help="folder of the measurement (default: that of the embedded model)",
    )
    parser.add_argument("--context", type=int, default=1024, help="tokens of a context")
    parser.add_argument("--queries", type=int, default=32, help="of each kind")
    parser.add_argument("--passages", type=int, default=64, help="at most so many")


def analyse(options: argparse.Namespace, job: Callable[[], Job]) -> Sequence[Path]:
    """Measure if there is no measurement, then draw."""
    from kvharness.analysis import save  # noqa: PLC0415 - matplotlib
    from kvharness_policies.pseudo import plots  # noqa: PLC0415

    file = options.data / "nearness.json"
    if not file.is_file():
        _check(options)
        _measure(options, job(), file)
    figure = plots.nearness(read_measurement(file))
    return save(figure, options.figures, "query_nearness")


def _check(options: argparse.Namespace) -> None:
    if not options.text:
        raise UsageProblem(f"{options.data} lacks nearness; to measure that, also give --text")
    for name, least in (("context", _LEAST), ("queries", 1), ("passages", 2)):
        given = getattr(options, name)
        if given < least:
            raise UsageProblem(f"--{name} {given}: expected {least} or more")


def _measure(options: argparse.Namespace, job: Job, file: Path) -> None:
    from kvharness_policies.pseudo.nearness import first_windows, measure  # noqa: PLC0415 - torch

    windows = job.windows(context=options.context, ahead=options.queries)
    found = measure(
        job.runtime,
        first_windows(windows, most=options.passages),
        progress=lambda steps: job.progress(steps, "nearness"),
    )
    source = job.runtime.source
    write_measurement(
        file,
        {
            "model": source.name,
            "model_digest": source.digest,
            "corpus": job.corpus.digest,
            "context": options.context,
            "queries": options.queries,
            "nearness": [each.as_dict() for each in found],
        },
    )
