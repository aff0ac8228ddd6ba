"""The five figures, from measurements; no global state, no display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from kvharness.analysis import GREY, HUES, INK, MARKS, STYLE
from kvharness_policies.sip.analysis.information import KNOWN, PERMUTED, SETS
from kvharness_policies.sip.analysis.paradox import CHANCE, REFERENCE, RETENTIONS, Agreement
from kvharness_policies.sip.analysis.reliability import (
    BINS,
    Reliability,
    expected_calibration_error,
)
from kvharness_policies.sip.analysis.resample import Resampled, mean_of, statistic_of
from kvharness_policies.sip.features import ALL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Content = Mapping[str, Any]

#: First and last token after the divergence of two texts, by group.
_AFTER = ((0, 0), (1, 3), (4, 7), (8, 15), (16, 31), (32, 63))
_PLAIN = "small"


def _colour(number: int) -> str:
    return HUES[number % len(HUES)][0]


def _axes(width: float, height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def convergence(content: Content) -> Figure:
    """Cross-entropy over the steps: seeds as thin lines, their mean as a thick one."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = _axes(4.6, 3.2)
        variants = dict.fromkeys(each["variant"] for each in content["trainings"])
        for number, variant in enumerate(variants):
            runs = [each for each in content["trainings"] if each["variant"] == variant]
            _variant(axes, variant, runs, _colour(number))
        axes.set_xlabel("step")
        axes.set_ylabel("cross-entropy, nats")
        figure.legend(frameon=False, fontsize=7, ncols=2, loc="outside lower center")
        figure.suptitle("Training of SIP: held out (solid) and trained on (dotted)", fontsize=8)
    return figure


def _variant(axes: Axes, variant: str, runs: Sequence[Content], colour: str) -> None:
    steps = [point["step"] for point in runs[0]["curves"]]
    for key, line in (("held_out", "-"), ("train", ":")):
        rows = np.array([[point[key] for point in run["curves"]] for run in runs])
        for row in rows if len(rows) > 1 else ():
            axes.plot(steps, row, line, color=colour, linewidth=0.5, alpha=0.6)
        seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
        label = f"{variant}, {seeds}" if key == "held_out" else None
        axes.plot(steps, rows.mean(axis=0), line, color=colour, linewidth=1.4, label=label)


def calibration(content: Content) -> Figure:
    """Predicted and observed share of important tokens, in the bins that the ECE adds up."""
    with mpl.rc_context(STYLE):
        figure, (above, below) = _axes(6.4, 3.1, columns=2)
        scorers = [Reliability.from_dict(each) for each in content["scorers"]]
        above.plot([0, 1], [0, 1], color=GREY[0], linewidth=0.8, linestyle="--")
        for number, variant in enumerate(dict.fromkeys(each.variant for each in scorers)):
            mine = [each for each in scorers if each.variant == variant]
            _reliability(above, below, variant, mine, number)
        above.set_xlabel("predicted share of important tokens")
        above.set_ylabel("observed share")
        below.set_xlabel("predicted")
        below.set_ylabel("share of all tokens")
        figure.legend(frameon=False, fontsize=7, ncols=2, loc="outside lower center")
        passages = content["passages"]
        figure.suptitle(
            f"Calibration at 64 future tokens, {passages} held-out passages, 95 % intervals",
            fontsize=8,
        )
    return figure


def _reliability(
    above: Axes, below: Axes, variant: str, scorers: Sequence[Reliability], number: int
) -> None:
    counts, predicted, observed = (
        sum((getattr(each, name) for each in scorers), np.zeros(1))
        for name in ("counts", "predicted", "observed")
    )
    found = statistic_of((counts, predicted, observed), expected_calibration_error)
    total = counts.sum(axis=0)
    there = total > 0
    x = predicted.sum(axis=0)[there] / total[there]
    y = observed.sum(axis=0)[there] / total[there]
    label = f"{variant}: ECE {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    mark, colour = MARKS[number % len(MARKS)].code, _colour(number)
    above.plot(x, y, f"{mark}-", color=colour, markersize=3.5, linewidth=0.8, label=label)
    centres = (np.arange(BINS) + 0.5) / BINS
    below.plot(centres, total / total.sum(), f"{mark}-", color=colour, markersize=3, linewidth=0.8)


