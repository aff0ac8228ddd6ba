"""Python files as what they do: without comments, docstrings and layout, and with their imports."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
#: Whoever uses one of these may run a module that no import statement names.
_DYNAMIC_NAMES = frozenset(
    {
        "EntryPoint",
        "entry_points",
        "import_module",
        "iter_modules",
        "run_module",
        "run_path",
        "spec_from_file_location",
        "spec_from_loader",
        "walk_packages",
    }
)
#: As above, unless they are attributes: ``network.eval()`` is another thing.
_DYNAMIC_CALLS = _DYNAMIC_NAMES | {"__import__", "eval", "exec"}
#: As above, for modules: what is unpickled names the module that it needs.
_DYNAMIC_MODULES = frozenset({"cloudpickle", "dill", "joblib", "pickle", "runpy", "zipimport"})
#: What the file of a module may be followed by in memory: a few hundred small entries.
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedModule:
    """What a module's file says.

    Attributes:
        digest: 16 hex digits over its syntax tree; over its bytes where it is not Python.
        imports: absolute names of modules that its import statements may mean, its parent packages
            included, wherever the statements stand.
        dynamic: whether it can import what no statement names.
    """

    digest: str
    imports: frozenset[str]
    dynamic: bool


def parsed(name: str, path: Path) -> ParsedModule:
    """Read a module's file, or recall it: the file is read again when its size or time changed.

    Args:
        name: dotted, for its relative imports.
        path: of the file. One that cannot be read is an empty module.
    """
    try:
        status = path.stat()
        return _parsed(name, path, status.st_size, status.st_mtime_ns)
    except OSError:
        return _parsed_text(name, b"", package=False)


@lru_cache(maxsize=_REMEMBERED)
def _parsed(name: str, path: Path, size: int, changed: int) -> ParsedModule:
    del size, changed
    return _parsed_text(name, path.read_bytes(), package=path.name == "__init__.py")


def _parsed_text(name: str, content: bytes, *, package: bool) -> ParsedModule:
    parts = name.split(".")
    parents = {".".join(parts[:count]) for count in range(1, len(parts))}
    try:
        tree = ast.parse(content)
        digest = tree_digest(tree)
    except (SyntaxError, ValueError, RecursionError):
        digest = hashlib.sha256(content).hexdigest()[:16]
        return ParsedModule(digest=digest, imports=frozenset(parents), dynamic=False)
    here = parts if package else parts[:-1]
    nodes = list(ast.walk(tree))
    named = {each for node in nodes for each in _imports(node, here)}
    return ParsedModule(
        digest=digest,
        imports=frozenset(parents | named),
        dynamic=any(map(_is_dynamic, nodes)),
    )


def tree_digest(tree: ast.AST) -> str:
    """16 hex digits over a tree without its docstrings, the same in every version of Python."""
    total = hashlib.sha256()
    for piece in _pieces(tree):
        total.update(piece.encode(errors="surrogatepass"))
    return total.hexdigest()[:16]


def _pieces(value: object) -> Iterator[str]:
    # Not `ast.dump`: from 3.12 on it names fields that 3.11 does not have, even empty ones.
    if isinstance(value, ast.Constant):
        yield f"{type(value.value).__name__} {value.value!r};"
    elif isinstance(value, ast.AST):
        yield f"{type(value).__name__}("
        for field in value._fields:
            inner: Any = getattr(value, field, None)
            if field == "body" and isinstance(value, _DOCUMENTED):
                inner = inner[_is_documented(value) :]
            if isinstance(value, ast.JoinedStr):
                # Python 3.12.1 puts empty texts between two placeholders.
                inner = [each for each in inner if getattr(each, "value", None) != ""]
            if inner is not None and inner != []:
                yield f"{field}="
                yield from _pieces(inner)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for each in value:
            yield from _pieces(each)
        yield "]"
    else:
        yield f"{value!r};"


def _is_documented(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def _imports(node: ast.AST, here: list[str]) -> Iterator[str]:
    """Names that a statement may import, in a module of the package ``here``."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            parts = alias.name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    elif isinstance(node, ast.ImportFrom):
        base = here[: len(here) - node.level + 1] if node.level else []
        home = [*base, *(node.module.split(".") if node.module else [])]
        yield from (".".join(home[:count]) for count in range(1, len(home) + 1))
        yield from (".".join([*home, alias.name]) for alias in node.names)


def _is_dynamic(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _DYNAMIC_CALLS
    if isinstance(node, ast.Attribute):
        return node.attr in _DYNAMIC_NAMES
    if isinstance(node, ast.Import):
        return any(alias.name in _DYNAMIC_MODULES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        names = {alias.name for alias in node.names}
        # A star takes whatever the package lists, submodules as well.
        return node.module in _DYNAMIC_MODULES or not names.isdisjoint({"*", *_DYNAMIC_NAMES})
    return False
