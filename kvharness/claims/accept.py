"""Writing observed verdicts into claims files as the expected ones, as a reviewable diff."""

from __future__ import annotations

import difflib
import shutil
import stat
import tomllib
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.items import InlineTable

from kvharness.claims.judgement import Outcome
from kvharness.errors import ClaimProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tomlkit.items import Item, Table

    from kvharness.claims.judgement import Judgement
    from kvharness.statistics.region import Verdict


def acceptable(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Those judged whole, under the settings that expectations are about, and not as expected."""
    return [
        each
        for each in judgements
        if each.whole and not each.elsewhere and each.outcome is not Outcome.AS_EXPECTED
    ]


def accept(judgements: Iterable[Judgement], model: str) -> Iterator[str]:
    """Write each verdict as what its model is expected to show; yields the diff, line by line.

    Comments, order, line endings and a byte order mark of a file stay as they are.

    Raises:
        ClaimProblem: a file cannot be written.
    """
    by_file: dict[Path, dict[str, Verdict]] = defaultdict(dict)
    for judgement in judgements:
        by_file[Path(judgement.claim.origin)][judgement.claim.id] = judgement.verdict
    for path, verdicts in by_file.items():
        yield from _rewrite(path, verdicts, model)


def _rewrite(path: Path, verdicts: Mapping[str, Verdict], model: str) -> Iterator[str]:
    try:
        marked = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ClaimProblem(f"{path}: cannot be read: {error.strerror}") from None
    before = marked.removeprefix("\ufeff")
    after = _expecting(before, verdicts, model)
    if not _holds(after, _expected(tomllib.loads(before), verdicts, model)):
        raise ClaimProblem(
            f"{path}: cannot be rewritten without changing more than expectations; write "
            f"expect = {{ {tomlkit.string(model).as_string()} = ... }} into its claims yourself"
        )
    _write(path, marked[: len(marked) - len(before)] + after)
    yield from difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(path), str(path), lineterm="", n=2
    )


def _holds(text: str, data: object) -> bool:
    try:
        return tomllib.loads(text) == data
    except tomllib.TOMLDecodeError:
        return False


def _expected(data: dict[str, Any], verdicts: Mapping[str, Verdict], model: str) -> dict[str, Any]:
    """What the file should hold afterwards."""
    for claim in data["claim"]:
        if claim["id"] in verdicts:
            claim.setdefault("expect", {})[model] = verdicts[claim["id"]].value
    return data


def _expecting(before: str, verdicts: Mapping[str, Verdict], model: str) -> str:
    ending = "\r\n" if "\r\n" in before else "\n"
    document = tomlkit.parse(before if before.endswith("\n") else before + ending)
    for table in document["claim"]:
        if table["id"] in verdicts:
            _expect(table, model, verdicts[table["id"]].value, ending)
    return tomlkit.dumps(document)


def _expect(table: Table, model: str, verdict: str, ending: str) -> None:
    found = table.get("expect")
    if found is None:
        name = tomlkit.string(model).as_string()
        _append(table, "expect", tomlkit.value(f'{{ {name} = "{verdict}" }}'), ending)
    elif isinstance(found, InlineTable) or model in found:
        found[model] = verdict
    else:
        _append(found, model, tomlkit.string(verdict), ending)


def _append(table: Table, key: str, item: Item, ending: str) -> None:
    """After the last key: comments at a table's end are about what follows it."""
    body, after = table.value.body, []
    while body and body[-1][0] is None:
        after.append(body.pop()[1])
    item.trivia.trail = ending
    table.append(key, item)
    for each in reversed(after):
        table.add(each)  # type: ignore[call-overload]


def _write(path: Path, text: str) -> None:
    # In one step: a crash must not leave half a claims file.
    draft = path.with_name(f".{path.name}.new")
    try:
        if not path.stat().st_mode & stat.S_IWUSR:
            raise ClaimProblem(f"{path}: cannot be written: the file is read-only")
        draft.write_text(text, encoding="utf-8", newline="")
        shutil.copymode(path, draft)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise ClaimProblem(f"{path}: cannot be written: {error.strerror}") from None
