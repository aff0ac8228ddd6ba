"""A policy that is ready to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvharness.discovery.spec import PolicySpec
    from kvharness.policy.interface import Policy


@dataclass(frozen=True, kw_only=True)
class LoadedPolicy:
    """A policy ready to run, with everything that names it in a record's key.

    ``digest`` computes `source`, which costs milliseconds and is needed of policies that run.
    """

    spec: PolicySpec
    policy: Policy
    distribution: str
    version: str
    digest: Callable[[], str] = field(repr=False, compare=False)
    parameters: str

    @cached_property
    def source(self) -> str:
        """16 hex digits over its code, its data, and the files that its parameters name."""
        return self.digest()

    @property
    def slug(self) -> str:
        return self.spec.slug

    @property
    def oracle(self) -> bool:
        """Whether it knows the true answers, so that it is a control and never ranked."""
        return any(each.future for each in self.policy.needs)

    def identity(self) -> dict[str, str]:
        return {
            "policy": str(self.spec),
            "distribution": self.distribution,
            "version": self.version,
            "source": self.source,
            "parameters": self.parameters,
        }
