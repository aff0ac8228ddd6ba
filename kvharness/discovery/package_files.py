"""What an installed distribution consists of: Python modules, and all else that it brings."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from importlib.metadata import Distribution, EntryPoint

#: The group of entry points that name claims files: they change with verdicts, never answers.
CLAIMS = "kvharness.claims"
_HARNESS = "kvharness"
_OURS = f"{_HARNESS}."
#: Beside a project's packages, and no part of what it installs.
_APART = frozenset({"build", "conftest", "dist", "docs", "noxfile", "setup", "test", "tests"})
_CACHES = frozenset({"__pycache__", "node_modules"})
_COMPILED = (".pyc", ".pyo")
_TESTS = "tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFiles:
    """Files of one distribution.

    Attributes:
        modules: by dotted name.
        data: all others by path, with ``/``, from where the packages lie.
    """

    modules: dict[str, Path] = field(default_factory=dict)
    data: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, distribution: Distribution | None, modules: Iterable[str]) -> PackageFiles:
        """Those of a distribution, and of the packages of ``modules``.

        A wheel says in its RECORD what it brought. An editable installation is the project's
        packages and modules as they lie in its folder, without tests, caches and build outputs;
        its data are the files inside of these packages. Where neither is known, it is the packages
        that entry points and ``modules`` name. kvharness itself is nobody's, wherever it lies: its
        engine has a number.
        """
        entries = distribution.entry_points if distribution is not None else ()
        tops = {_top(name) for name in (*modules, *(entry.value for entry in entries))}
        claims = set(_claims_files(entries))
        found = {
            name: path
            for name, path in _installed(distribution, tops)
            if name not in claims and name.partition("/")[0] != _HARNESS
        }
        return cls(
            modules={_module(name): path for name, path in found.items() if name.endswith(".py")},
            data={name: path for name, path in found.items() if _is_data(name)},
        )

    @property
    def paths(self) -> set[Path]:
        return {path.resolve() for path in (*self.modules.values(), *self.data.values())}

    def shipped_modules(self) -> Iterator[str]:
        """Without tests inside the packages."""
        return (name for name in self.modules if _TESTS not in name.split("."))


def owner_of(module: str) -> Distribution | None:
    """The distribution with an entry point for kvharness in the package of a module, if any."""
    top = _top(module)
    for distribution in importlib.metadata.distributions():
        entries = distribution.entry_points
        if any(each.group.startswith(_OURS) and _top(each.value) == top for each in entries):
            return distribution
    return None


def project_folder(distribution: Distribution) -> Path | None:
    """Where the project of an editable installation lies; None of any other."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        editable, url = origin["dir_info"]["editable"], str(origin["url"])
    except (ValueError, KeyError, TypeError):
        return None
    from urllib.parse import urlsplit  # noqa: PLC0415 - few need it
    from urllib.request import url2pathname  # noqa: PLC0415

    return Path(url2pathname(urlsplit(url).path)) if editable else None


def _top(value: str) -> str:
    """``pkg`` of ``pkg.sub:Class``."""
    return value.partition(":")[0].strip().partition(".")[0]


def _claims_files(entries: Iterable[EntryPoint]) -> Iterator[str]:
    """Where claims may lie that ``package:claims.toml`` or ``module:claims.toml`` names."""
    for entry in entries:
        if entry.group == CLAIMS:
            module, _, file = (part.strip() for part in entry.value.partition(":"))
            parts = (*module.split("."), file or "claims.toml")
            yield from ("/".join(parts), "/".join(parts[1:]))


def _module(name: str) -> str:
    """``pkg.sub`` of ``pkg/sub.py`` and of ``pkg/sub/__init__.py``."""
    parts = name.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)


def _is_data(name: str) -> bool:
    inside = name.split("/")[:-1]
    return not name.endswith((".py", *_COMPILED)) and _TESTS not in inside


def _installed(
    distribution: Distribution | None, tops: Collection[str]
) -> Iterator[tuple[str, Path]]:
    folder = None if distribution is None else project_folder(distribution)
    if distribution is not None and folder is None and distribution.read_text("RECORD"):
        yield from _recorded(distribution)
        return
    for place in _places(tops):
        yield from _below(place, place.parent)
    for home in {place.parent for place in _places(tops)}:
        # Where a wheel's packages lie, those of others do too.
        if folder is not None and home.resolve().is_relative_to(folder.resolve()):
            for place in sorted(home.iterdir()):
                if _is_package(place) and not _is_apart(place.stem):
                    yield from _below(place, home)


def _recorded(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    for file in distribution.files or ():
        parts = file.parts
        outside = parts[0] in {"..", "/"} or parts[0].endswith((".dist-info", ".data"))
        if not outside and _CACHES.isdisjoint(parts):
            yield "/".join(parts), Path(str(distribution.locate_file(file)))


def _places(tops: Iterable[str]) -> Iterator[Path]:
    """Folders of packages and files of modules, found without importing anything."""
    for top in sorted(tops):
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            continue
        if spec is not None and spec.submodule_search_locations is not None:
            yield from map(Path, spec.submodule_search_locations)
        elif spec is not None and spec.has_location:
            yield Path(str(spec.origin))


def _is_package(place: Path) -> bool:
    return place.suffix == ".py" or (place / "__init__.py").is_file()


def _is_apart(name: str) -> bool:
    return name in _APART or name.startswith(("test_", "."))


def _below(place: Path, home: Path) -> Iterator[tuple[str, Path]]:
    """Files of a package, or a module by itself, by their paths from ``home``."""
    if place.is_file():
        yield place.name, place
    for folder, folders, files in os.walk(place):
        folders[:] = [n for n in folders if not n.startswith(".") and n not in _CACHES]
        inside, base = Path(folder), Path(folder).relative_to(home).as_posix()
        for file in files:
            if not file.startswith("."):
                yield f"{base}/{file}", inside / file
