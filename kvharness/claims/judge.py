"""Verdicts on claims: conjunctions over parts, families, controls and expectations."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvharness.claims.judgement import Judgement
from kvharness.claims.part import ALPHA, judge_part, needed_cells
from kvharness.inference.multiple import holm
from kvharness.inference.region import Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kvharness.claims.claim import Claim, Comparison
    from kvharness.claims.evidence import Evidence
    from kvharness.claims.part import Judged

#: A claim that nothing differs says something only where a difference could have been seen.
_NEEDS_CONTROL = (Kind.NOT_BETTER, Kind.EQUIVALENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A claim's parts, its p-values over all of them, and why it may not be judged."""

    claim: Claim
    parts: tuple[Judged, ...] = ()
    p_supported: float = 1.0
    p_refuted: float = 1.0
    absent: str = ""
    restricted: str = ""


def judge(
    claims: Iterable[Claim], evidence: Evidence, *, installed: Iterable[str] | None = None
) -> list[Judgement]:
    """A judgement for each claim, in their order.

    Args:
        claims: of any origin; controls are looked up by id among them.
        evidence: the records.
        installed: names of installed policies, to say why a claim was not evaluated.
    """
    known = None if installed is None else set(installed)
    drafts = _corrected([_draft(claim, evidence, known) for claim in claims])
    alone = {draft.claim.id: _judgement(draft, evidence) for draft in drafts}
    return [_controlled(each, alone) for each in alone.values()]


def _draft(claim: Claim, evidence: Evidence, installed: set[str] | None) -> _Draft:
    comparisons = list(claim.comparisons())
    planned = [each for each in comparisons if _planned(claim, each, evidence)]
    if not planned:
        return _Draft(claim=claim, absent=_absent(claim, evidence, installed))
    parts = tuple(judge_part(claim, each, evidence) for each in planned)
    # Supported needs every part, which needs no correction; some part is refuted after Holm.
    return _Draft(
        claim=claim,
        parts=parts,
        p_supported=max(part.p_supported for part in parts),
        p_refuted=float(holm([part.p_refuted for part in parts]).min()),
        restricted=_restricted(planned, comparisons),
    )


def _planned(claim: Claim, comparison: Comparison, evidence: Evidence) -> bool:
    cells = needed_cells(claim, comparison)
    return all(evidence.cells(suite, column) is not None for suite, column in cells)


def _absent(claim: Claim, evidence: Evidence, installed: set[str] | None) -> str:
    names = [name for spec in claim.policies for name in spec.names]
    gone = [name for name in names if installed is not None and name not in installed]
    if gone:
        return f"{gone[0]} is not installed"
    unseen = [spec for spec in claim.policies if spec.slug not in evidence.policies]
    if unseen:
        return f"there are no records of {' and '.join(map(str, unseen))}"
    return "its suites and retentions were not selected"


def _restricted(planned: Sequence[Comparison], whole: Sequence[Comparison]) -> str:
    if len(planned) == len(whole):
        return ""
    return (
        f"only {len(planned)} of {len(whole)} parts were selected: {', '.join(map(str, planned))}"
    )


def _corrected(drafts: list[_Draft]) -> list[_Draft]:
    """Holm over the claims of a family that could be judged, in each direction."""
    families: dict[str, list[int]] = defaultdict(list)
    for number, draft in enumerate(drafts):
        if draft.claim.family and draft.parts:
            families[draft.claim.family].append(number)
    for numbers in families.values():
        supported = holm([drafts[number].p_supported for number in numbers])
        refuted = holm([drafts[number].p_refuted for number in numbers])
        for number, one, other in zip(numbers, supported, refuted, strict=True):
            drafts[number] = replace(drafts[number], p_supported=float(one), p_refuted=float(other))
    return drafts


def _judgement(draft: _Draft, evidence: Evidence) -> Judgement:
    if draft.absent:
        return Judgement(
            claim=draft.claim,
            verdict=Verdict.NOT_EVALUATED,
            reason=draft.absent,
            binding=False,
        )
    verdict, reason = _verdict(draft)
    other = _other_settings(draft.claim, evidence)
    binding = not draft.restricted and not other
    return Judgement(
        claim=draft.claim,
        verdict=verdict,
        parts=tuple(judged.part for judged in draft.parts),
        reason="; ".join(text for text in (reason, draft.restricted, other) if text),
        expected=draft.claim.expect.get(evidence.model) if binding else None,
        binding=binding,
    )


def _verdict(draft: _Draft) -> tuple[Verdict, str]:
    whole = all(judged.part.interval is not None for judged in draft.parts)
    if whole and draft.p_supported <= ALPHA:
        return Verdict.SUPPORTED, ""
    if whole and draft.p_refuted <= ALPHA:
        return Verdict.REFUTED, ""
    reasons = list(dict.fromkeys(judged.part.reason for judged in draft.parts))
    missing = "; ".join(reason for reason in reasons if reason)
    return Verdict.INCONCLUSIVE, missing or _undecided(draft)


def _undecided(draft: _Draft) -> str:
    parts = [judged.part for judged in draft.parts]
    open_parts = [part for part in parts if part.verdict is not Verdict.SUPPORTED]
    named = ", ".join(str(part.comparison) for part in open_parts)
    if not open_parts:
        return f"each part is supported, the family {draft.claim.family!r} as a whole is not"
    needed = [part.needed for part in open_parts]
    if any(number is None for number in needed):
        return f"undecided: {named}"
    most = max(number for number in needed if number is not None)
    return f"undecided: {named}; about {most} items would settle it"


def _other_settings(claim: Claim, evidence: Evidence) -> str:
    differ = [
        f"{name} {given} (here {evidence.contract.get(name)})"
        for name, given in claim.settings.items()
        if evidence.contract.get(name) != given
    ]
    return f"established for {', '.join(differ)}" if differ else ""


def _controlled(judgement: Judgement, all_of_them: dict[str, Judgement]) -> Judgement:
    """Without a positive control that works, seeing no difference means nothing."""
    claim = judgement.claim
    if claim.control is None or judgement.verdict is not Verdict.SUPPORTED:
        return judgement
    control = all_of_them.get(claim.control)
    if claim.kind not in _NEEDS_CONTROL or (control and control.verdict is Verdict.SUPPORTED):
        return judgement
    found = control.verdict.value if control else "not among the claims"
    reason = f"its control {claim.control} is {found}"
    return replace(
        judgement,
        verdict=Verdict.INCONCLUSIVE,
        reason="; ".join(text for text in (reason, judgement.reason) if text),
    )
