from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from kvharness.testing import check_exact_budget
from kvharness.testing.catalogue import Check
from kvharness.testing.one_thread import one_thread

if TYPE_CHECKING:
    from kvharness import View


def test_the_number_of_threads_is_put_back_also_if_a_check_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [7]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: now.__setitem__(0, count))

    def fails() -> None:
        with one_thread():
            seen.append(now[0])
            raise LookupError

    seen: list[int] = []
    with pytest.raises(LookupError):
        fails()
    assert (seen, now) == ([1], [7])


def test_a_check_runs_its_policy_in_one_thread() -> None:
    seen = set()

    def score(view: View) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return torch.zeros(view.kv_heads, view.tokens)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Check(check_exact_budget, 3)(score)
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_the_projects_own_tests_have_one_thread() -> None:
    """Unless whoever starts them says otherwise."""
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
