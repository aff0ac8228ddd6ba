"""Digests of the code that makes a policy, so that records never outlive what made them."""

from __future__ import annotations

import hashlib
import importlib.metadata
from functools import lru_cache
from typing import TYPE_CHECKING

from kvharness.discovery.package_files import PackageFiles, project_folder
from kvharness.discovery.syntax import parsed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from importlib.metadata import Distribution
    from pathlib import Path

    from kvharness.discovery.syntax import ParsedModule

#: The engine's number stands for it.
_HARNESS = "kvharness"
_REMEMBERED = 4096


def source_digest(modules: Collection[str], distribution: Distribution | None) -> str:
    """16 hex digits over what a distribution contributes to the behaviour of some modules.

    * Those modules and all of the distribution that their import statements reach, without
      comments, docstrings and layout. All its modules, as soon as one of them imports what no
      statement names, by ``importlib`` for instance.
    * All other files that it brings, compiled modules among them; what they serve is unknown.
    * Of what it requires, the versions. What these require in turn reaches a policy through them
      alone. An editable requirement counts by its files where it is imported, since its version
      stays while it is edited. kvharness itself does not count: the engine has a number.

    Args:
        modules: dotted names.
        distribution: that they belong to; without one, their packages as they lie here.
    """
    required = dict(_required(distribution))
    own, *others = PackageFiles.of(distribution, modules), *_editable(required.values())
    reached = _reached(modules, [own, *others])
    used = [own, *(each for each in others if not reached.keys().isdisjoint(each.modules))]
    files = {name: path for part in used for name, path in part.data.items()}
    lines = [
        *_told(reached),
        *(f"file {name} {file_digest(path)}" for name, path in files.items()),
        *(f"version {name} {each.version if each else ''}" for name, each in required.items()),
    ]
    return _digest(lines)


def code_digest(modules: Collection[str]) -> str:
    """16 hex digits over modules and what they import of their packages, as they lie here."""
    return _digest(_told(_reached(modules, [PackageFiles.of(None, modules)])))


def _told(reached: Mapping[str, ParsedModule]) -> list[str]:
    return [f"module {name} {module.digest}" for name, module in reached.items()]


def _digest(lines: Iterable[str]) -> str:
    text = "\n".join(sorted(lines))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """16 hex digits over a file's bytes, or "" without one.

    It is read again when its size or time changed: weights take a second a gigabyte.
    """
    try:
        status = path.stat()
        return _file_digest(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=_REMEMBERED)
def _file_digest(path: Path, size: int, changed: int) -> str:
    del size, changed
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _required(distribution: Distribution | None) -> Iterator[tuple[str, Distribution | None]]:
    """What is installed of each requirement that holds here, by name."""
    for text in (distribution.requires if distribution is not None else None) or ():
        if (name := _wanted(text)) and name != _HARNESS:
            try:
                yield name, importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                yield name, None


def _wanted(text: str) -> str:
    """The name in a requirement; empty if it does not hold here, or says nothing."""
    from packaging.requirements import Requirement  # noqa: PLC0415 - 15 ms
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    try:
        wanted = Requirement(text)
        holds = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    except ValueError:
        return ""
    return canonicalize_name(wanted.name) if holds else ""


def _editable(required: Iterable[Distribution | None]) -> Iterator[PackageFiles]:
    for each in required:
        if each is not None and project_folder(each) is not None:
            yield PackageFiles.of(each, ())


def _reached(modules: Iterable[str], parts: Collection[PackageFiles]) -> dict[str, ParsedModule]:
    """Modules of ``parts`` that the imports of some of them lead to, those included."""
    known: Mapping[str, Path] = {n: path for part in parts for n, path in part.modules.items()}
    reached: dict[str, ParsedModule] = {}
    waiting = [*modules]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in known:
            continue
        reached[name] = parsed(name, known[name])
        waiting += reached[name].imports
        if reached[name].dynamic:
            home = next(part for part in parts if name in part.modules)
            waiting += home.shipped_modules()
    return reached
