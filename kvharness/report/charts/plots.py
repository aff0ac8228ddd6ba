"""How the figures are drawn with matplotlib; no global state, no display."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from kvharness.report import notation
from kvharness.report.charts.palette import GREY, HUES, INK, MARKS, looks
from kvharness.report.charts.style import STYLE
from kvharness.report.difference import Relation
from kvharness.report.survey import CHANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from kvharness.report.charts.forest import Forest, Row
    from kvharness.report.charts.palette import Look
    from kvharness.report.charts.significance import Matrix

_CODES = {Relation.WORSE: -1, Relation.UNDECIDED: 0, Relation.BETTER: 1}
_SIGNS = {-1: "−", 0: "·", 1: "+"}  # noqa: RUF001 - the sign
_COLOURS = ListedColormap(["#f3c9b5", "#f1f2f4", "#bfe3d2"])


def forest_plot(forests: Sequence[Forest]) -> Figure:
    """A row of panels for each scope, a column for each retention."""
    with mpl.rc_context(STYLE):
        columns = max(len(forest.facets) for forest in forests)
        policies = max(len(forest.policies) for forest in forests)
        size = (1.5 + 1.75 * columns, 0.8 + (0.55 + 0.16 * policies) * len(forests))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(forests), columns, squeeze=False)
        for row, forest in zip(axes, forests, strict=True):
            _forest_row(row, forest)
        _title(figure, forests[0], "Each policy against random")
    return figure


def _forest_row(row: Sequence[Axes], forest: Forest) -> None:
    chosen = looks(sorted(forest.policies), forest.oracles)
    for axes in row[len(forest.facets) :]:
        axes.set_visible(False)
    for axes, facet in zip(row, forest.facets, strict=False):
        axes.axvline(0, color=GREY[0], linewidth=0.8)
        for line in facet.rows:
            _whisker(axes, line, -forest.policies.index(line.policy), chosen[line.policy])
        axes.set_xlim(forest.axis.low, forest.axis.high)
        axes.set_title(f"keep {facet.retention}")
        names = [chosen[policy].label for policy in forest.policies]
        _name_rows(axes, names if axes is row[0] else [""] * len(names))
    row[0].set_ylabel(f"{forest.scope}, n = {forest.units}")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks([-number for number in range(len(names))], list(names))
    axes.set_ylim(-len(names) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _whisker(axes: Axes, row: Row, place: float, look: Look) -> None:
    colour = look.colours[0]
    interval = row.difference.interval
    if row.beyond:
        _arrow(axes, row, place, colour)
        return
    if interval is not None:
        axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=1.2)
    axes.plot(
        [row.difference.mean],
        [place],
        look.mark.code,
        color=colour,
        markersize=4,
        markerfacecolor=colour if row.clear else "white",
    )


def _arrow(axes: Axes, row: Row, place: float, colour: str) -> None:
    """At the edge, for what lies off the axis."""
    left = row.difference.mean < 0
    axes.plot(
        [0 if left else 1],
        [place],
        "<" if left else ">",
        color=colour,
        markersize=4,
        clip_on=False,
        transform=axes.get_yaxis_transform(),
    )
    axes.text(
        0.03 if left else 0.97,
        place,
        notation.signed(row.difference.mean),
        color=colour,
        ha="left" if left else "right",
        va="center",
        transform=axes.get_yaxis_transform(),
    )


def significance_plot(found: Sequence[Matrix]) -> Figure:
    """A panel for each retention; read a row: it is better (+) or worse than the column."""
    with mpl.rc_context(STYLE):
        policies = max(len(matrix.policies) for matrix in found)
        side = 1.1 + 0.21 * policies
        figure = Figure(figsize=(side * len(found), side + 0.5), layout="constrained")
        for axes, matrix in zip(
            figure.subplots(1, len(found), squeeze=False)[0], found, strict=True
        ):
            _matrix(axes, matrix)
        first = found[0]
        figure.suptitle(
            f"Row is better (+), worse ({_SIGNS[-1]}) or undecided ({_SIGNS[0]}) than column: "
            f"{first.metric}, {first.scope}; two-sided 5 %, Holm over all pairs of a panel",
            fontsize=8,
        )
    return figure


def _matrix(axes: Axes, matrix: Matrix) -> None:
    count = len(matrix.policies)
    codes = np.full((count, count), np.nan)
    for row, policy in enumerate(matrix.policies):
        for column, other in enumerate(matrix.policies):
            relation = None if row == column else matrix.relation(policy, other)
            if relation is not None:
                codes[row, column] = code = _CODES[relation]
                axes.text(column, row, _SIGNS[code], ha="center", va="center", color=INK[0])
    axes.imshow(codes, cmap=_COLOURS, vmin=-1, vmax=1)
    axes.set_xticks(range(count), matrix.policies, rotation=90)
    axes.set_yticks(range(count), matrix.policies)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"keep {matrix.retention}")


def pair_plot(forests: Sequence[Forest], policy: str, *, margin: float | None) -> Figure:
    """One policy minus random at each retention, a series for each scope."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color=GREY[0], linewidth=0.8)
        if margin is not None:
            axes.axhline(margin, color=GREY[0], linewidth=0.8, linestyle="--")
            axes.annotate(
                f"margin\n{margin:g}",
                (1, margin),
                xytext=(3, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                color=GREY[0],
            )
        for number, forest in enumerate(forests):
            _series(axes, forest, policy, number=number, of=len(forests))
        retentions = [facet.retention for facet in forests[0].facets]
        axes.set_xticks(range(len(retentions)), [f"keep {text}" for text in retentions])
        axes.set_ylabel(f"{policy} − {CHANCE}, {forests[0].metric}")  # noqa: RUF001
        figure.legend(frameon=False, fontsize=7, ncols=2, loc="outside lower center")
        _title(figure, forests[0], f"{policy} against random")
    return figure


def _series(axes: Axes, forest: Forest, policy: str, *, number: int, of: int) -> None:
    colour, mark = HUES[number % len(HUES)][0], MARKS[number % len(MARKS)].code
    shift = 0.12 * (number - (of - 1) / 2)
    for place, facet in enumerate(forest.facets):
        difference = forest.differences.get((policy, facet.retention))
        if difference is None:
            continue
        x, interval = place + shift, difference.interval
        if interval is not None:
            axes.plot([x, x], [interval.low, interval.high], color=colour, linewidth=1.2)
        label = f"{forest.scope}, n = {forest.units}" if place == 0 else None
        axes.plot([x], [difference.mean], mark, color=colour, markersize=4, label=label)


def _title(figure: Figure, forest: Forest, words: str) -> None:
    figure.suptitle(
        f"{words}: mean paired difference in {forest.metric}, 90 % intervals", fontsize=8
    )
