"""Policies of installed packages: found by entry point, loaded when they are needed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from kvharness._entry_points import entry_points_of
from kvharness.contract import FIXED_ANCHORS
from kvharness.discovery.build import build, takes
from kvharness.discovery.code_digest import source_digest
from kvharness.discovery.declared import misdeclared
from kvharness.discovery.loaded import LoadedPolicy
from kvharness.discovery.parameters import files_digest, parameters_text, unstable_parameter
from kvharness.discovery.presses import is_press
from kvharness.discovery.spec import EVERY, PolicySpec
from kvharness.errors import ParameterProblem, PolicyProblem, UsageProblem
from kvharness.policy.interface import FunctionPolicy, Policy
from kvharness.policy.wrapper import Wrapper

if TYPE_CHECKING:
    import importlib.metadata
    from collections.abc import Callable, Iterable, Mapping, Sequence


GROUP = "kvharness.policies"
#: Of policies around other policies, ``ada(snapkv)``, which no run takes unasked.
WRAPPERS = "kvharness.wrappers"
#: Of policies that a run takes only where they are named, by themselves or as `EVERY`.
ON_REQUEST = "kvharness.on_request"
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A policy that some installed distribution offers; nothing is imported yet."""

    name: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint

    @property
    def wraps(self) -> bool:
        """Whether it needs another policy in its parentheses."""
        return self.entry_point.group == WRAPPERS

    @property
    def on_request(self) -> bool:
        """Whether it runs only where it is named."""
        return self.entry_point.group == ON_REQUEST

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


def installed() -> dict[str, Installed]:
    """Every installed policy by name, sorted.

    Raises:
        UsageProblem: two distributions offer the same name, or a name cannot be a test id.
    """
    found: dict[str, Installed] = {}
    groups = (GROUP, ON_REQUEST, WRAPPERS)
    entries = (entry_points_of(group) for group in groups)
    for entry in chain.from_iterable(entries):
        candidate = _installed(entry)
        other = found.setdefault(candidate.name, candidate)
        if other.entry_point.value != entry.value or other.distribution != candidate.distribution:
            raise UsageProblem(
                f"two packages offer the policy {entry.name!r}: {other.distribution} "
                f"{other.version} and {candidate.distribution} {candidate.version}; uninstall one"
            )
    return dict(sorted(found.items()))


def _installed(entry: importlib.metadata.EntryPoint) -> Installed:
    # A broken installation has metadata without a name or version.
    distribution = (entry.dist.name if entry.dist else None) or "unknown"
    version = (entry.dist.version if entry.dist else None) or "0"
    if not _NAME.fullmatch(entry.name) or entry.name == EVERY:
        raise UsageProblem(
            f"{distribution} {version} offers a policy named {entry.name!r}; a name is made of "
            f"lower-case letters, digits, '.', '+' and '-', and is not {EVERY!r}"
        )
    return Installed(name=entry.name, distribution=distribution, version=version, entry_point=entry)


def load(spec: PolicySpec, known: Mapping[str, Installed]) -> LoadedPolicy:
    """Import and build a policy.

    Raises:
        PolicyProblem: the package does not import, or what it offers is no policy; names the
            distribution.
        ParameterProblem: the policy does not take its parameters; says which there are.
    """
    if is_press(spec):
        from kvharness.discovery.kvpress.build import load_press  # noqa: PLC0415 - torch and kvpress

        return load_press(spec)
    found = known[spec.name]
    parts = [load(part, known) for part in spec.arguments]
    named = {
        key: load(value, known) for key, value in spec.parameters if isinstance(value, PolicySpec)
    }
    parameters = {**dict(spec.parameters), **{key: one.policy for key, one in named.items()}}
    offered = imported(found, str(spec))
    try:
        policy = build(offered, [part.policy for part in parts], parameters)
    except (Exception, SystemExit) as error:
        if parts or parameters:
            raise _unfitting(found, str(spec), offered, error) from error
        raise _unloadable(found, str(spec), error) from error
    if not isinstance(policy, Policy):
        kind = type(policy).__name__
        raise PolicyProblem(
            str(spec),
            f"{_home_of(found)} is a {kind}, expected a kvharness.Policy or a score function",
        )
    if wrong := misdeclared(policy):
        raise PolicyProblem(str(spec), f"{_home_of(found)}: {wrong}")
    if isinstance(policy, Wrapper):
        _expect_ranking(spec, (*parts, *named.values()))
    again = partial(build, offered, [part.policy for part in parts], parameters)
    return LoadedPolicy(
        spec=spec,
        policy=policy,
        distribution=found.distribution,
        version=found.version,
        digest=partial(_digest, spec, found, policy, (*parts, *named.values())),
        parameters=_parameters(found, str(spec), policy, again),
    )


def _digest(
    spec: PolicySpec, found: Installed, policy: Policy, parts: Sequence[LoadedPolicy]
) -> str:
    entry = found.entry_point
    own = source_digest({entry.module, _home(policy)}, entry.dist)
    files = files_digest([policy, *(value for _, value in spec.parameters)])
    digests = [own, files, *(part.source for part in parts)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]


def _parameters(found: Installed, name: str, policy: Policy, again: Callable[[], object]) -> str:
    """Its parameters as text.

    Raises:
        ParameterProblem: the text would be another one in each process.
    """
    try:
        text, problem = parameters_text(policy), unstable_parameter(policy, again)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        problem = f"its parameters cannot be written into a record's key: {reason}"
        raise ParameterProblem(name, f"{_home_of(found)}: {problem}") from error
    if problem:
        raise ParameterProblem(name, f"{_home_of(found)}: {problem}")
    return text


def _expect_ranking(spec: PolicySpec, inside: Iterable[LoadedPolicy]) -> None:
    """Refuse to wrap the anchors whose budget is fixed, since their scores mean nothing."""
    for part in inside:
        if part.slug in FIXED_ANCHORS:
            raise ParameterProblem(
                str(spec), f"{part.slug} ranks no tokens, so there is nothing to wrap; wrap random"
            )


def imported(found: Installed, name: str) -> Any:
    """What an entry point names.

    Raises:
        PolicyProblem: the package does not import.
    """
    try:
        return found.entry_point.load()
    except (Exception, SystemExit) as error:
        raise _unloadable(found, name, error) from error


def _unfitting(
    found: Installed, name: str, offered: object, error: BaseException
) -> ParameterProblem:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return ParameterProblem(name, f"{_home_of(found)} cannot be built: {reason}; {takes(offered)}")


def _unloadable(found: Installed, name: str, error: BaseException) -> PolicyProblem:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return PolicyProblem(name, f"{_home_of(found)} cannot be loaded: {reason}")


def _home_of(found: Installed) -> str:
    return f"from {found.distribution} {found.version}"


def _home(policy: Policy) -> str:
    if isinstance(policy, FunctionPolicy):
        return policy.function.__module__
    return type(policy).__module__
