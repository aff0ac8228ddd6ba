"""Five figures about SIP: convergence, calibration, information, attention paradox, oracle ladder.

They are drawn from measurements in a folder, those that come with this package unless --data names
another one. What that folder lacks is measured first, which takes the training's own --text and
--out, and a --store of records for the ladder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvharness import UsageProblem
from kvharness_policies.measurement import read_measurement, write_measurement
from kvharness_policies.sip.trainer import NOTEBOOK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from kvharness.training import Checkpoint, Job
    from kvharness_policies.sip.collection import Collection

SHIPPED = Path(__file__).parents[2] / "measured"
_AHEAD = 64


def add(parser: argparse.ArgumentParser) -> None:
    """Declare SIP's own arguments."""
    parser.add_argument(
        "--data", type=Path, default=SHIPPED, metavar="DIR", help="folder of measurements"
    )
    parser.add_argument(
        "--store", type=Path, metavar="STORE", help="records of sip, position and random"
    )
    parser.add_argument("--context", type=int, default=1024, help="as in the training")
    parser.add_argument(
        "--steps", type=int, default=500, help="of each network of the information analysis"
    )


def analyse(options: argparse.Namespace, job: Callable[[], Job]) -> Sequence[Path]:
    """Measure what the folder lacks, then draw."""
    from kvharness.analysis import save  # noqa: PLC0415 - matplotlib
    from kvharness_policies.sip.analysis import plots  # noqa: PLC0415

    _measure(options, job)
    content = {name: read_measurement(options.data / f"{name}.json") for name in _MEASURES}
    drawn: dict[str, Figure] = {
        "training_convergence": plots.convergence(content["convergence"]),
        "calibration_curve": plots.calibration(content["calibration"]),
        "information_analysis": plots.information(content["information"]),
        "attention_paradox": plots.paradox(content["paradox"]),
        "oracle_ladder": plots.ladder(content["ladder"]),
    }
    return [path for name, figure in drawn.items() for path in save(figure, options.figures, name)]


def _measure(options: argparse.Namespace, job: Callable[[], Job]) -> None:
    lacking = [name for name in _MEASURES if not (options.data / f"{name}.json").is_file()]
    if not lacking:
        unread = [name for name in ("store", "text", "out") if getattr(options, name)]
        if unread:
            flags = " and ".join(f"--{name}" for name in unread)
            said = f"{options.data} lacks no measurement, so {flags} is not read"
            print(f"kvharness: {said}; another --data DIR is measured anew")  # noqa: T201
        return
    needed = {"--store": options.store} if "ladder" in lacking else {}
    if lacking != ["ladder"]:
        needed |= {"--text": options.text, "--out": options.out}
    absent = [flag for flag, given in needed.items() if not given]
    if absent:
        raise UsageProblem(
            f"{options.data} lacks {', '.join(lacking)}; to measure that, also give "
            f"{' and '.join(absent)}"
        )
    bench = Bench(options, job)
    for name in lacking:
        write_measurement(options.data / f"{name}.json", _MEASURES[name](bench))


class Bench:
    """What measurements share; the model is loaded when the first one asks for it."""

    def __init__(self, options: argparse.Namespace, job: Callable[[], Job]) -> None:
        self.options = options
        self._open = job
        self._job: Job | None = None

    @property
    def job(self) -> Job:
        if self._job is None:
            self._job = self._open()
        return self._job

    @property
    def collection(self) -> Collection:
        from kvharness_policies.sip.collection import Collection  # noqa: PLC0415 - torch

        return Collection.open(self.options.out / "traces")

    def origin(self) -> dict[str, Any]:
        source = self.job.runtime.source
        return {
            "model": source.name,
            "model_digest": source.digest,
            "corpus": self.job.corpus.digest,
            "passages": len(self.collection.passages(held_out=True)),
        }


def _scorers(bench: Bench) -> list[Checkpoint]:
    """All trainings that share their labels; the notebook's network has others."""
    from kvharness.training import all_checkpoints  # noqa: PLC0415 - torch

    found = all_checkpoints(bench.options.out, policy="sip", source=bench.job.runtime.source)
    return [each for each in found if each.manifest.variant != NOTEBOOK]


def _convergence(bench: Bench) -> dict[str, Any]:
    trainings = [
        {
            "variant": each.manifest.variant,
            "seed": each.manifest.seed,
            "seconds": each.manifest.seconds,
            "curves": each.manifest.curves,
        }
        for each in _scorers(bench)
    ]
    return {**bench.origin(), "trainings": trainings}


def _calibration(bench: Bench) -> dict[str, Any]:
    from kvharness_policies.sip.analysis.reliability import measure  # noqa: PLC0415 - torch

    job = bench.job
    found = measure(
        bench.collection,
        _scorers(bench),
        device=job.runtime.device,
        progress=lambda steps: job.progress(steps, "calibration"),
    )
    return {**bench.origin(), "scorers": [each.as_dict() for each in found]}


def _information(bench: Bench) -> dict[str, Any]:
    from kvharness import LoadedModel  # noqa: PLC0415 - torch
    from kvharness_policies.sip.analysis.information import Recipe, entropy, measure  # noqa: PLC0415
    from kvharness_policies.sip.policy import shape_of  # noqa: PLC0415

    job = bench.job
    model = LoadedModel(source=job.runtime.source, module=job.runtime.model)
    bits = measure(
        bench.collection,
        shape_of(model, "small"),
        Recipe(steps=bench.options.steps),
        device=job.runtime.device,
        progress=lambda steps: job.progress(steps, "information"),
    )
    return {**bench.origin(), "entropy": entropy(), "bits": bits}


def _paradox(bench: Bench) -> dict[str, Any]:
    from kvharness_policies.sip.analysis.paradox import measure  # noqa: PLC0415 - torch
    from kvharness_policies.sip.policy import SIP  # noqa: PLC0415

    job = bench.job
    found = measure(
        job.runtime,
        job.windows(context=bench.options.context, ahead=_AHEAD),
        SIP(weights=str(bench.options.out)),
        progress=lambda steps: job.progress(steps, "paradox"),
    )
    return {**bench.origin(), "policy": "sip", "agreements": [each.as_dict() for each in found]}


def _ladder(bench: Bench) -> dict[str, Any]:
    from kvharness_policies.sip.analysis.ladder import METRIC, measure  # noqa: PLC0415 - scipy

    found = measure(bench.options.store, say=print)
    return {"metric": METRIC, "rungs": [each.as_dict() for each in found]}


_MEASURES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "convergence": _convergence,
    "calibration": _calibration,
    "information": _information,
    "paradox": _paradox,
    "ladder": _ladder,
}
