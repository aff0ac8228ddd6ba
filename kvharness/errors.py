"""The errors kvharness raises on purpose; each message says what to do next."""

from __future__ import annotations


class KvharnessError(Exception):
    """Base of the errors that are shown without a traceback."""


class UsageProblem(KvharnessError):  # noqa: N818 - reads as what it is in messages
    """The user asked for something that cannot be done; nothing was computed."""


class ModelProblem(KvharnessError):  # noqa: N818
    """No model could be found or loaded, or it cannot be observed."""


class StoreProblem(KvharnessError):  # noqa: N818
    """A store cannot be read or written, or is of another schema."""


class DataProblem(KvharnessError):  # noqa: N818
    """A data file or Hub set does not have the layout that was expected."""


class PolicyProblem(KvharnessError):  # noqa: N818
    """A policy could not be loaded or broke its part of the interface."""

    def __init__(self, policy: str, message: str, *, layer: int | None = None) -> None:
        where = "" if layer is None else f" (layer {layer})"
        super().__init__(f"policy {policy!r}{where}: {message}")
        self.policy = policy
        self.layer = layer


class ParameterProblem(PolicyProblem):
    """A policy was given parameters that it cannot be built with."""


class ClaimProblem(KvharnessError):  # noqa: N818
    """A claims file cannot be read or holds what is no claim."""


class TrainingProblem(KvharnessError):  # noqa: N818
    """Weights cannot be trained, or none fit the model and seed."""
