"""Writing observed verdicts into claims files as the expected ones, as a reviewable diff."""

from __future__ import annotations

import difflib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from kvharness.claims.judgement import Outcome
from kvharness.errors import ClaimProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tomlkit.items import Table

    from kvharness.claims.judgement import Judgement
    from kvharness.inference.region import Verdict


def acceptable(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Those judged whole, under the settings that expectations are about, and not as expected."""
    return [
        each
        for each in judgements
        if each.whole and each.binding and each.outcome is not Outcome.AS_EXPECTED
    ]


def accept(judgements: Iterable[Judgement], model: str) -> Iterator[str]:
    """Write each verdict as what its model is expected to show; yields the diff, line by line.

    Comments and order of a file stay as they are.

    Raises:
        ClaimProblem: a file cannot be written.
    """
    by_file: dict[Path, dict[str, Verdict]] = defaultdict(dict)
    for judgement in judgements:
        by_file[Path(judgement.claim.origin)][judgement.claim.id] = judgement.verdict
    for path, verdicts in by_file.items():
        yield from _rewrite(path, verdicts, model)


def _rewrite(path: Path, verdicts: dict[str, Verdict], model: str) -> Iterator[str]:
    before = path.read_text(encoding="utf-8")
    document = tomlkit.parse(before)
    for table in document["claim"]:
        if table["id"] in verdicts:
            if "expect" not in table:
                _add_expect(table)
            table["expect"][model] = verdicts[table["id"]].value
    after = tomlkit.dumps(document)
    _write(path, after)
    yield from difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(path), str(path), lineterm="", n=2
    )


def _add_expect(table: Table) -> None:
    """Add an empty table after the last key; comments that follow belong to the next claim."""
    body: list[Any] = table.value.body
    following: list[Any] = []
    while body and body[-1][0] is None:
        following.insert(0, body.pop())
    table["expect"] = tomlkit.inline_table()
    body.extend(following)


def _write(path: Path, text: str) -> None:
    # In one step: a crash must not leave half a claims file.
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ClaimProblem(f"{path}: cannot be written: {error.strerror}") from None
