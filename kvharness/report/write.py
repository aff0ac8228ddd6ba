"""Writing a report: the page, and figures beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvharness.errors import UsageProblem
from kvharness.report.charts.figures import figures as draw
from kvharness.report.page import page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement
    from kvharness.records.header import Header


def write_report(
    evidence: Evidence,
    judgements: Sequence[Judgement],
    headers: Sequence[Header],
    out: Path,
    figures: Path | None = None,
) -> list[Path]:
    """Write the page to ``out`` and, where a folder is given, the figures into it.

    Returns:
        every file that was written, the page first.

    Raises:
        UsageProblem: something cannot be written there.
    """
    _write(out, page(evidence, judgements, headers))
    drawn = [] if figures is None else draw(evidence, judgements, figures)
    return [out, *drawn]


def _write(path: Path, text: str) -> None:
    if path.name == "" or (path.exists() and not path.is_file()):
        raise UsageProblem(
            f"cannot write the report {str(path)!r}: it is not a file; give one with -o FILE"
        )
    # In one step: whoever looks at the page sees the old one or the new one.
    draft = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(text.encode("utf-8", "replace"))
        draft.replace(path)
    except OSError as error:
        raise UsageProblem(
            f"cannot write the report {str(path)!r}: {error.strerror or error}; "
            f"give another file with -o FILE"
        ) from error
    finally:
        _remove(draft)


def _remove(draft: Path) -> None:
    try:
        draft.unlink(missing_ok=True)
    except OSError:
        return
