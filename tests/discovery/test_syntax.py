from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvharness
import kvharness_policies
from kvharness.discovery.syntax import parsed, tree_digest
from tests.rewriting import rewritten

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = sorted(
    path
    for package in (kvharness, kvharness_policies)
    for path in Path(str(package.__file__)).parent.rglob("*.py")
)
FUNCTION = """
from torch import nn

LIMIT = 3


@nn.compile
def keep(scores, budget=LIMIT, *, least: int = 1):
    kept = {name: max(score, 0.5) for name, score in scores.items() if score > budget - least}
    return f"{kept!r:>{budget}}", b"bytes", -1.0, None, ..., True
"""
DOCUMENTED = """
class Policy:
    def score(self, view):
        return view
"""


def digest(text: str) -> str:
    return tree_digest(ast.parse(text))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_comments_docstrings_and_layout_are_nothing(path: Path) -> None:
    text = path.read_text()
    other = rewritten(text)
    assert other != text
    assert digest(other) == digest(text)
    assert re.fullmatch(r"[0-9a-f]{16}", digest(text))


@given(st.data())
def test_whatever_else_is_changed_is_something(data: st.DataObject) -> None:
    tree = ast.parse(FUNCTION)
    changes = [change for node in ast.walk(tree) if (change := changed(node))]
    before = tree_digest(tree)
    data.draw(st.sampled_from(changes), label="change")()
    assert tree_digest(tree) != before


def changed(node: ast.AST) -> Callable[[], None] | None:
    """What makes a node another one, where there is something of its own to change."""
    if isinstance(node, ast.Constant):
        return lambda: setattr(node, "value", f"{node.value!r} and more")
    for name in ("id", "name", "attr", "arg", "module"):
        value = getattr(node, name, None)
        if isinstance(value, str):
            return lambda: setattr(node, name, f"{value}_other")
    if isinstance(node, ast.Compare):
        return lambda: node.ops.__setitem__(0, ast.LtE())
    if isinstance(node, ast.BinOp):
        return lambda: setattr(node, "op", ast.Mult())
    return None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = 0.1 + 0.2", "x = 0.2 + 0.1"),
        ("f(a, b)", "f(b, a)"),
        ("f(*a)", "f(**a)"),
        ("def f():\n    pass", "async def f():\n    pass"),
        ("def f(a, /): pass", "def f(a): pass"),
        ("def f(*, a): pass", "def f(a): pass"),
        ("from . import a", "from .. import a"),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        # A string that is no docstring may be what a program is about.
        ("x = 1\n'text'", "x = 1\n'other'"),
        ("def f():\n    x = 'text'\n    return x", "def f():\n    x = 'other'\n    return x"),
    ],
)
def test_programs_that_differ(one: str, other: str) -> None:
    assert digest(one) != digest(other)


def test_an_empty_text_in_an_f_string_is_nothing() -> None:
    tree = ast.parse('x = f"{a}{b}"')
    before = tree_digest(tree)
    (text,) = (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr))
    text.values.insert(1, ast.Constant(""))
    assert tree_digest(tree) == before
    assert digest('x = ""') != digest("x = None")


@given(
    docstring=st.text(st.characters(codec="ascii", exclude_characters='"\\\0\r')),
    comment=st.text(st.characters(codec="utf-8", categories=("L", "N", "P"))),
)
def test_any_docstring_and_comment_are_nothing(docstring: str, comment: str) -> None:
    lines = DOCUMENTED.strip().splitlines()
    told = f'"""{docstring} """'
    text = "\n".join(
        [
            told,
            f"{lines[0]}  # {comment}",
            f"    {told}",
            lines[1],
            f"        {told}",
            "",
            *lines[2:],
        ]
    )
    assert digest(text) == digest(DOCUMENTED)


# -- a file on its own ----------------------------------------------------------------------------


def names(text: str, name: str = "pkg.sub.mod", *, file: str = "mod.py") -> set[str]:
    path = Path(file)
    path.write_text(text)
    return set(parsed(name, path.resolve()).imports) - {"pkg", "pkg.sub"}


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("import a", {"a"}),
        ("import a.b.c as d", {"a", "a.b", "a.b.c"}),
        ("from a.b import c, d", {"a", "a.b", "a.b.c", "a.b.d"}),
        ("from . import c", {"pkg.sub.c"}),
        ("from .c import d", {"pkg.sub.c", "pkg.sub.c.d"}),
        ("from ..c import d", {"pkg.c", "pkg.c.d"}),
        ("from ...... import d", {"d"}),
        ("def f():\n    if g():\n        import a", {"a"}),
        ("from __future__ import annotations", {"__future__", "__future__.annotations"}),
        ("x = 'import a'  # import b", set()),
    ],
)
def test_imports_of_a_module(
    text: str, due: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert names(text) == due


def test_a_package_is_where_its_own_imports_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert names("from .c import d", "pkg.sub", file="__init__.py") == {
        "pkg.sub.c",
        "pkg.sub.c.d",
    }


@pytest.mark.parametrize(
    ("text", "dynamic"),
    [
        ("import importlib\nimportlib.import_module('a')", True),
        ("from importlib import import_module as load\nload('a')", True),
        ("__import__('a')", True),
        ("exec('import a')", True),
        ("x = eval(y)", True),
        ("import runpy", True),
        ("from pickle import loads", True),
        ("from a import *", True),
        ("import pkgutil\npkgutil.walk_packages()", True),
        ("from importlib.metadata import entry_points", True),
        ("network.eval()", False),
        ("for module in network.modules(): pass", False),
        # What is there, some statement has imported.
        ("import sys\nsys.modules['a']", False),
        ("from importlib.resources import files", False),
        ("import importlib.util", False),
        ("from . import a, b", False),
    ],
)
def test_what_may_import_without_a_statement(text: str, dynamic: bool, tmp_path: Path) -> None:  # noqa: FBT001
    path = tmp_path / "mod.py"
    path.write_text(text)
    assert parsed("mod", path).dynamic is dynamic


def test_what_is_no_python_counts_by_its_bytes(tmp_path: Path) -> None:
    found = set()
    for number, content in enumerate((b"def $name():\n", b"def $name() :\n", b"\xff", b"x = '\0'")):
        path = tmp_path / f"template{number}.py"
        path.write_bytes(content)
        found.add(parsed("pkg.template", path).digest)
        assert parsed("pkg.template", path).imports == {"pkg"}
    assert len(found) == 4


def test_a_file_that_is_gone_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "mod.py"
    path.write_text("# nothing\n")
    assert parsed("mod", path) == parsed("mod", tmp_path / "gone.py")


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mod.py"
    path.write_text("x = 1\n")
    before = parsed("mod", path)
    assert parsed("mod", path) is before
    path.write_text("x = 23\n")
    assert parsed("mod", path).digest != before.digest
