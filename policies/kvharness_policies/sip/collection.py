"""Traces of training text on disk: collected once, read by every seed and by the analyses."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from kvharness.training import TrainingProblem, observe_window
from kvharness_policies.sip.label import horizon_attention
from kvharness_policies.sip.notebook import STEPS
from kvharness_policies.sip.scorer import NOTEBOOK, PER_HEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from kvharness.training import Runtime, Window, WindowLayer

_INDEX = "collection.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is collected; two collections with equal plans hold the same.

    Attributes:
        model: digest of the model.
        corpus: digest of the text.
        context: tokens of each context, template head included.
        ahead: tokens of each continuation.
        windows: passage of each window.
        held_out: numbers of the windows that are never trained on.
        layers: layers of each window that are stored, drawn at random; all heads of each.
        mode: ``"notebook"`` stores the first layer alone, with the attention of all layers.
    """

    model: str
    corpus: str
    context: int
    ahead: int
    windows: tuple[str, ...]
    held_out: tuple[int, ...]
    layers: int
    mode: str = PER_HEAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One window's stored layers.

    Attributes:
        layers: int64 ``[L]``, which layers of the model these are.
        keys: ``[L, K, n, d]``, post-RoPE, in the model's dtype.
        values: ``[L, K, n, d]``.
        prefill: float32 ``[L, K, n]``, see `WindowLayer`.
        attention: float32 ``[L, K, 4, n]``, mean attention by horizon; in notebook mode that of
            each of the next 8 tokens, mean over all layers.
    """

    layers: Tensor
    keys: Tensor
    values: Tensor
    prefill: Tensor
    attention: Tensor


@dataclass(frozen=True, slots=True)
class Collection:
    """A folder of observed windows."""

    folder: Path
    plan: Plan

    @classmethod
    def open(cls, folder: Path) -> Collection:
        """One that was collected before.

        Raises:
            TrainingProblem: there is none, or it cannot be read.
        """
        file = folder / _INDEX
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            for name in ("windows", "held_out"):
                content[name] = tuple(content[name])
            plan = Plan(**content)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TrainingProblem(f"{file}: holds no collection ({error})") from None
        return cls(folder, plan)

    @classmethod
    def collect(
        cls,
        folder: Path,
        plan: Plan,
        *,
        runtime: Runtime,
        windows: Sequence[Window],
        progress: Callable[[Iterable[int]], Iterable[int]],
    ) -> Collection:
        """Observe the windows that the folder does not hold yet.

        Raises:
            TrainingProblem: the folder holds a collection of something else.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _INDEX).exists():
            if cls.open(folder).plan != plan:
                raise TrainingProblem(
                    f"{folder} holds traces of another model, text or size; give another --out, or "
                    f"remove that folder"
                )
        else:
            _write(folder / _INDEX, json.dumps(asdict(plan)).encode())
        made = cls(folder, plan)
        for number in progress([n for n in range(len(windows)) if not made._file(n).exists()]):
            made._observe(number, observe_window(runtime, windows[number]))
        return made

    def numbers(self, *, held_out: bool) -> list[int]:
        """Windows to train on, or those held out."""
        out = set(self.plan.held_out)
        return [n for n in range(len(self.plan.windows)) if (n in out) == held_out]

    def passages(self, *, held_out: bool) -> dict[str, list[int]]:
        """The same by passage: windows of one passage know each other."""
        found: dict[str, list[int]] = {}
        for number in self.numbers(held_out=held_out):
            found.setdefault(self.plan.windows[number], []).append(number)
        return found

    def read(self, number: int) -> Stored:
        """One window.

        Raises:
            TrainingProblem: its file is damaged.
        """
        with self._named(number):
            tensors = load_file(self._file(number))
        return Stored(**{k: v for k, v in tensors.items() if k in _FIELDS})

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of keys and values over the training text: ``[2, layers, K, d]``."""
        first, second = [], []
        for number in self.numbers(held_out=False):
            with self._named(number), safe_open(self._file(number), framework="pt") as file:
                first.append(file.get_tensor("mean"))
                second.append(file.get_tensor("square"))
        mean, square = torch.stack(first).mean(dim=0), torch.stack(second).mean(dim=0)
        return mean, (square - mean.square()).clamp(min=1e-6).sqrt()

    @contextmanager
    def _named(self, number: int) -> Iterator[None]:
        try:
            yield
        except SafetensorError as error:
            raise TrainingProblem(
                f"{self._file(number)}: cannot be read ({error}); remove it, and it is collected "
                f"again"
            ) from None

    def _file(self, number: int) -> Path:
        return self.folder / f"window-{number:05}.safetensors"

    def _observe(self, number: int, layers: Sequence[WindowLayer]) -> None:
        chosen, attention = self._chosen(number, layers)
        kept = [layers[index] for index in chosen]
        tensors = {
            "layers": torch.tensor(chosen),
            "keys": torch.stack([layer.keys for layer in kept]),
            "values": torch.stack([layer.values for layer in kept]),
            "prefill": torch.stack([layer.prefill for layer in kept]),
            "attention": attention,
            **_moments(layers),
        }
        work = self._file(number).with_suffix(".part")
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, work)
        # A killed run never leaves half a window under the final name.
        work.rename(self._file(number))

    def _chosen(self, number: int, layers: Sequence[WindowLayer]) -> tuple[list[int], Tensor]:
        """Which layers are stored, and the attention that their labels follow from."""
        if self.plan.mode == NOTEBOOK:
            return [0], torch.stack([layer.future[:, :STEPS] for layer in layers]).mean(dim=0)[None]
        rng = torch.Generator().manual_seed(number)
        drawn = torch.randperm(len(layers), generator=rng)[: self.plan.layers]
        chosen = sorted(drawn.tolist())
        return chosen, torch.stack([horizon_attention(layers[index].future) for index in chosen])


_FIELDS = tuple(Stored.__dataclass_fields__)


def _moments(layers: Sequence[WindowLayer]) -> dict[str, Tensor]:
    """Mean and mean square over the tokens of every layer, also of those not stored."""
    both = torch.stack(
        [
            torch.stack([layer.keys.float() for layer in layers]),
            torch.stack([layer.values.float() for layer in layers]),
        ]
    )
    return {"mean": both.mean(dim=-2), "square": both.square().mean(dim=-2)}


def _write(file: Path, content: bytes) -> None:
    work = file.with_suffix(".part")
    work.write_bytes(content)
    work.rename(file)
