"""The look of the report's figures, for figures of an analyst that stand beside them."""

from __future__ import annotations

from kvharness.report.charts.palette import GREY, HUES, INK, MARKS
from kvharness.report.charts.style import STYLE, save

__all__ = ["GREY", "HUES", "INK", "MARKS", "STYLE", "save"]
