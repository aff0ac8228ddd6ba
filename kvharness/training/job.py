"""One training: the model, the text and where weights go; what a trainer is given."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from tqdm import tqdm

from kvharness.discovery.code_digest import code_digest
from kvharness.errors import UsageProblem
from kvharness.items.drawing import Drawing
from kvharness.items.suites import SUITES
from kvharness.training.checkpoint import checkpoint_file, read_checkpoint, write_checkpoint
from kvharness.training.manifest import Manifest
from kvharness.training.window import check_disjoint, cut

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from torch import Tensor

    from kvharness.model.loaded import Runtime
    from kvharness.training.corpus import Corpus
    from kvharness.training.window import Window

Step = TypeVar("Step")
#: Items that the training text is compared with: the default run's.
_SEEDS, _ITEMS, _CONTEXT = 5, 12, 1024
#: Seconds between two lines where there is no terminal for a bar.
_QUIET = 30.0


def say(text: str) -> None:
    """Tell the user, above a progress bar if there is one."""
    tqdm.write(f"kvharness: {text}")
    # Into a file, lines would wait for the end of the training.
    sys.stdout.flush()


class Trainer(Protocol):
    """What an entry point of ``kvharness.trainers`` is: a module or object with these."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Declare arguments beside the common ones."""

    def train(self, job: Job) -> None:
        """Train every seed of a job that has no weights yet."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train.

    Attributes:
        policy: name of the trainer.
        runtime: the observed model.
        corpus: the training text.
        sources: as the user named the text.
        seeds: to train.
        out: folder of the results.
        options: parsed arguments, the trainer's own among them.
    """

    policy: str
    runtime: Runtime
    corpus: Corpus
    sources: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    options: argparse.Namespace

    def windows(self, *, context: int, ahead: int) -> list[Window]:
        """Windows of the training text, none of which an evaluation item shares.

        Raises:
            KvharnessError: too little text, or text of the suites.
        """
        self.say("cutting the text into windows and comparing it with the items of the suites")
        encoder = self.runtime.encoder
        found = cut(self.corpus, encoder, context=context, ahead=ahead)
        drawn = (
            suite.draw(Drawing(encoder=encoder, context=_CONTEXT, seed=seed, count=_ITEMS))
            for suite in SUITES.values()
            for seed in range(_SEEDS)
        )
        check_disjoint(found, (item for items in drawn for item in items))
        return found

    def has(self, variant: str, seed: int, parameters: Mapping[str, Any]) -> bool:
        """Whether these weights were trained before.

        Raises:
            UsageProblem: on another text, or with other ``parameters``.
        """
        digest = self.runtime.source.digest
        file = checkpoint_file(self.out, digest, self.policy, variant, seed)
        if not file.is_file():
            return False
        manifest = read_checkpoint(file).manifest
        if manifest.corpus != self.corpus.digest:
            raise UsageProblem(f"{file} was trained on another text; give another --out")
        if other := _other(manifest.parameters, parameters):
            raise UsageProblem(f"{file} was trained with {other}; give another --out")
        return True

    def publish(  # noqa: PLR0913 - what a manifest says
        self,
        tensors: Mapping[str, Tensor],
        *,
        variant: str,
        seed: int,
        tokens: int,
        code: str,
        parameters: Mapping[str, Any],
        curves: Sequence[Mapping[str, float]],
        seconds: float,
    ) -> None:
        """Store one seed's weights with their manifest; ``code`` is the module that trains."""
        source = self.runtime.source
        manifest = Manifest(
            policy=self.policy,
            variant=variant,
            seed=seed,
            model=source.name,
            model_digest=source.digest,
            corpus=self.corpus.digest,
            sources=self.sources,
            tokens=tokens,
            code=code_digest([code]),
            versions=self._versions(),
            parameters=dict(parameters),
            curves=tuple(dict(point) for point in curves),
            seconds=seconds,
        )
        made = write_checkpoint(self.out, manifest, tensors)
        self.say(f"{made.file}: {seconds:.0f} s")

    def _versions(self) -> dict[str, str]:
        names = ("kvharness", "torch", "transformers")
        found = {name: importlib.metadata.version(name) for name in names}
        return {**found, "device": self.runtime.device.type, "dtype": self.runtime.dtype}

    def say(self, text: str) -> None:
        say(text)

    def progress(self, steps: Sequence[Step], label: str) -> Iterator[Step]:
        """The steps with a progress bar on a terminal, and a line now and then elsewhere."""
        told = time.monotonic()
        for number, step in enumerate(tqdm(steps, desc=label, leave=False, disable=None)):
            if not sys.stderr.isatty() and time.monotonic() - told >= _QUIET:
                told = time.monotonic()
                self.say(f"{label}: {number} of {len(steps)}")
            yield step


def _other(stored: Mapping[str, Any], given: Mapping[str, Any], name: str = "") -> str:
    """The first parameter that was another one; those that were not stored are not compared."""
    for key in sorted(stored.keys() & given.keys()):
        before, now, told = stored[key], given[key], f"{name}{key}"
        if isinstance(before, dict) and isinstance(now, dict):
            if found := _other(before, now, f"{told}."):
                return found
        # As JSON gives it back.
        elif json.loads(json.dumps(now)) != before:
            return f"{told}={before!r}, not {now!r}"
    return ""
