"""What each stage of a policy may return, whatever it means by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvharness.contract import Protection
from kvharness.testing.case import on_device
from kvharness.testing.examples import PURE, examples
from kvharness.testing.mistake import Mistake, expect
from kvharness.testing.reading import read
from kvharness.testing.strategies import textures
from kvharness.testing.subject import cases_for, ready
from kvharness.testing.tensors import Texture

if TYPE_CHECKING:
    from kvharness.policy.interface import Policy, ScoreFunction
    from kvharness.testing.case import Case
    from kvharness.testing.reading import Reading

_SCORING = {"", "score"}
#: Tokens and a budget at which no window of fixed length is too long.
_FAR = (100_000, 10_000)


def check_scores_fit(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Every context gets scores of its shape: one token, fewer than a window, GQA, MHA, MQA.

    Raises:
        Mistake: `score` raised, or returned another shape or no tensor.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        shape, reading = case.shape, read(subject, case)
        layer = (shape.kv_heads, shape.tokens)
        for scores in reading.all_scores:
            _expect_shape(scores, layer)
        told = f"score raised {reading.reason} on {shape.tokens} tokens"
        hint = "" if "needs" in reading.reason else "; contexts may be this short"
        expect(not _raised(reading), f"{told}{hint}")

    holds()


def _raised(reading: Reading) -> bool:
    """Whether scoring ended in an exception other than a refusal of dtypes and numbers."""
    if reading.problem is None or reading.stage not in _SCORING:
        return False
    return all(_is_plain(scores) for scores in reading.all_scores)


def _is_plain(scores: Any) -> bool:
    fits = scores.dtype == torch.float32 and scores.device.type != "meta"
    return fits and bool(scores.isfinite().all())


def _expect_shape(scores: Any, expected: tuple[int, ...]) -> None:
    if not isinstance(scores, torch.Tensor):
        raise Mistake(f"score returned {type(scores).__name__}, expected a tensor {expected}")
    given = tuple(scores.shape)
    expect(given == expected, f"score returned shape {given}, expected {expected}")


def check_dtype_and_device(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """Scores are float32 on the device of the keys, whatever the model's dtype.

    Where torch sees a GPU, the same is asked of a trace there.

    Raises:
        Mistake: names the dtype or device that was returned.
    """
    subject = ready(policy)
    places = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

    @examples(count)
    @given(case=cases_for(policy), place=st.sampled_from(places))
    def holds(case: Case, place: str) -> None:
        trace = on_device(case.trace(subject.needs), place)
        for scores in read(subject, case, trace=trace).all_scores:
            if isinstance(scores, torch.Tensor):
                _expect_kind(scores, case.dtype, place)

    holds()


def _expect_kind(scores: torch.Tensor, dtype: str, place: str) -> None:
    expect(
        scores.dtype == torch.float32,
        f"score returned {scores.dtype} for {dtype} keys, expected torch.float32: end with "
        f"scores.float()",
    )
    expect(
        scores.device.type == place,
        f"score returned a tensor on {scores.device}, expected {place}, where the keys are",
    )


def check_finite_scores(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """No NaN and no infinity, in bfloat16 and float16 and at magnitudes that overflow there.

    Raises:
        Mistake: names the layer, the dtype and the first such token.
    """
    subject = ready(policy)
    prone = st.sampled_from((Texture.HUGE, Texture.ZEROS)) | textures()

    @examples(count)
    @given(case=cases_for(policy, texture=prone))
    def holds(case: Case) -> None:
        for layer, scores in enumerate(read(subject, case).all_scores):
            if isinstance(scores, torch.Tensor) and scores.device.type != "meta":
                _expect_finite(scores, layer, case)

    holds()


def _expect_finite(scores: torch.Tensor, layer: int, case: Case) -> None:
    wrong = (~scores.isfinite()).nonzero()
    if len(wrong):
        place = wrong[0].tolist()
        raise Mistake(
            f"the score of token {place[-1]} in layer {layer} is {scores[tuple(place)].item()} for "
            f"{case.dtype} keys; compute in float32 (keys.float()) and do not divide by 0"
        )


def check_protect_fits(policy: Policy | ScoreFunction, *, count: int = PURE) -> None:
    """`protect` returns a `Protection` of whole numbers for every length and budget.

    Where a short budget cannot hold it, it is cut; where a large one cannot, it is too much.

    Raises:
        Mistake: it raised, returned something else, or asks for more than a large budget.
    """
    subject = ready(policy)

    @examples(count)
    @given(case=cases_for(policy))
    def holds(case: Case) -> None:
        _protection(subject, case.shape.tokens, case.budget)
        far = _protection(subject, *_FAR)
        expect(
            far.total <= _FAR[1],
            f"protect{_FAR} asks for {far.sinks} sinks and {far.recents} recents, more than the "
            f"budget of {_FAR[1]}: what does not fit is cut, and no score would decide anything; "
            f"protect a part of the budget",
        )

    holds()


def _protection(policy: Policy, tokens: int, budget: int) -> Protection:
    try:
        given = policy.protect(tokens, budget)
    except Exception as problem:  # noqa: BLE001 - whatever it raises is the finding
        raise Mistake(f"protect({tokens}, {budget}) raised {problem!r}") from None
    _expect_protection(given)
    return given


def _expect_protection(given: Any) -> None:
    kind = type(given).__name__
    expect(
        isinstance(given, Protection),
        f"protect returned {kind}, expected Protection(sinks=..., recents=...)",
    )
    expect(
        all(type(number) is int and number >= 0 for number in (given.sinks, given.recents)),
        f"protect asks for {given.sinks} sinks and {given.recents} recents, expected whole numbers "
        f"from 0",
    )
