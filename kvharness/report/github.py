"""The summary page of a CI job: GitHub Actions names a file that jobs append Markdown to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Judgement

VARIABLE = "GITHUB_STEP_SUMMARY"


def append_summary(evidence: Evidence | None, judgements: Sequence[Judgement]) -> str:
    """Append verdicts and tables where the variable names a file.

    Returns:
        why it could not be written; empty where it was, or where none is asked for. A summary is
        no reason to fail a run that has been computed.
    """
    name = os.environ.get(VARIABLE)
    if not name or evidence is None:
        return ""
    from kvharness.report.markdown import markdown  # noqa: PLC0415 - jinja2, only in CI

    try:
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(markdown(evidence, judgements) + "\n")
    except OSError as error:
        return f"{VARIABLE}: {name!r} cannot be written: {error.strerror}"
    return ""
