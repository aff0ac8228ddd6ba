"""The same program in another text: every comment, docstring and line is another one."""

from __future__ import annotations

import ast
from typing import Any

#: What may begin with a docstring.
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def rewritten(text: str) -> str:
    """Docstrings where there were none and others where there were some, and comments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED):
            node.body = [_docstring(), *_undocumented(node)]
    # The lines of one docstring are the only ones that `ast.unparse` would not let be parted.
    lines = ast.unparse(ast.fix_missing_locations(tree)).splitlines()
    return "".join(f"# Another comment.\n{line}\n" for line in lines)


def _docstring() -> ast.stmt:
    return ast.Expr(ast.Constant("Another docstring."))


def _undocumented(node: Any) -> list[ast.stmt]:
    documented = ast.get_docstring(node, clean=False) is not None
    body: list[ast.stmt] = node.body[documented:]
    return body
