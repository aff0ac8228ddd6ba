"""What the analyses of SIP compute, against naive versions and planted facts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr

from kvharness_policies.sip.analysis.information import (
    PERMUTED,
    SETS,
    Recipe,
    entropy,
    measure,
)
from kvharness_policies.sip.analysis.paradox import CHANCE, jaccard, spearman
from kvharness_policies.sip.analysis.reliability import BINS, expected_calibration_error
from kvharness_policies.sip.analysis.resample import mean_of, statistic_of
from kvharness_policies.sip.collection import Collection
from kvharness_policies.sip.label import top_labels
from kvharness_policies.sip.scorer import Shape

if TYPE_CHECKING:
    from pathlib import Path

TOKENS, WINDOWS = 64, 24
SHAPE = Shape(layers=1, kv_heads=2, head_size=4, width=16)


def naive_error(predicted: list[float], important: list[bool]) -> float:
    """Of ten equal bins: distance of means, weighed by size."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for value, label in zip(predicted, important, strict=True):
        bins.setdefault(min(int(value * BINS), BINS - 1), []).append((value, label))
    return sum(
        len(members)
        / len(predicted)
        * abs(sum(v for v, _ in members) / len(members) - sum(y for _, y in members) / len(members))
        for members in bins.values()
    )


def test_the_calibration_error_is_that_of_the_bins() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.random(500).round(3)
    important = rng.random(500) < predicted**2
    rows = []
    for part in np.array_split(np.arange(500), 3):
        place = np.minimum((predicted[part] * BINS).astype(int), BINS - 1)
        weights = (np.ones(len(part)), predicted[part], important[part])
        rows.append([np.bincount(place, weights=each, minlength=BINS) for each in weights])
    counts, sums, came = (
        np.stack([row[column] for row in rows]).astype(np.float64) for column in range(3)
    )
    found = expected_calibration_error(counts, sums, came)
    assert found == pytest.approx(naive_error(predicted.tolist(), important.tolist()))
    assert found > 0.1
    assert expected_calibration_error(counts, sums, sums) == 0


def plant(folder: Path) -> Collection:
    """Attention that follows the first number of a token's key and nothing else."""
    rng = torch.Generator().manual_seed(0)
    passages = [f"text#{number // 2}" for number in range(WINDOWS)]
    plan = {
        "model": "m",
        "corpus": "c",
        "context": TOKENS,
        "ahead": 64,
        "windows": passages,
        "held_out": [n for n in range(WINDOWS) if n // 2 % 3 == 2],
        "layers": 1,
    }
    folder.mkdir()
    (folder / "collection.json").write_text(json.dumps(plan))
    for number in range(WINDOWS):
        keys, values = torch.randn(2, 1, 2, TOKENS, 4, generator=rng)
        attention = keys[..., 0].exp() / TOKENS
        save_file(
            {
                "layers": torch.tensor([0]),
                "keys": keys,
                "values": values,
                "prefill": torch.rand(1, 2, TOKENS, generator=rng) / TOKENS,
                "attention": attention[:, :, None].expand(-1, -1, 4, -1).contiguous(),
                "mean": torch.zeros(2, 1, 2, 4),
                "square": torch.ones(2, 1, 2, 4),
            },
            folder / f"window-{number:05}.safetensors",
        )
    return Collection.open(folder)


def test_information_is_found_where_it_was_planted(tmp_path: Path) -> None:
    collection = plant(tmp_path / "traces")
    recipe = Recipe(steps=250, heads=2)
    bits = measure(
        collection, SHAPE, recipe, device=torch.device("cpu"), progress=lambda sets: sets
    )
    assert list(bits) == [*SETS, PERMUTED]
    assert {len(values) for values in bits.values()} == {4}
    means = {name: float(np.mean(values)) for name, values in bits.items()}
    assert means["keys"] > 0.4
    for blind in ("position", "values", "prefill", PERMUTED):
        assert -0.1 < means[blind] < 0.02, blind
    for name in SETS:
        if "keys" in name or name == "all":
            assert means[name] > 0.3, name
        assert means[name] <= entropy()


def test_entropy_of_a_quarter() -> None:
    assert entropy() == pytest.approx(0.811278, abs=1e-6)


def test_agreement_of_two_importances() -> None:
    rng = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 3, 40, generator=rng), torch.rand(2, 3, 40, generator=rng)
    overlap, rank = jaccard(one, other), spearman(one, other)
    for head in range(2):
        for row in range(3):
            sets = [
                {*top_labels(each)[head, row].nonzero()[:, 0].tolist()} for each in (one, other)
            ]
            expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
            assert float(overlap[head, row]) == pytest.approx(expected)
            naive = spearmanr(one[head, row], other[head, row]).statistic
            assert float(rank[head, row]) == pytest.approx(naive)
    assert jaccard(one, one).min() == 1
    assert float(spearman(one, -one).max()) == pytest.approx(-1)


def test_chance_agreement_is_that_of_random_quarters() -> None:
    rng = torch.Generator().manual_seed(0)
    draws = torch.rand(2, 400, 400, generator=rng)
    assert float(jaccard(draws[0], draws[1]).mean()) == pytest.approx(CHANCE, abs=0.005)


def test_intervals_are_of_passages() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(1, 1, 40)
    found = mean_of(values)
    assert found.low < values.mean() == found.value < found.high
    assert found.high - found.low == pytest.approx(4 / 40**0.5, rel=0.35)
    assert mean_of(np.full(5, 2.0)).low == 2
    rows = (rng.random((40, 3)), rng.random((40, 3)))
    share = statistic_of(rows, lambda a, b: float(a.sum() / b.sum()))
    assert share.low < share.value < share.high
