"""`kvharness new-policy`: a complete package for a policy, to be filled in and published."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import tomlkit

from kvharness.claims.find import all_claims
from kvharness.cli.reading import show
from kvharness.contract import Anchor
from kvharness.discovery import registry
from kvharness.errors import UsageProblem
from kvharness.pretrained.find import DEFAULT_MODEL, EMBEDDED

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

#: Not `*.py`: pytest, ruff and mypy must not take a template for code.
TEMPLATES = Path(__file__).parents[1] / "template"
_SUFFIX = ".tmpl"
# What `registry` takes, but a letter first, since a class is named after it; lines of the
# templates stay short enough for names of this length.
_NAME = re.compile(r"(?=.{1,32}$)[a-z][a-z0-9]*([.+-][a-z0-9]+)*")
_RESERVED = {*(anchor.value for anchor in Anchor), "random"}


@dataclass(frozen=True, slots=True)
class Names:
    """A policy's name, and what is called after it; the prefix keeps clear of other modules."""

    policy: str

    @property
    def _parts(self) -> list[str]:
        return [part for part in re.split(r"[.+-]+", self.policy) if part]

    @property
    def distribution(self) -> str:
        return "-".join(["kvharness", *self._parts])

    @property
    def module(self) -> str:
        return "_".join(["kvharness", *self._parts])

    @property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in self._parts) + "Policy"

    @property
    def claim(self) -> str:
        return f"{self.policy}-better-than-random"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("name", metavar="NAME", help="of the policy, as in a run's --policy")
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="new or empty folder for the package (default: NAME)",
    )


def run(given: argparse.Namespace) -> int:
    """Write the package; exit status 0.

    Raises:
        UsageProblem: the name or the folder cannot be used.
    """
    names = Names(_checked(given.name))
    _expect_free(names)
    folder = given.folder or Path(names.policy)
    written = _write(folder, _rendered(names))
    show([f"{folder / path}" for path in written])
    show(["", f"Now, in {folder}:", "    pip install -e ."])
    for package in ("kvharness.testing", "kvharness.suites"):
        show([f"    pytest --pyargs {package} --policy={names.policy}"])
    return 0


def _checked(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    near = re.sub(r"[\s_]+", "-", name.strip().lower())
    free = _NAME.fullmatch(near) and near not in registry.installed()
    hint = f" Did you mean {near!r}?" if free else ""
    raise UsageProblem(
        f"new-policy {name[:80]!r}: expected at most 32 lower-case letters and digits, a "
        f"letter first, with single '.', '+' or '-' between them.{hint}"
    )


def _expect_free(names: Names) -> None:
    """Refuse a name that something installed has: two offers of one name break every run."""
    name, known = names.policy, registry.installed()
    module = importlib.util.find_spec(names.module)
    claim = next((each for each in all_claims() if each.id == names.claim), None)
    if name in known:
        taken = f"a policy of this name is installed: {known[name]}"
    elif name in _RESERVED:
        taken = "it belongs to a policy of kvharness-policies"
    elif module is not None:
        taken = f"a module {names.module} is installed: {module.origin or 'a folder'}"
    elif claim is not None:
        taken = f"{claim.origin} has a claim {claim.id!r}"
    else:
        return
    raise UsageProblem(f"new-policy {name!r}: {taken}; choose another name, such as 'my-{name}'")


def _rendered(names: Names) -> dict[Path, str]:
    """Every file of the package by its path."""
    values = _values(names)
    found = {}
    for source in sorted(TEMPLATES.rglob(f"*{_SUFFIX}")):
        text = source.read_text(encoding="utf-8")
        found[_path(source, names)] = Template(text).substitute(values)
    return found


def _path(source: Path, names: Names) -> Path:
    """Where a template goes: ``package/`` is the module, ``dot-`` a leading dot."""
    parts = source.relative_to(TEMPLATES).with_suffix("").parts
    called = {"package": names.module}
    return Path(*(called.get(part, re.sub(r"^dot-", ".", part)) for part in parts))


def _values(names: Names) -> Mapping[str, str]:
    author = _author() or f"the {names.distribution} authors"
    return {
        "name": names.policy,
        "distribution": names.distribution,
        "module": names.module,
        "class_name": names.class_name,
        "author": author,
        "author_toml": tomlkit.string(author).as_string(),
        "year": str(datetime.now(tz=UTC).year),
        "version": importlib.metadata.version("kvharness"),
        "model_install": EMBEDDED[DEFAULT_MODEL].install,
    }


def _author() -> str:
    """Of git's configuration; empty where there is none."""
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run(  # noqa: S603 - no argument comes from outside
        [git, "config", "user.name"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return " ".join(done.stdout.split())


def _write(folder: Path, files: Mapping[Path, str]) -> list[Path]:
    try:
        _expect_empty(folder)
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageProblem(
            f"{error.filename or folder}: cannot be written: {error.strerror}; name another folder"
        ) from None
    return list(files)


def _expect_empty(folder: Path) -> None:
    """A fresh repository is as good as an empty folder."""
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if [name for name in there if name != ".git"]:
        raise UsageProblem(
            f"{folder} holds {', '.join(there[:3])}: expected a new or empty folder; "
            f"name another one"
        )
