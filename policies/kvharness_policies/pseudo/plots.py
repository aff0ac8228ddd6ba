"""The figure, from its measurement; no global state, no display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from kvharness.analysis import GREY, HUES, MARKS, STYLE
from kvharness_policies.pseudo.nearness import (
    KINDS,
    LAST,
    RECENTS,
    RIGHT,
    SINKS,
    WRONG,
    Nearness,
    budgets,
)
from kvharness_policies.sip.analysis.resample import mean_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

#: Of a place: line, and where it stands beside the others.
_LINES = {RIGHT: "-", WRONG: ":", LAST: "--"}
_NAMES = {LAST: "last of context"}


def nearness(content: Mapping[str, Any]) -> Figure:
    """Cosine to the true queries, and recall of the tokens that they attend to most."""
    found = [Nearness.from_dict(each) for each in content["nearness"]]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _cosines(left, found)
        _recalls(right, found, content["context"])
        figure.legend(frameon=False, fontsize=7, ncols=3, loc="outside lower center")
        passages = len({each.passage for each in found})
        figure.suptitle(
            f"Made-up queries against those of the true text, {content['queries']} each; "
            f"{passages} passages, 95 % intervals",
            fontsize=8,
        )
    return figure


def _colours() -> dict[str, str]:
    """Of each content."""
    contents = dict.fromkeys(content for content, _ in KINDS)
    return {content: HUES[number][0] for number, content in enumerate(contents)}


def _cosines(axes: Axes, found: Sequence[Nearness]) -> None:
    colours, names = _colours(), []
    for place, (content, where) in enumerate(KINDS):
        values = [each.cosine for each in found if (each.content, each.place) == (content, where)]
        mean = mean_of(np.array(values))
        axes.plot([place] * 2, [mean.low, mean.high], color=colours[content], linewidth=1.2)
        mark = MARKS[list(_LINES).index(where)].code
        axes.plot([place], [mean.value], mark, color=colours[content], markersize=4)
        names.append(_NAMES.get(content, f"{content}, {where} place"))
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.axhline(0, color=GREY[0], linewidth=0.8, linestyle="--")
    axes.set_ylabel("cosine to the true queries")


def _recalls(axes: Axes, found: Sequence[Nearness], context: int) -> None:
    colours, sizes = _colours(), budgets(context)
    for content, where in KINDS:
        mine = [each for each in found if (each.content, each.place) == (content, where)]
        means = [mean_of(np.array([each.recall[size] for each in mine])) for size in sizes]
        low, high = [each.low for each in means], [each.high for each in means]
        colour, line = colours[content], _LINES[where]
        axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
        label = _NAMES.get(content, f"{content}, {where} place")
        values = [each.value for each in means]
        axes.plot(sizes, values, line, color=colour, linewidth=1.2, label=label)
    chance = [size / (context - SINKS - RECENTS) for size in sizes]
    axes.plot(sizes, chance, color=GREY[0], linewidth=0.8, linestyle="--", label="chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("tokens a head")
    axes.set_ylabel("recall of the most attended")
