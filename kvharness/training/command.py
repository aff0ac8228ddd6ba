"""`kvharness train`: learned policies of installed packages, on text that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from kvharness.errors import UsageProblem
from kvharness.settings.table import SettingTable
from kvharness.training.offered import TRAINERS, add_choice, load, own_parser

if TYPE_CHECKING:
    import argparse

    from kvharness.training.job import Job, Trainer

_MOST_SEEDS = 1000


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments; a trainer's own are known once it is chosen."""
    add_choice(parser, TRAINERS, "what to train")


def run(given: argparse.Namespace) -> int:
    """Train; exit status 0 also where every seed had been trained before."""
    trainer = cast("Trainer", load(TRAINERS, given.policy))
    parser = own_parser("train", given.policy, trainer)
    add_source(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where weights go")
    seeds = SettingTable.seeds
    told = f"seeds 0 .. N-1 (default: {seeds.default})"
    parser.add_argument(seeds.flag, default=seeds.default, metavar=seeds.metavar, help=told)
    trainer.add(parser)
    options = parser.parse_args(given.rest)
    trainer.train(open_job(given.policy, options, seeds=_seeds(options.kv_seeds)))
    return 0


def add_source(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Declare the text and the model that reads it."""
    parser.add_argument(
        "--text",
        action="append",
        required=required,
        metavar="SOURCE",
        help="training text, repeatable: a .txt file, a folder of them, a .jsonl or .parquet file "
        "or a Hub data set with a field 'text'",
    )
    for each in (SettingTable.model, SettingTable.device):
        parser.add_argument(
            each.flag, default=each.default, metavar=each.metavar, help="as in a run"
        )


def open_job(policy: str, options: argparse.Namespace, *, seeds: tuple[int, ...]) -> Job:
    """Read the text and load the model that the options name."""
    from kvharness.model.loaded import Runtime  # noqa: PLC0415
    from kvharness.pretrained.find import find_model  # noqa: PLC0415 - --help needs no torch
    from kvharness.training.corpus import Corpus  # noqa: PLC0415
    from kvharness.training.job import Job, say  # noqa: PLC0415

    say(f"reading {', '.join(options.text)}")
    corpus = Corpus.read(options.text)
    say(f"loading {options.kv_model}")
    return Job(
        policy=policy,
        runtime=Runtime.load(find_model(options.kv_model), device=options.kv_device),
        corpus=corpus,
        sources=tuple(Path(source).name for source in options.text),
        seeds=seeds,
        out=options.out,
        options=options,
    )


def _seeds(text: str) -> tuple[int, ...]:
    count = int(text) if text.isdecimal() else 0
    if not 0 < count <= _MOST_SEEDS:
        raise UsageProblem(f"--kv-seeds {text!r}: expected a number from 1 to {_MOST_SEEDS}")
    return tuple(range(count))
