"""The look of figures, and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvharness.errors import UsageProblem

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
    """Write a figure as PNG and PDF; the same content gives the same bytes.

    Raises:
        UsageProblem: the directory cannot be written.
    """
    # Laid out once, so that both files are the same and the second one is fast.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [_saved(figure, directory / f"{name}.{kind}") for kind in _FORMATS]
    except OSError as error:
        raise UsageProblem(
            f"cannot write figures to {str(directory)!r}: {error.strerror or error}; "
            f"give another folder with --figures DIR"
        ) from error


def _saved(figure: Figure, path: Path) -> Path:
    # Without dates and versions the same records give the same files.
    unstamped = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
    figure.savefig(path, dpi=_DOTS, metadata=unstamped)
    return path
