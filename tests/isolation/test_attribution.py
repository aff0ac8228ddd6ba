from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kvharness import View, window_attention
from kvharness.errors import PolicyProblem, UsageProblem
from kvharness.isolation import attribution
from kvharness.isolation.attribution import blamed


def test_what_is_raised_gets_the_name_the_stage_and_the_place() -> None:
    expected = (
        r"^policy 'mine': ready failed with OSError: no checkpoint \(test_attribution\.py:\d+\)$"
    )
    with pytest.raises(PolicyProblem, match=expected), blamed("mine", stage="ready"):
        raise OSError("no checkpoint\nhere")
    with pytest.raises(PolicyProblem, match=r"^policy 'mine': SystemExit: 3 "), blamed("mine"):
        raise SystemExit(3)


def test_problems_of_ours_are_told_in_their_words() -> None:
    with pytest.raises(PolicyProblem, match=r"^policy 'mine': too small \(test_at"), blamed("mine"):
        raise UsageProblem("too small")
    with pytest.raises(PolicyProblem, match=r"^policy 'inner': no scores$"), blamed("mine"):
        raise PolicyProblem("inner", "no scores")


def test_an_interrupt_stays_one_and_gets_the_name() -> None:
    expected = r"^policy 'mine' was running \(test_attribution\.py:\d+\)$"
    with pytest.raises(KeyboardInterrupt, match=expected), blamed("mine"):
        raise KeyboardInterrupt


def test_changed_settings_are_the_policys_problem() -> None:
    before = torch.get_num_threads()
    expected = (
        rf"^policy 'mine': ready changed the number of threads from {before} to {before + 2}, "
        r"for every policy of the process; undo it"
    )
    with pytest.raises(PolicyProblem, match=expected), blamed("mine", stage="ready"):
        torch.set_num_threads(before + 2)
    with pytest.raises(PolicyProblem, match=r"^policy 'mine': it changed"), blamed("mine"):
        torch.set_num_threads(before + 2)
    assert torch.get_num_threads() == before


def test_the_code_of_a_package_with_a_similar_name_is_the_authors() -> None:
    beside = Path(attribution.__file__).parents[1].with_name("kvharness_mine") / "policy.py"
    code = compile("def score(view): return 1 / 0", str(beside), "exec")
    space: dict[str, Any] = {}
    exec(code, space)  # noqa: S102 - a file beside the harness's own, which need not exist
    with pytest.raises(PolicyProblem, match=r"by zero \(policy\.py:1\)"), blamed("mine"):
        space["score"](None)


def test_the_place_is_never_a_helper_of_the_harness() -> None:
    keys = torch.zeros(1, 3, 4)
    rng = torch.Generator()
    view = View(layer=0, keys=keys, values=keys, positions=torch.arange(3), scaling=1.0, rng=rng)
    expected = r"carries no queries; .* \(test_attribution\.py:\d+\)$"
    with pytest.raises(PolicyProblem, match=expected), blamed("mine"):
        window_attention(view)
