"""What a policy reads while the kit runs it: files, and variables of the environment.

Python tells an audit hook of every file that it opens, numpy and torch.load included. Safetensors
opens files in compiled code, so its function is replaced while a policy runs. What other compiled
code opens is not seen.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvharness.discovery.package_files import PackageFiles, owner_of
from kvharness.discovery.parameters import named_files, policies_inside
from kvharness.policy.interface import FunctionPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from kvharness.policy.interface import Policy

#: Folders of packages, wherever an environment adds some.
_SITES = frozenset({"site-packages", "dist-packages"})
#: Code, which a key covers by the distribution that it belongs to.
_CODE = (".py", ".pyc", ".so", ".pyd")
#: Compiled kernels, which torch puts away for the next process.
_COMPILERS = ("torch._inductor", "torch._dynamo", "triton")
_SYSTEM = ("/dev/", "/proc/", "/sys/")


#: What a policy is doing; `_RUNNING` says which one.
READY, SCORING, OBSERVING = "ready", "scoring", "observing"


@dataclass(slots=True)
class Reads:
    """Files by their absolute paths, and variables with the file of the code that asked."""

    files: set[Path] = field(default_factory=set)
    variables: set[tuple[str, str]] = field(default_factory=set)

    def opened(self, path: object, mode: object, flags: object) -> None:
        """Note what an audit event says, if something can be read."""
        if not isinstance(path, str | bytes) or not _is_reading(mode, flags):
            return
        if not _asking(sys._getframe(1), "__name__").startswith(_COMPILERS):  # noqa: SLF001
            self.files.add(Path(os.fsdecode(path)).absolute())

    def asked(self, name: object) -> None:
        """Note a variable of the environment."""
        asking = _asking(sys._getframe(1), "__file__")  # noqa: SLF001
        self.variables.add((str(name), asking))


#: Of policies that run right now: one, or none.
_RUNNING: list[Reads] = []
#: What no key covers, by the class or function of the policy and what it was doing. It is kept for
#: the process: a policy may read a file once, in whatever check comes first.
_UNCOVERED: dict[object, set[tuple[str, str]]] = defaultdict(set)


@contextmanager
def noted(policy: Policy, doing: str) -> Iterator[None]:
    """Note what a policy reads that no record's key covers; see `uncovered`."""
    _listen()
    reads = Reads()
    openers = _openers(len(sys.modules))
    _RUNNING.append(reads)
    os.environ.__class__ = _Environment
    for module, usual in openers:
        module.safe_open = partial(_safe_open, usual)
    try:
        yield
    finally:
        for module, usual in openers:
            module.safe_open = usual
        os.environ.__class__ = _USUAL
        _RUNNING.pop()
        _UNCOVERED[_identity(policy)] |= {(doing, thing) for thing in _uncovered(policy, reads)}


def uncovered(policy: Policy) -> list[tuple[str, str]]:
    """What a policy was doing, and what it read that no key covers, so far in this process."""
    return sorted(_UNCOVERED[_identity(policy)])


def _identity(policy: Policy) -> object:
    return policy.function if isinstance(policy, FunctionPolicy) else type(policy)


def _uncovered(policy: Policy, reads: Reads) -> Iterator[str]:
    for path in reads.files:
        real = path.resolve()
        known = path.suffix in _CODE or str(real).startswith(_SYSTEM) or _is_installed(real)
        if not known and real not in {*named_files([policy]), *_own(policy)}:
            yield f"the file {str(path)!r}"
    for name, asking in reads.variables:
        real = Path(asking).resolve()
        if asking and (not _is_installed(real) or real in _own(policy)):
            yield f"the environment variable {name}"


def _own(policy: Policy) -> Iterator[Path]:
    """Files of the distributions of a policy, of what it is derived from and of those inside it."""
    for each in policies_inside(policy):
        kinds = type(each).__mro__ if type(each) is not FunctionPolicy else (each.function,)
        for kind in kinds:
            yield from _files_of(kind.__module__)


@cache
def _files_of(module: str) -> set[Path]:
    return PackageFiles.of(owner_of(module), [module]).paths


def _is_installed(path: Path) -> bool:
    """Whether it is Python's, of its packages or of the harness: such files follow versions."""
    return any(map(path.is_relative_to, _roots())) or not _SITES.isdisjoint(path.parts)


@cache
def _roots() -> set[Path]:
    folders = [*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix]
    return {Path(folder).resolve() for folder in folders} | {Path(__file__).resolve().parents[1]}


def _is_reading(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return "r" in mode or "+" in mode
    return isinstance(flags, int) and flags & os.O_ACCMODE != os.O_WRONLY


def _asking(frame: FrameType | None, key: str) -> str:
    """Of the module whose code asked: the first one outside of Python's own library."""
    library = sysconfig.get_paths()["stdlib"] + os.sep
    while frame is not None:
        file = frame.f_code.co_filename
        inside = file.startswith((library, "<frozen")) and _SITES.isdisjoint(Path(file).parts)
        if not inside and file != __file__:
            return str(frame.f_globals.get(key) or file)
        frame = frame.f_back
    return ""


_USUAL: Any = type(os.environ)


class _Environment(_USUAL):  # type: ignore[misc]
    """The environment, which tells who asks for what."""

    def __getitem__(self, key: Any) -> Any:
        for reads in _RUNNING[-1:]:
            reads.asked(key)
        return super().__getitem__(key)


@lru_cache(maxsize=1)
def _openers(modules: int) -> list[tuple[Any, Any]]:
    """Of so many loaded modules, those that have what opens files of weights, with it."""
    del modules
    usual = getattr(sys.modules.get("safetensors"), "safe_open", None)
    loaded = [each for each in sys.modules.values() if hasattr(each, "__dict__")]
    return [(each, usual) for each in loaded if usual and vars(each).get("safe_open") is usual]


def _safe_open(usual: Any, filename: Any, *given: Any, **named: Any) -> Any:
    for reads in _RUNNING[-1:]:
        reads.files.add(Path(os.fsdecode(filename)).absolute())
    return usual(filename, *given, **named)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _RUNNING and event == "open":
        _RUNNING[-1].opened(*arguments)


@cache
def _listen() -> None:
    """Hear of opened files from now on: a hook cannot be taken away, but costs nothing idle."""
    sys.addaudithook(_hear)
