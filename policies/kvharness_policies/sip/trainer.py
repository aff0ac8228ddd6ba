"""Train SIP, a scorer of cached tokens that sees keys, values and positions (arXiv 2601.14279)."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from kvharness import UsageProblem

if TYPE_CHECKING:
    import argparse

    from kvharness.training import Job, Window
    from kvharness_policies.sip.collection import Collection
    from kvharness_policies.sip.scorer import Shape
    from kvharness_policies.sip.training import Recipe

AHEAD = 64
PER_HEAD, NOTEBOOK = "per-head", "notebook"
_STEPS = {"small": 450, "1.7m": 1500, NOTEBOOK: 300}
_WINDOWS = {PER_HEAD: 480, NOTEBOOK: 160}


def add(parser: argparse.ArgumentParser) -> None:
    """Declare SIP's own arguments."""
    from kvharness.training import count  # noqa: PLC0415 - other commands need no trainer

    parser.add_argument(
        "--size",
        choices=("small", "1.7m"),
        default="small",
        help="small (100 thousand weights, the default) or the published 1.7m",
    )
    parser.add_argument(
        "--mode",
        choices=(PER_HEAD, NOTEBOOK),
        default=PER_HEAD,
        help="notebook: the published network, which sees layer 0 and keeps one set of tokens for "
        "the whole model; it collects traces of its own",
    )
    parser.add_argument(
        "--context", type=count, default=1024, help="tokens of a context (default: 1024)"
    )
    parser.add_argument(
        "--steps",
        type=count,
        help="of training (default: 450; 1500 for 1.7m; 300 for the notebook's network)",
    )
    parser.add_argument(
        "--windows",
        type=count,
        help="of 1,088 tokens to collect (default: 480; 160 for the notebook's network)",
    )
    parser.add_argument(
        "--layers", type=count, default=10, help="layers of each window to store (default: 10)"
    )
    parser.add_argument(
        "--features",
        default="position+keys+values",
        help="what the scorer sees: some of position, keys, values, prefill joined by '+', or all",
    )


def train(job: Job) -> None:
    """Collect traces once, then train the seeds that have no weights yet."""
    from kvharness_policies.sip.variant import variant_of  # noqa: PLC0415 - torch

    chosen = job.options
    try:
        variant = variant_of(size=chosen.size, features=chosen.features, mode=chosen.mode)
    except ValueError as error:
        raise UsageProblem(f"--{error}") from None
    parameters = _parameters(job)
    waiting = [seed for seed in job.seeds if not job.has(variant, seed, parameters)]
    for seed in sorted({*job.seeds} - {*waiting}):
        job.say(f"seed {seed}: trained before")
    if not waiting:
        return
    collection = _collect(job)
    for seed in waiting:
        _train_seed(job, collection, variant, seed)


def _parameters(job: Job) -> dict[str, Any]:
    """What makes another training of the same model, text and seed."""
    chosen = job.options
    data = {"context": chosen.context, "windows": _windows(job), "layers": chosen.layers}
    return {"shape": asdict(_shape(job)), "recipe": asdict(_recipe(job)), "data": data}


def _windows(job: Job) -> int:
    """How many to collect."""
    return int(job.options.windows or _WINDOWS[job.options.mode])


def _recipe(job: Job) -> Recipe:
    from kvharness_policies.sip.training import Recipe  # noqa: PLC0415 - --help needs no torch

    if job.options.mode == NOTEBOOK:
        # Every one of its steps reads all heads of the first layer eight times.
        steps = job.options.steps or _STEPS[NOTEBOOK]
        return Recipe(steps=steps, windows=1, rate=3e-4, mixed=True)
    size = job.options.size
    return Recipe(steps=job.options.steps or _STEPS[size], mixed=size != "small")


def _collect(job: Job) -> Collection:
    from kvharness_policies.sip.collection import Collection, Plan  # noqa: PLC0415 - torch

    mode = job.options.mode
    windows = _spread(job.windows(context=job.options.context, ahead=AHEAD), _windows(job))
    plan = Plan(
        model=job.runtime.source.digest,
        corpus=job.corpus.digest,
        context=job.options.context,
        ahead=AHEAD,
        windows=tuple(window.passage for window in windows),
        held_out=tuple(number for number, each in enumerate(windows) if each.held_out),
        layers=job.options.layers,
        mode=mode,
    )
    start = time.perf_counter()
    made = Collection.collect(
        job.out / ("traces" if mode == PER_HEAD else f"traces-{mode}"),
        plan,
        runtime=job.runtime,
        windows=windows,
        progress=lambda numbers: job.progress(list(numbers), "collecting"),
    )
    tokens = len(windows) * (plan.context + AHEAD)
    job.say(f"{tokens:,} tokens collected in {time.perf_counter() - start:.0f} s")
    return made


def _spread(windows: list[Window], count: int) -> list[Window]:
    """So many windows from all parts of the text, passages whole; all if there are fewer."""
    share = min(1.0, count / len(windows))
    chosen: set[str] = set()
    # Apart, so that the share that is held out stays as it is.
    for held_out in (False, True):
        names = list(dict.fromkeys(each.passage for each in windows if each.held_out == held_out))
        wanted = max(1, round(share * len(names)))
        chosen |= {names[index * len(names) // wanted] for index in range(wanted)}
    return [window for window in windows if window.passage in chosen]


def _train_seed(job: Job, collection: Collection, variant: str, seed: int) -> None:
    from kvharness_policies.sip.training import Watch  # noqa: PLC0415 - torch
    from kvharness_policies.sip.training import train as train_scorer  # noqa: PLC0415

    shape, recipe = _shape(job), _recipe(job)
    start = time.perf_counter()
    trained = train_scorer(
        collection,
        shape,
        recipe,
        seed=seed,
        device=job.runtime.device,
        watch=Watch(
            progress=lambda steps: job.progress(steps, f"seed {seed}"),
            say=lambda text: job.say(f"seed {seed}: {text}"),
        ),
    )
    job.publish(
        trained.scorer.state_dict(),
        variant=variant,
        seed=seed,
        tokens=len(collection.numbers(held_out=False)) * (collection.plan.context + AHEAD),
        code="kvharness_policies.sip.training",
        parameters=_parameters(job),
        curves=[asdict(point) for point in trained.curves],
        seconds=time.perf_counter() - start,
    )


def _shape(job: Job) -> Shape:
    from kvharness import LoadedModel  # noqa: PLC0415 - torch
    from kvharness_policies.sip.policy import shape_of  # noqa: PLC0415

    model = LoadedModel(source=job.runtime.source, module=job.runtime.model)
    shape = shape_of(model, job.options.size)
    return replace(shape, features=job.options.features, mode=job.options.mode)
