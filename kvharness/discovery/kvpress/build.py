"""Building presses from specifications, and refusing those that no kept set can stand for."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import json
import warnings
from functools import partial
from typing import Any

from kvharness.discovery.build import expect_parameters, takes
from kvharness.discovery.code_digest import source_digest
from kvharness.discovery.kvpress.policy import PressPolicy
from kvharness.discovery.loaded import LoadedPolicy
from kvharness.discovery.parameters import files_digest
from kvharness.discovery.presses import PREFIX, peer_version
from kvharness.discovery.spec import PolicySpec
from kvharness.errors import ParameterProblem, PolicyProblem
from kvharness.model.attention import register_kernel

_PASSES = "it runs the model in passes of its own, which a shared prefill cannot stand for"
_DECODING = "it evicts while decoding; policies here evict once, after prefill"
_HUB = "it needs files of a model hub for the very model"
_MERGES = "it folds evicted values into kept ones, so that there is no set of kept tokens"
_AMOUNT = "it decides by itself how much it keeps, so that no budget can be given to it"
_HOOK = "it replaces kvpress's hook on each layer, which a shared prefill does not call"
#: By class, for it and for what is derived from it.
_REFUSED = {
    "ThinKPress": "it prunes channels of keys and keeps every token",
    "MergingPress": _MERGES,
    "CAMPress": _MERGES,
    "DecodingPress": _DECODING,
    "PrefillDecodingPress": _DECODING,
    "DMSPress": _DECODING,
    "KVzipPress": _PASSES,
    "FastKVzipPress": _PASSES,
    "KVComposePress": _PASSES,
    "ExpectedAttentionStatsPress": _HUB,
    "QFilterPress": _HUB,
    "KVzapPress": _HUB,
    "LUKVPress": _HUB,
    "DuoAttentionPress": _AMOUNT,
    "SimLayerKVPress": _AMOUNT,
    "FinchPress": "it needs a delimiter token in the context",
    "ComposedPress": "the budgets of its parts multiply, so that no one budget can be given to it",
}


def load_press(spec: PolicySpec) -> LoadedPolicy:
    """Import kvpress and build the policy of a press.

    Raises:
        PolicyProblem: kvpress does not import.
        ParameterProblem: there is no such press, it does not take its parameters, or it cannot
            run on a shared prefill; says why.
    """
    library = _kvpress(str(spec))
    press = _Builder(library, str(spec)).build(spec)
    around, compact = press, isinstance(press, library.KeyRerotationPress)
    if compact:
        # Our caches move keys themselves.
        press = press.press
    policy = PressPolicy(
        press=press,
        ranks=type(press).compress is library.ScorerPress.compress,
        attends=any(isinstance(one, library.ObservedAttentionPress) for one in _tree(press)),
        compact=compact,
    )
    homes = {type(one).__module__ for one in _tree(around)}
    return LoadedPolicy(
        spec=spec,
        policy=policy,
        distribution="kvpress",
        version=peer_version() or "",
        digest=partial(_digest, spec, homes),
        parameters=json.dumps(_described(around), sort_keys=True),
    )


def _digest(spec: PolicySpec, modules: set[str]) -> str:
    own = source_digest(modules, importlib.metadata.distribution("kvpress"))
    files = files_digest(value for part in spec.parts for _, value in part.parameters)
    return hashlib.sha256(f"{own}\n{files}".encode()).hexdigest()[:16]


def _kvpress(name: str) -> Any:
    """The library; it wraps all attention functions of the process, and ours is put back."""
    try:
        # Its dependencies warn of their own imports, and a strict filter would end the run.
        with warnings.catch_warnings(action="ignore"):
            library = importlib.import_module("kvpress")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PolicyProblem(name, f"kvpress {peer_version()} cannot be loaded: {reason}") from error
    register_kernel()
    return library


class _Builder:
    """Presses of a library from specifications; ``name`` is the whole in messages."""

    def __init__(self, library: Any, name: str) -> None:
        self._library = library
        self._name = name
        found = ((each, getattr(library, each)) for each in library.__all__)
        abstract = (library.BasePress, library.ScorerPress)
        self._known = {
            each: kind
            for each, kind in found
            if issubclass(kind, library.BasePress) and kind not in abstract
        }

    def build(self, spec: PolicySpec) -> Any:
        kind = self._kind(spec.name.removeprefix(PREFIX))
        parts = [self.build(part) for part in spec.arguments]
        named = {
            key: self.build(value) if isinstance(value, PolicySpec) else value
            for key, value in spec.parameters
        }
        if "compression_ratio" in named:
            raise self._problem("compression_ratio follows from the budget; give --retention")
        if texts := [(k, v) for k, v in named.items() if isinstance(v, str) and v in self._known]:
            key, text = texts[0]
            raise self._problem(f"{key}={text} is a text; write {key}={text}()")
        try:
            expect_parameters(kind, named)
            return kind(*parts, **named)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise self._problem(
                f"{kind.__name__} cannot be built: {reason}; {takes(kind)}"
            ) from error

    def _kind(self, name: str) -> Any:
        if name not in self._known:
            near = difflib.get_close_matches(name, self._known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            listed = ", ".join(sorted(set(self._known) - self._unfit()))
            raise self._problem(f"there is no press {name!r}.{hint} Those that can run: {listed}")
        kind = self._known[name]
        if reason := self._refusal(kind):
            raise self._problem(f"{name} cannot run here: {reason}")
        return kind

    def _refusal(self, kind: Any) -> str:
        listed = (_REFUSED[each.__name__] for each in kind.__mro__ if each.__name__ in _REFUSED)
        if reason := next(listed, ""):
            return reason
        base = self._library.BasePress
        if kind.__call__ is not base.__call__:
            return _PASSES
        return "" if kind.forward_hook is base.forward_hook else _HOOK

    def _unfit(self) -> set[str]:
        return {name for name, kind in self._known.items() if self._refusal(kind)}

    def _problem(self, reason: str) -> ParameterProblem:
        return ParameterProblem(self._name, f"kvpress {peer_version()}: {reason}")


def _tree(press: Any) -> list[Any]:
    """A press and those inside it."""
    inside = [value for value in vars(press).values() if hasattr(value, "compress")]
    return [press, *(one for each in inside for one in _tree(each))]


def _described(press: Any) -> dict[str, object]:
    """Class and settings, those of presses inside included; the ratio is the budget's."""
    return {
        type(press).__name__: {
            name: _described(value) if hasattr(value, "compress") else repr(value)
            for name, value in vars(press).items()
            if name != "compression_ratio"
        }
    }
