"""The policies of a run: the anchors, then those that were asked for."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from kvharness.contract import Anchor, EvictMode
from kvharness.discovery import registry
from kvharness.discovery.resolve import resolve
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import ParameterProblem, PolicyProblem, UsageProblem
from kvharness.policy.view import Capabilities

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.discovery.registry import Installed


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
        self._mode = EvictMode.PREFILL
        self._named: frozenset[str] = frozenset()

    @classmethod
    def of(cls, chosen: Sequence[str], mode: EvictMode = EvictMode.PREFILL) -> Lineup:
        """The anchors beside what is given to ``--policy``, or every installed policy.

        ``mode`` is when they are to evict; `load` leaves out what does not do that.

        Raises:
            UsageProblem: one of them is not installed.
        """
        known = registry.installed()
        given = resolve(chosen, known)
        anchors = [PolicySpec(name=name.value) for name in Anchor if name.value in known]
        others = [spec for spec in given if spec.slug not in {a.slug for a in anchors}]
        lineup = cls([*anchors, *others], known)
        specs = (spec for text in chosen for spec in PolicySpec.parse_list(text))
        lineup._mode, lineup._named = mode, frozenset(map(str, specs))
        return lineup

    def add(self, specs: Iterable[PolicySpec]) -> None:
        """Run these too; those that are there already stay where they are."""
        there = {spec.slug for spec in self.specs}
        self.specs += [spec for spec in specs if spec.slug not in there]

    @property
    def slugs(self) -> list[str]:
        """Of all that are not known to be broken."""
        return [spec.slug for spec in self.specs if str(spec) not in self.broken]

    def load(self) -> None:
        """Import what has not been tried yet.

        Raises:
            UsageProblem: a policy that was named does not evict when it is to.
        """
        for spec in self.specs:
            if spec.slug not in self.policies and str(spec) not in self.broken:
                self._load(spec)
        self._leave_out()

    def _leave_out(self) -> None:
        """Of policies that nobody named, those that do not evict when they are to."""
        unable = [
            spec
            for spec in self.specs
            if (loaded := self.policies.get(spec.slug))
            and not loaded.policy.capabilities.allow(self._mode)
        ]
        named = [str(spec) for spec in unable if str(spec) in self._named]
        if named:
            raise UsageProblem(
                f"--policy {', '.join(named)}: not made for --kv-evict={self._mode.value}; these "
                f"are: {', '.join(self._able())}"
            )
        for spec in unable:
            self.specs.remove(spec)
            del self.policies[spec.slug]

    def _able(self) -> list[str]:
        """Installed policies that evict when they are to; ``caote(...)`` wraps another one."""
        from kvharness.isolation.torch_settings import kept  # noqa: PLC0415 - torch

        able = []
        for name, found in self.known.items():
            with suppress(PolicyProblem), kept():
                if found.wraps:
                    # Without a policy inside it is known only what the class itself promises.
                    offered = getattr(registry.imported(found, name), "own_capabilities", None)
                else:
                    offered = registry.load(PolicySpec(name=name), self.known).policy.capabilities
                if isinstance(offered, Capabilities) and offered.allow(self._mode):
                    able.append(f"{name}(...)" if found.wraps else name)
        return able

    def _load(self, spec: PolicySpec) -> None:
        from kvharness.isolation.torch_settings import kept  # noqa: PLC0415 - torch

        try:
            # A package may set torch's default dtype where it is imported.
            with kept():
                self.policies[spec.slug] = registry.load(spec, self.known)
        except PolicyProblem as problem:
            self.broken[str(spec)] = problem

    def check_parameters(self) -> None:
        """Refuse parameters that a policy does not take; those in claims fail by themselves.

        Raises:
            UsageProblem: of all loaded policies that were asked for.
        """
        problems = [
            str(problem)
            for name, problem in self.broken.items()
            if name in self._asked and isinstance(problem, ParameterProblem)
        ]
        if problems:
            raise UsageProblem("\n".join(problems))
