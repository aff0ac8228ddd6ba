"""Digests of source code, so that records never outlive the code that made them."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path


@cache
def source_digest(module: str) -> str:
    """16 hex digits over a module and the modules of its own package that it imports.

    The closure is read from the import statements, without importing: editing a helper
    changes the digest of what uses it, and of nothing else.
    """
    total = hashlib.sha256()
    for name, path in sorted(_closure(module).items()):
        total.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def _closure(module: str) -> dict[str, Path]:
    package = module.partition(".")[0]
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += [other for other in _imports(name, path) if other.partition(".")[0] == package]
    return found


def _path(module: str) -> Path | None:
    """The file of a module, found without importing anything."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for location in spec.submodule_search_locations or ():
        base = Path(location, *rest)
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if path.is_file():
                return path
    return None


def _imports(module: str, path: Path) -> set[str]:
    """Absolute names that a module may import, its parent packages included."""
    parts = module.split(".")
    names = {".".join(parts[:count]) for count in range(1, len(parts))}
    here = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            home = ".".join([*base, *([node.module] if node.module else [])])
            names |= {home, *(f"{home}.{alias.name}" for alias in node.names)}
    return names
