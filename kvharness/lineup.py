"""The policies of a run: the anchors, then those that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness import registry
from kvharness.contract import Anchor
from kvharness.errors import ParameterProblem, PolicyProblem
from kvharness.spec import PolicySpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kvharness.registry import Installed, LoadedPolicy


class Lineup:
    """Policies by slug; they are imported by `load`, not before.

    Args:
        specs: of the policies, in the order of the cells.
        known: installed policies by name.
    """

    def __init__(self, specs: Sequence[PolicySpec], known: Mapping[str, Installed]) -> None:
        self.specs = list(specs)
        self.known = known
        self.policies: dict[str, LoadedPolicy] = {}
        self.broken: dict[str, PolicyProblem] = {}
        self._asked = frozenset(map(str, specs))

    @classmethod
    def of(cls, chosen: Sequence[str]) -> Lineup:
        """The anchors beside what is given to ``--policy``, or every installed policy.

        Raises:
            UsageProblem: one of them is not installed.
        """
        known = registry.installed()
        given = registry.resolve(chosen, known)
        anchors = [PolicySpec(name=name.value) for name in Anchor if name.value in known]
        others = [spec for spec in given if spec.slug not in {a.slug for a in anchors}]
        return cls([*anchors, *others], known)

    def add(self, specs: Iterable[PolicySpec]) -> None:
        """Run these too; those that are there already stay where they are."""
        there = {spec.slug for spec in self.specs}
        self.specs += [spec for spec in specs if spec.slug not in there]

    @property
    def slugs(self) -> list[str]:
        """Of all that are not known to be broken."""
        return [spec.slug for spec in self.specs if str(spec) not in self.broken]

    def load(self) -> None:
        """Import what has not been tried yet."""
        for spec in self.specs:
            if spec.slug not in self.policies and str(spec) not in self.broken:
                self._load(spec)

    def _load(self, spec: PolicySpec) -> None:
        from kvharness.ambient import kept  # noqa: PLC0415 - torch

        try:
            # A package may set torch's default dtype where it is imported.
            with kept():
                self.policies[spec.slug] = registry.load(spec, self.known)
        except PolicyProblem as problem:
            self.broken[str(spec)] = problem

    def check_parameters(self) -> None:
        """Refuse parameters that a policy does not take; those in claims fail by themselves.

        Raises:
            ParameterProblem: of the first loaded policy that was asked for.
        """
        for name, problem in self.broken.items():
            if name in self._asked and isinstance(problem, ParameterProblem):
                raise problem
