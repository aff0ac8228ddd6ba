"""The look of figures, and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

# Any: the keys that matplotlib accepts are one long literal type.
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.dpi": 100,
    # Text stays text in the PDF, and a dollar sign in a name is no formula.
    "pdf.fonttype": 42,
    "text.parse_math": False,
}
_FORMATS = ("png", "pdf")
_DOTS = 200


def save(figure: Figure, directory: Path, name: str) -> list[Path]:
    """Write a figure as PNG and PDF; the same content gives the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    # Laid out once, so that both files are the same and the second one is fast.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    paths = []
    for kind in _FORMATS:
        path = directory / f"{name}.{kind}"
        # Without dates and versions the same records give the same files.
        unstamped = {"CreationDate": None} if kind == "pdf" else {"Software": None}
        figure.savefig(path, dpi=_DOTS, metadata=unstamped)
        paths.append(path)
    return paths
