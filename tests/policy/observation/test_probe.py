from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any

import pytest

from kvharness import Ends, Policy, Probe, RandomTokens, Repeat, Text
from kvharness.discovery.declared import misdeclared
from kvharness.policy.observation.probe import Material
from kvharness.pretrained.prompt import Encoder

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[int], Material]


@pytest.fixture(scope="module")
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture
def material(encoder: Encoder) -> Make:
    return lambda tokens: Material(
        context=tuple(range(100, 100 + tokens)), encoder=encoder, vocabulary=1502
    )


@pytest.mark.parametrize(
    ("tokens", "ids"),
    [
        (20, [0, 1, 17, 18, 19]),
        (5, [0, 1, 2, 3, 4]),
        (4, [0, 1, 2, 3]),
        (1, [0]),
    ],
)
def test_ends_are_the_first_and_last_tokens_and_none_twice(
    tokens: int, ids: list[int], material: Make
) -> None:
    (part,) = Ends(prefix=2, suffix=3).parts(material(tokens))
    assert part.ids == tuple(100 + each for each in ids)
    assert (part.first, part.last) == (0, tokens)


def test_one_end_may_be_all(material: Make) -> None:
    assert Ends(prefix=3, suffix=0).parts(material(9))[0].ids == (100, 101, 102)
    assert Ends(prefix=0, suffix=3).parts(material(9))[0].ids == (106, 107, 108)


def test_random_tokens_are_fixed_by_the_context_alone(material: Make) -> None:
    probe = RandomTokens(count=400)
    (one,), (again,), (other,) = (probe.parts(material(n)) for n in (9, 9, 10))
    assert one.ids == again.ids != other.ids
    assert len(one.ids) == 400
    assert 0 <= min(one.ids) < 20
    assert 1482 < max(one.ids) < 1502
    assert one.ids[:5] == RandomTokens(count=5).parts(material(9))[0].ids


def test_a_text_starts_again_where_it_is_too_short(material: Make, encoder: Encoder) -> None:
    ids = encoder.ids("a purple harbour")
    (part,) = Text(text="a purple harbour", count=2 * len(ids) + 1).parts(material(9))
    assert part.ids == (*ids, *ids, ids[0])
    (part,) = Text(text="a purple harbour", count=2).parts(material(9))
    assert part.ids == ids[:2]


def test_a_chunk_follows_the_request_to_repeat_it(material: Make, encoder: Encoder) -> None:
    """The prompts are those of the official code, in the template of the model."""
    tail = "<|im_end|>\n<|im_start|>assistant\n"
    first = encoder.ids("\n\nRepeat the previous context exactly.")
    later = encoder.ids("\n\nRepeat the part of the previous context exactly, starting with ")
    parts = Repeat(chunk=4, skip=3, cue=2).parts(material(13))
    assert [(part.first, part.last) for part in parts] == [(3, 7), (7, 11), (11, 13)]
    assert parts[0].ids == (*first, *encoder.ids(tail), 103, 104, 105, 106)
    assert parts[1].ids == (*later, 105, 106, *encoder.ids(tail), 107, 108, 109, 110)
    assert parts[2].ids == (*later, 109, 110, *encoder.ids(tail), 111, 112)


def test_the_cue_ends_where_the_repeated_begins(material: Make, encoder: Encoder) -> None:
    later = encoder.ids("\n\nRepeat the part of the previous context exactly, starting with ")
    part = Repeat(chunk=2, skip=3).parts(material(9))[1]
    assert part.ids[: len(later) + 2] == (*later, 103, 104)


@pytest.mark.parametrize(("tokens", "spans"), [(3, []), (4, [(3, 4)]), (7, [(3, 7)])])
def test_a_context_of_one_chunk_or_none(
    tokens: int, spans: list[tuple[int, int]], material: Make
) -> None:
    parts = Repeat(chunk=4, skip=3).parts(material(tokens))
    assert [(part.first, part.last) for part in parts] == spans


@pytest.mark.parametrize(("offset", "start"), [(0, 50), (7, 57), (-20, 30), (-50, 0), (-999, 0)])
def test_positions_follow_the_context_or_are_moved(offset: int, start: int) -> None:
    assert Ends(prefix=1, suffix=1, offset=offset).start(50) == start


def test_equal_probes_are_one() -> None:
    def probes() -> list[Probe]:
        return [
            Ends(prefix=4, suffix=28),
            Ends(prefix=4, suffix=28, offset=1),
            Ends(prefix=28, suffix=4),
            RandomTokens(count=32),
            Text(text="a", count=32),
            Text(text="b", count=32),
            Repeat(),
            Repeat(chunk=32),
        ]

    assert len({*probes(), *probes()}) == len(probes())
    with pytest.raises(FrozenInstanceError):
        Repeat().chunk = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ends(prefix=0, suffix=0), "prefix=0, suffix=0: expected .* 1 or more together"),
        (lambda: Ends(prefix=-1, suffix=4), "prefix=-1, suffix=4: expected 0 or more tokens each"),
        (lambda: RandomTokens(count=0), "count=0: expected 1 or more tokens"),
        (lambda: Text(text="a", count=0), "count=0: expected 1 or more tokens"),
        (lambda: Text(text="", count=3), "text='': expected some text"),
        (lambda: Repeat(chunk=0), "chunk=0, skip=0, cue=8: expected 1 or more tokens in a chunk"),
        (lambda: Repeat(skip=-1), "chunk=2000, skip=-1"),
    ],
)
def test_mistakes_are_refused(make: Callable[[], Probe], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [Repeat()],
            "needs is a list, expected frozenset({Queries(8)}) or the like",
        ),
        (frozenset({"repeat"}), "needs has a str, expected an Observation such as Queries(8)"),
        (frozenset({Repeat()}), ""),
    ],
)
def test_needs_declare_probes_in_a_frozenset(given: Any, message: str) -> None:
    class Asking(Policy):
        needs = given

    assert misdeclared(Asking()) == message
