"""What weights are: for which model, from which text, by which code, with which curves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from kvharness.errors import TrainingProblem

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that says where weights come from; stored beside them as JSON.

    Attributes:
        policy: as on the command line.
        variant: which of the policy's trainings this is, such as its size.
        seed: of initial weights and order of the data.
        model: name of the model that was observed.
        model_digest: of its weights, configuration and tokenizer.
        corpus: digest of the training text.
        sources: where the text comes from, to read.
        tokens: of the text that were trained on.
        code: digest of the training code.
        versions: of the packages it ran with, and the device.
        parameters: sizes and recipe.
        curves: points of training, in order.
        seconds: of this seed, without collecting.
    """

    policy: str
    variant: str
    seed: int
    model: str
    model_digest: str
    corpus: str
    sources: tuple[str, ...]
    tokens: int
    code: str
    versions: dict[str, str]
    parameters: dict[str, Any]
    curves: tuple[dict[str, float], ...]
    seconds: float

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, file: Path) -> Manifest:
        """From its file.

        Raises:
            TrainingProblem: missing, or not a manifest.
        """
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            known = {field.name for field in fields(cls)}
            given = {name: value for name, value in content.items() if name in known}
            given["sources"] = tuple(given["sources"])
            given["curves"] = tuple(given["curves"])
            made = cls(**given)
            made.check()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise TrainingProblem(
                f"{file}: is no manifest of trained weights ({error}); remove it and the weights "
                f"beside it, and train them again"
            ) from None
        return made

    def check(self) -> None:
        """Refuse what cannot be a manifest's.

        Raises:
            TypeError: a field that decides what the weights are has another type.
        """
        kinds = {"policy": str, "variant": str, "seed": int, "model_digest": str}
        for name, kind in {**kinds, "corpus": str, "parameters": dict}.items():
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} is not of type {kind.__name__}")
