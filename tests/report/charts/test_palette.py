from __future__ import annotations

from itertools import combinations

import pytest

from kvharness.report.charts.palette import GREY, HUES, INK, looks

PAGES = ("#ffffff", "#1a1d21")


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("pair", [*HUES, GREY, INK])
def test_contrast_with_the_page(pair: tuple[str, str]) -> None:
    for colour, behind in zip(pair, PAGES, strict=True):
        low, high = sorted((luminance(colour), luminance(behind)))
        assert (high + 0.05) / (low + 0.05) >= 3


def test_policies_differ_in_colour_or_shape() -> None:
    chosen = looks(f"policy-{number}" for number in range(35))
    for first, second in combinations(chosen.values(), 2):
        assert (first.name, first.mark) != (second.name, second.mark)


def test_anchors_and_chance_have_no_hue() -> None:
    chosen = looks(["full", "floor", "oracle", "random", "h2o"])
    assert [look.name for look in chosen.values()] == ["anchor"] * 3 + ["chance", "hue-0"]
    assert [look.dashed for look in chosen.values()] == [True] * 4 + [False]


def test_whoever_knows_the_answers_looks_like_an_anchor_and_says_so() -> None:
    chosen = looks(["cheat", "oracle", "h2o"], {"oracle", "cheat"})
    assert [look.name for look in chosen.values()] == ["anchor", "anchor", "hue-0"]
    assert [look.label for look in chosen.values()] == ["cheat (oracle)", "oracle", "h2o"]
