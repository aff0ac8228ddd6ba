"""How a path is shown: as one would type it here."""

from __future__ import annotations

from pathlib import Path


def typed(path: Path) -> str:
    """Relative to the current folder where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