def information(content: Content) -> Figure:
    """Bits about the label for each set of features, and what keys and values add."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = _axes(5.6, 3.4)
        bits = {name: np.array(values) for name, values in content["bits"].items()}
        rows = [(name, mean_of(bits[name])) for name in (*SETS, PERMUTED)]
        rows += [
            ("gain of keys+values over position", mean_of(bits[SETS[5]] - bits["position"])),
            (f"gain of keys+values over {KNOWN}", mean_of(bits[ALL] - bits[KNOWN])),
        ]
        for place, (name, found) in enumerate(rows):
            gain = name.startswith("gain")
            colour = INK[0] if gain else GREY[0] if name == PERMUTED else _colour(0)
            _bar(axes, -place - 0.6 * gain, found, colour)
        ticks = [-place - 0.6 * name.startswith("gain") for place, (name, _) in enumerate(rows)]
        axes.set_yticks(ticks, [name for name, _ in rows])
        axes.axvline(0, color=GREY[0], linewidth=0.8)
        axes.set_xlabel(f"bits a token, of {content['entropy']:.3f} (a lower bound)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.suptitle(
            "What features say of the quarter most attended by the next 64 tokens; "
            f"{content['passages']} passages, 95 % intervals",
            fontsize=8,
        )
    return figure


def _bar(axes: Axes, place: float, found: Resampled, colour: str) -> None:
    axes.plot([found.low, found.high], [place, place], color=colour, linewidth=1.4)
    axes.plot([found.value], [place], "o", color=colour, markersize=4)
    axes.annotate(
        f"{found.value:.3f}",
        (found.high, place),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=colour,
    )


def paradox(content: Content) -> Figure:
    """Agreement of importances: by retention, and by token after the texts part."""
    with mpl.rc_context(STYLE):
        figure, (left, right) = _axes(7.0, 3.1, columns=2)
        agreements = [Agreement.from_dict(each) for each in content["agreements"]]
        _by_pair(left, agreements)
        _by_token(right, agreements)
        windows = len({each.passage for each in agreements})
        figure.legend(frameon=False, fontsize=7, ncols=3, loc="outside lower center")
        figure.suptitle(
            f"Importance from the full cache's text against that of other texts; {windows} "
            f"passages, 95 % intervals",
            fontsize=8,
        )
    return figure


def _by_pair(axes: Axes, agreements: Sequence[Agreement]) -> None:
    pairs = (*RETENTIONS, REFERENCE)
    names = [f"keep {pair}" for pair in RETENTIONS] + ["real text"]
    for number, key in enumerate(("jaccard", "spearman")):
        found = [
            mean_of(np.array([getattr(each, key) for each in agreements if each.pair == pair]))
            for pair in pairs
        ]
        label = {"jaccard": "Jaccard of top quarters", "spearman": "rank correlation"}[key]
        _points(axes, found, number, label)
    axes.axhline(CHANCE, color=GREY[0], linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(names)), names, rotation=20)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("agreement (dashed: Jaccard by chance)")


def _points(axes: Axes, found: Sequence[Resampled], number: int, label: str | None) -> None:
    colour, mark = _colour(number), MARKS[number % len(MARKS)].code
    for place, each in enumerate(found):
        x = place + 0.06 * number
        axes.plot([x, x], [each.low, each.high], color=colour, linewidth=1.2)
    x_all = [place + 0.06 * number for place in range(len(found))]
    values = [each.value for each in found]
    axes.plot(x_all, values, mark, color=colour, markersize=4, label=label)


def _by_token(axes: Axes, agreements: Sequence[Agreement]) -> None:
    for number, pair in enumerate(RETENTIONS):
        mine = [each for each in agreements if each.pair == pair and each.diverged is not None]
        found = [(low, _after(mine, low, high)) for low, high in _AFTER]
        there = [(low, values) for low, values in found if len(values) > 1]
        means = [mean_of(values) for _, values in there]
        x = [1.5 * low + 1 for low, _ in there]
        colour = _colour(number + 2)
        mark = MARKS[number % len(MARKS)].code
        axes.plot(
            x,
            [each.value for each in means],
            f"{mark}-",
            color=colour,
            markersize=3.5,
            linewidth=0.8,
            label=f"keep {pair}",
        )
    axes.axhline(CHANCE, color=GREY[0], linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    places = [1.5 * low + 1 for low, _ in _AFTER]
    axes.set_xticks(places, [f"{a}-{b}" if b > a else str(a) for a, b in _AFTER], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("tokens after the texts part")
    axes.set_ylabel("Jaccard of each token's top quarter")


def _after(agreements: Sequence[Agreement], low: int, high: int) -> NDArray[np.float64]:
    """One mean a passage, over its tokens that lie so far behind the divergence."""
    rows = []
    for each in agreements:
        start = each.diverged or 0
        part = each.by_token[start + low : start + high + 1]
        if part:
            rows.append(float(np.mean(part)))
    return np.array(rows)


def ladder(content: Content) -> Figure:
    """Chance, position, SIP and the oracle at each retention."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = _axes(4.6, 3.1)
        rungs = content["rungs"]
        retentions = list(dict.fromkeys(each["retention"] for each in rungs))
        for number, policy in enumerate(dict.fromkeys(each["policy"] for each in rungs)):
            mine = [each for each in rungs if each["policy"] == policy]
            x = [retentions.index(each["retention"]) + 0.05 * number for each in mine]
            colour, mark = _colour(number), MARKS[number % len(MARKS)].code
            for place, each in zip(x, mine, strict=True):
                axes.plot([place, place], [each["low"], each["high"]], color=colour, linewidth=1.2)
            means = [each["mean"] for each in mine]
            axes.plot(x, means, f"{mark}-", color=colour, markersize=4, linewidth=0.8, label=policy)
        for level, name in ((0, "floor"), (1, "full")):
            axes.axhline(level, color=GREY[0], linewidth=0.8, linestyle="--")
            axes.annotate(name, (len(retentions) - 0.7, level), color=GREY[0], va="bottom")
        axes.set_xticks(range(len(retentions)), [f"keep {each}" for each in retentions])
        axes.set_ylabel(content["metric"])
        figure.legend(frameon=False, fontsize=7, ncols=4, loc="outside lower center")
        units = max(each["units"] for each in rungs)
        figure.suptitle(
            f"The oracle ladder: {units} items of all suites, 95 % intervals", fontsize=8
        )
    return figure
