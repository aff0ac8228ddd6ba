from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.policy.seeds import generator


@given(words=st.lists(st.text(max_size=5), min_size=1, max_size=4), other=st.text(max_size=5))
def test_a_generator_depends_on_its_words_alone(words: list[str], other: str) -> None:
    first = torch.rand(4, generator=generator(*words))
    torch.rand(1, generator=generator(other))
    random.random()
    assert torch.equal(first, torch.rand(4, generator=generator(*words)))
    assert not torch.equal(first, torch.rand(4, generator=generator(*words, other)))
    if other != words[-1]:
        assert not torch.equal(first, torch.rand(4, generator=generator(*words[:-1], other)))


def test_a_generator_ignores_and_spares_the_global_one() -> None:
    state = torch.get_rng_state()
    first = torch.rand(4, generator=generator("a"))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert torch.equal(first, torch.rand(4, generator=generator("a")))


def test_a_generator_is_the_same_in_every_process_and_release() -> None:
    # Python's own hash of a text is salted, so it may not be used.
    drawn = torch.randint(0, 1000, (4,), generator=generator("0", "i", "p"))
    assert drawn.tolist() == [112, 667, 198, 735]
