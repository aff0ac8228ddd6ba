"""Trained weights on disk: written whole, found by model, policy and seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from kvharness.errors import TrainingProblem
from kvharness.training.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor
    from torch.nn import Module

    from kvharness.pretrained.find import ModelSource

Network = TypeVar("Network", bound="Module")
#: What networks raise that are given sizes of another kind, or weights of other sizes.
_UNFIT = (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)
#: Characters of torch's words that a message repeats.
_REASON = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One file of weights and its manifest."""

    file: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """16 hex digits over the weights."""
        with self.file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def tensors(self) -> dict[str, Tensor]:
        """The weights in float32.

        Raises:
            TrainingProblem: the file is damaged.
        """
        from safetensors import SafetensorError  # noqa: PLC0415 - keys need no torch
        from safetensors.torch import load_file  # noqa: PLC0415

        try:
            return {name: tensor.float() for name, tensor in load_file(self.file).items()}
        except (OSError, SafetensorError) as error:
            raise TrainingProblem(
                f"{self.file}: cannot be read ({error}); remove it and train it again"
            ) from None

    def network(self, build: Callable[[dict[str, Any]], Network]) -> Network:
        """The network that ``build`` makes of the manifest's parameters, with the weights.

        Raises:
            TrainingProblem: the file is damaged, or holds other weights than such a network's.
        """
        tensors = self.tensors()
        try:
            made = build(self.manifest.parameters)
            made.load_state_dict(tensors)
        except _UNFIT as error:
            reason = " ".join(str(error).split())[:_REASON]
            raise TrainingProblem(
                f"{self.file}: does not fit what its manifest describes ({type(error).__name__}: "
                f"{reason}); train it again with kvharness train {self.manifest.policy}"
            ) from None
        return made


def checkpoint_file(root: Path, model_digest: str, policy: str, variant: str, seed: int) -> Path:
    """Where weights lie below a folder of weights."""
    return root / model_digest / f"{policy}-{variant}-s{seed}.safetensors"


def write_checkpoint(root: Path, manifest: Manifest, tensors: Mapping[str, Tensor]) -> Checkpoint:
    """Store weights in float16 with their manifest; a killed run leaves neither half."""
    from safetensors.torch import save_file  # noqa: PLC0415 - torch

    file = checkpoint_file(
        root, manifest.model_digest, manifest.policy, manifest.variant, manifest.seed
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    work, beside = file.with_suffix(".part"), file.with_suffix(".json")
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, work)
    beside.write_text(manifest.text(), encoding="utf-8")
    # The weights come last: where they are, the manifest is whole.
    work.rename(file)
    return Checkpoint(file=file, manifest=manifest)


def find_checkpoint(
    roots: Sequence[Path],
    *,
    policy: str,
    variant: str,
    source: ModelSource,
    seed: int,
    options: str = "",
) -> Checkpoint:
    """The weights for a model and seed, from the first folder that has them.

    ``options`` of ``kvharness train`` make this variant; a message repeats them.

    Raises:
        TrainingProblem: none has; says which seeds there are, and what trains more.
    """
    for root in roots:
        file = checkpoint_file(root, source.digest, policy, variant, seed)
        if file.is_file():
            return read_checkpoint(file)
    for root in roots:
        if not root.is_dir():
            raise TrainingProblem(f"{policy}: there is no folder {str(root)!r} with weights")
    known = _seeds(roots, source, f"{policy}-{variant}-s")
    raise TrainingProblem(
        f"no {variant} weights of seed {seed} for the model {source.name} ({source.digest}): "
        f"{known}; train them with kvharness train {policy}{options and ' '}{options} "
        f"--kv-model {source.name} --kv-seeds {seed + 1} "
        f"--text FILE --out DIR, and run {policy}(weights='DIR')"
    )


def read_checkpoint(file: Path) -> Checkpoint:
    """Weights with their manifest.

    Raises:
        TrainingProblem: the manifest cannot be read, or is of weights of another name: the file
            was copied or renamed to what it is not.
    """
    found = Manifest.read(file.with_suffix(".json"))
    root = file.parents[1]
    due = checkpoint_file(root, found.model_digest, found.policy, found.variant, found.seed)
    if due != file:
        raise TrainingProblem(
            f"{file}: its manifest is of {due.relative_to(root)}; put back the files that "
            f"kvharness train wrote under this name, or train them again"
        )
    return Checkpoint(file=file, manifest=found)


def all_checkpoints(root: Path, *, policy: str, source: ModelSource) -> list[Checkpoint]:
    """Every training of a policy for a model in one folder, variants and seeds in order.

    Raises:
        TrainingProblem: there is none, or a manifest cannot be read.
    """
    files = sorted((root / source.digest).glob(f"{policy}-*.safetensors"))
    if not files:
        raise TrainingProblem(
            f"{str(root)!r} holds no {policy} weights for the model {source.name} "
            f"({source.digest}); train them with kvharness train {policy} --out {root}"
        )
    return [read_checkpoint(file) for file in files]


def _seeds(roots: Sequence[Path], source: ModelSource, start: str) -> str:
    there = sorted(
        int(number)
        for root in roots
        for file in (root / source.digest).glob(f"{start}*.safetensors")
        if (number := file.stem.removeprefix(start)).isdigit()
    )
    return f"there are seeds {', '.join(map(str, there))}" if there else "there are none for it"
