"""Train LKV, learned budgets of heads and scores of tokens (arXiv 2605.06676)."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from kvharness import UsageProblem

if TYPE_CHECKING:
    import argparse

    from kvharness.training import Job, Window
    from kvharness_policies.lkv.training import Sample

AHEAD = 64
_VARIANT = "small"
#: Words of a passage that the model is given before it has to recall the rest.
_CUE, _RECALLED = 16, 48
_HELD_OUT = 8


def add(parser: argparse.ArgumentParser) -> None:
    """Declare LKV's own arguments."""
    from kvharness.training import count  # noqa: PLC0415 - other commands need no trainer

    parser.add_argument(
        "--context", type=count, default=1024, help="tokens of a context (default: 1024)"
    )
    parser.add_argument("--steps", type=count, default=500, help="of training (default: 500)")
    parser.add_argument(
        "--samples", type=count, default=64, help="contexts to train on (default: 64)"
    )


def train(job: Job) -> None:
    """Read the contexts once, then train the seeds that have no weights yet."""
    from kvharness import LoadedModel  # noqa: PLC0415 - --help needs no torch
    from kvharness_policies.lkv.policy import shape_of  # noqa: PLC0415
    from kvharness_policies.lkv.training import Recipe, Training, new_network  # noqa: PLC0415

    shape = shape_of(LoadedModel(source=job.runtime.source, module=job.runtime.model))
    recipe = Recipe(steps=job.options.steps)
    parameters = {
        "shape": asdict(shape),
        "recipe": asdict(recipe),
        "data": {"context": job.options.context, "samples": job.options.samples},
    }
    waiting = [seed for seed in job.seeds if not job.has(_VARIANT, seed, parameters)]
    if not waiting:
        job.say("every seed was trained before")
        return
    samples = _samples(job)
    for seed in waiting:
        start = time.perf_counter()
        network = new_network(samples, shape, seed=seed).to(job.runtime.device)
        training = Training(job.runtime, samples, network, recipe, seed=seed)
        curves = training.run(progress=partial(job.progress, label=f"seed {seed}"), say=job.say)
        job.publish(
            network.state_dict(),
            variant=_VARIANT,
            seed=seed,
            tokens=sum(sample.context.tokens + AHEAD for sample in samples if not sample.held_out),
            code="kvharness_policies.lkv.training",
            parameters=parameters,
            curves=[asdict(point) for point in curves],
            seconds=time.perf_counter() - start,
        )


def _samples(job: Job) -> list[Sample]:
    windows = job.windows(context=job.options.context, ahead=AHEAD)
    seen = [window for window in windows if not window.held_out]
    out = [window for window in windows if window.held_out]
    chosen = [*_every(seen, job.options.samples), *_every(out, _HELD_OUT)]
    start = time.perf_counter()
    made = [
        _sample(job, window, number)
        for number, window in enumerate(job.progress(chosen, "reading"))
    ]
    job.say(f"{len(made)} contexts read in {time.perf_counter() - start:.0f} s")
    return made


def _every(windows: list[Window], count: int) -> list[Window]:
    count = min(count, len(windows))
    return [windows[index * len(windows) // count] for index in range(count)]


def _sample(job: Job, window: Window, number: int) -> Sample:
    """Every other context goes on as its text does; the others are asked for a passage of it."""
    import torch  # noqa: PLC0415

    from kvharness.training import prefill  # noqa: PLC0415
    from kvharness_policies.lkv.training import Sample, answer_logprobs  # noqa: PLC0415

    lead, answer = _continued(window) if number % 2 else _recalled(job, window, number)
    context, _ = prefill(job.runtime, window.tokens[: window.context])
    with torch.no_grad():
        teacher = answer_logprobs(job.runtime, context, lead, answer, None).half()
    return Sample(
        context=context, lead=lead, answer=answer, teacher=teacher, held_out=window.held_out
    )


def _continued(window: Window) -> tuple[tuple[int, ...], tuple[int, ...]]:
    ahead = window.tokens[window.context :]
    return ahead[:1], ahead[1:]


def _recalled(job: Job, window: Window, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The start of a passage somewhere in the context, to be completed in the reply."""
    import torch  # noqa: PLC0415

    rng = torch.Generator().manual_seed(number)
    last = window.context - _CUE - _RECALLED
    if last <= window.head:
        least = window.head + _CUE + _RECALLED + 1
        raise UsageProblem(f"--context {window.context}: expected {least} tokens or more")
    start = window.head + int(torch.randint(last - window.head, (), generator=rng))
    passage = window.tokens[start : start + _CUE + _RECALLED]
    encoder = job.runtime.encoder
    asked = encoder.question("Quote the passage of the text that begins with the words given.")
    return (*asked, *encoder.tail(""), *passage[:_CUE]), passage[_CUE:]
