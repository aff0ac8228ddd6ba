"""One colour, marker and dash for each policy, the same in every chart and figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvharness.claims.evidence import oracle_label
from kvharness.contract import Anchor
from kvharness.report.survey import CHANCE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: Light and dark, chosen together: at least 3:1 on their background, and as far apart as seven
#: colours can be for normal, protan, deutan and tritan vision (0.09 in OKLab at least).
HUES = (
    ("#1154c6", "#5da5ff"),
    ("#d15902", "#bf9e0f"),
    ("#03946d", "#1aa793"),
    ("#e266b0", "#fb9fb5"),
    ("#8d0119", "#e25345"),
    ("#0599fe", "#a7f4fe"),
    ("#5e0980", "#b06cd9"),
)
#: Of the anchors and of chance: they are what policies are seen against.
GREY = ("#6b7280", "#9aa1ab")
INK = ("#1b1e23", "#e6e8eb")


@dataclass(frozen=True, slots=True)
class Mark:
    """A shape around (0, 0): as an SVG path and as matplotlib names it."""

    path: str
    code: str


_CIRCLE = Mark("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "o")
MARKS = (
    _CIRCLE,
    Mark("M-3.6-3.6h7.2v7.2h-7.2z", "s"),
    Mark("M0-4.8L4.6 3.4H-4.6z", "^"),
    Mark("M0-5.2L5.2 0 0 5.2-5.2 0z", "D"),
    Mark("M0 4.8L-4.6-3.4H4.6z", "v"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a policy is drawn.

    Attributes:
        name: of its CSS class: ``hue-3``, ``anchor`` or ``chance``.
        label: of the policy.
        colours: light and dark.
        mark: shape of its points.
        dashed: whether its line is.
    """

    name: str
    label: str
    colours: tuple[str, str]
    mark: Mark
    dashed: bool


def looks(policies: Iterable[str], oracles: Collection[str] = ()) -> dict[str, Look]:
    """Hues and shapes repeat with different periods: 35 policies differ in one of the two.

    ``oracles`` are drawn as the anchors are.
    """
    found, number = {}, 0
    for policy in policies:
        label = oracle_label(policy, oracles)
        if policy in {*Anchor, *oracles}:
            kind, colours, mark, dashed = "anchor", GREY, _CIRCLE, True
        elif policy == CHANCE:
            kind, colours, mark, dashed = "chance", INK, _CIRCLE, True
        else:
            hue = number % len(HUES)
            kind, colours, dashed = f"hue-{hue}", HUES[hue], False
            mark = MARKS[number % len(MARKS)]
            number += 1
        found[policy] = Look(name=kind, label=label, colours=colours, mark=mark, dashed=dashed)
    return found
