"""Measurements of an analysis, one JSON file each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kvharness import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read_measurement(file: Path) -> dict[str, Any]:
    """What a file holds.

    Raises:
        UsageProblem: it holds no measurement.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageProblem(f"{file}: holds no measurement ({error}); remove it") from None
    if not isinstance(content, dict) or content.get("what") != file.stem:
        raise UsageProblem(f"{file}: holds no measurement; remove it")
    return content


def write_measurement(file: Path, found: Mapping[str, Any]) -> None:
    """Write what was found, with its name, the file's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"what": file.stem, **found}, separators=(",", ":")) + "\n"
    file.write_text(text, encoding="utf-8")
