"""Verdicts on claims: conjunctions over parts, families, controls and expectations."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvharness.claims.judgement import Judgement
from kvharness.claims.part import ALPHA, judge_part, missing, needed_cells
from kvharness.claims.plan import Plan
from kvharness.contract import Anchor
from kvharness.discovery.presses import requirements
from kvharness.discovery.spec import PolicySpec
from kvharness.statistics.multiple import holm
from kvharness.statistics.region import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from kvharness.claims.claim import Claim, Column, Comparison
    from kvharness.claims.evidence import Evidence
    from kvharness.claims.judgement import Part
    from kvharness.claims.part import Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A claim's parts, its p-values over all of them, and what is not as it should be.

    Attributes:
        absent: why nothing of it can be judged.
        missing: how many cells it lacks.
        restricted: what of it was deselected.
    """

    claim: Claim
    parts: tuple[Judged, ...] = ()
    p_supported: float = 1.0
    p_refuted: float = 1.0
    absent: str = ""
    missing: str = ""
    restricted: str = ""


def judge(
    claims: Iterable[Claim],
    evidence: Evidence,
    *,
    installed: Iterable[str] | None = None,
    halved: AbstractSet[str] = frozenset(),
) -> list[Judgement]:
    """A judgement for each claim, in their order.

    Args:
        claims: of any origin; controls are looked up by id among them.
        evidence: the records.
        installed: names of installed policies, to say why a claim was not evaluated.
        halved: families of which some claims were not selected: fewer claims are corrected less,
            so what was expected of the whole family is not expected of these.
    """
    known = None if installed is None else set(installed)
    there = list(claims)
    controls = {claim.control for claim in there}
    made = [_draft(claim, evidence, known, is_control=claim.id in controls) for claim in there]
    drafts = [_of_half(each) if each.claim.family in halved else each for each in made]
    drafts = _corrected(drafts)
    alone = {draft.claim.id: _judgement(draft, evidence) for draft in drafts}
    return [_controlled(each, alone) for each in alone.values()]


def _draft(
    claim: Claim, evidence: Evidence, installed: set[str] | None, *, is_control: bool
) -> _Draft:
    if not is_control and _is_about_an_oracle(claim, evidence):
        msg = (
            f"{claim.policy} knows the true answers, so it is an oracle: it can be the control of "
            f"another claim, and is never compared as a policy"
        )
        return _Draft(claim=claim, absent=msg)
    if (here := evidence.contract.get("evict", claim.evict)) != claim.evict:
        msg = f"it is about policies that evict by --kv-evict={claim.evict}, not {here}"
        return _Draft(claim=claim, absent=msg)
    comparisons = claim.comparisons()
    planned = [each for each in comparisons if _planned(claim, each, evidence)]
    if not planned:
        return _Draft(claim=claim, absent=_absent(claim, evidence, installed))
    parts = tuple(judge_part(claim, each, evidence) for each in planned)
    cells = dict.fromkeys(cell for each in planned for cell in needed_cells(claim, each))
    # Supported needs every part, which needs no correction; some part is refuted after Holm.
    return _Draft(
        claim=claim,
        parts=parts,
        p_supported=max(part.p_supported for part in parts),
        p_refuted=float(holm([part.p_refuted for part in parts]).min()),
        missing=missing(cells, evidence),
        restricted=_restricted(planned, comparisons) or _fewer_seeds(cells, evidence),
    )


def _is_about_an_oracle(claim: Claim, evidence: Evidence) -> bool:
    """Whether its policy is one of a user's that knows the true answers."""
    (spec,) = PolicySpec.parse_list(claim.policy)
    return spec.slug in evidence.oracles - {Anchor.ORACLE.value}


def _of_half(draft: _Draft) -> _Draft:
    why = f"other claims of the family {draft.claim.family!r} were not selected"
    return replace(draft, restricted=_joined(draft.restricted, why))


def _planned(claim: Claim, comparison: Comparison, evidence: Evidence) -> bool:
    cells = needed_cells(claim, comparison)
    return all(evidence.cells(suite, column) is not None for suite, column in cells)


def _absent(claim: Claim, evidence: Evidence, installed: set[str] | None) -> str:
    names = dict.fromkeys(name for spec in claim.policies for name in requirements(spec))
    missed = [name for name in names if installed is not None and name not in installed]
    gone = [name.removesuffix(":") for name in missed]
    if gone:
        return f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} not installed"
    unseen = [str(spec) for spec in claim.policies if spec.slug not in evidence.policies]
    if unseen and isinstance(evidence.plan, Plan):
        return f"no cells of {' and '.join(unseen)} were selected"
    if unseen:
        return f"there are no records of {' and '.join(unseen)}"
    there = {suite for suite, _ in evidence.records}
    lost = [suite for suite in claim.suites if suite not in there]
    if lost and not isinstance(evidence.plan, Plan):
        return f"there are no records of {' and '.join(lost)}"
    return "the cells that it compares were not selected"


def _restricted(planned: Sequence[Comparison], whole: Sequence[Comparison]) -> str:
    if len(planned) == len(whole):
        return ""
    return (
        f"only {len(planned)} of {len(whole)} parts were selected: {', '.join(map(str, planned))}"
    )


def _fewer_seeds(cells: Iterable[tuple[str, Column]], evidence: Evidence) -> str:
    if evidence.plan is None:
        return ""
    plan = evidence.plan
    counts = [(len(plan.of(suite, each)), plan.drawn_for(each.policy)) for suite, each in cells]
    fewer = [(least, drawn) for least, drawn in counts if least < drawn]
    return "only {} of {} seeds were selected".format(*min(fewer)) if fewer else ""


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
    expected = draft.claim.expect.get(evidence.model)
    elsewhere = _joined(draft.restricted, _other_settings(draft.claim, evidence))
    if draft.absent:
        return Judgement(
            claim=draft.claim,
            verdict=Verdict.NOT_EVALUATED,
            reason=draft.absent,
            elsewhere=elsewhere,
            expected=None if elsewhere else expected,
        )
    verdict, reason = _verdict(draft)
    return Judgement(
        claim=draft.claim,
        verdict=verdict,
        parts=tuple(judged.part for judged in draft.parts),
        reason=_joined(reason, elsewhere),
        elsewhere=elsewhere,
        expected=None if elsewhere else expected,
    )


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))


def _verdict(draft: _Draft) -> tuple[Verdict, str]:
    whole = all(judged.part.interval is not None for judged in draft.parts)
    if whole and draft.p_supported <= ALPHA:
        return Verdict.SUPPORTED, ""
    if whole and draft.p_refuted <= ALPHA:
        return Verdict.REFUTED, ""
    others = [judged.part.reason for judged in draft.parts if not judged.missing]
    reasons = dict.fromkeys(filter(None, [draft.missing, *others]))
    return Verdict.INCONCLUSIVE, _joined(*reasons) or _undecided(draft)


def _undecided(draft: _Draft) -> str:
    """Which parts keep the claim from a verdict, and how many items would decide them."""
    parts = [judged.part for judged in draft.parts]
    against = [part for part in parts if part.verdict is Verdict.REFUTED]
    undecided = [part for part in parts if part.verdict is Verdict.INCONCLUSIVE]
    family = f"the family {draft.claim.family!r}"
    reasons = []
    if undecided:
        reasons.append(f"undecided: {_names(undecided)}{_enough(draft.claim, undecided)}")
    if against:
        over = f"{len(parts)} parts{f' and {family}' if draft.claim.family else ''}"
        reasons.append(f"refuted alone, but not after Holm over {over}: {_names(against)}")
    return _joined(*reasons) or f"every part is supported, but not after Holm over {family}"


def _names(parts: Sequence[Part]) -> str:
    return ", ".join(str(part.comparison) for part in parts)


def _enough(claim: Claim, parts: Sequence[Part]) -> str:
    needed = [part.needed for part in parts]
    if any(number is None for number in needed):
        return ""
    most = max(number for number in needed if number is not None)
    return f"; about {most} {claim.unit.value}s would settle it"


def _other_settings(claim: Claim, evidence: Evidence) -> str:
    settings = {**claim.settings}
    if "evict" in evidence.contract:
        settings["evict"] = claim.evict
    differ = [
        f"{name} {given} (here {evidence.contract.get(name)})"
        for name, given in settings.items()
        if evidence.contract.get(name) != given
    ]
    differ += [
        f"generated items of {suite} (here {evidence.data[suite]})"
        for suite in claim.suites
        if suite in evidence.data
    ]
    return f"established for {', '.join(differ)}" if differ else ""


def _controlled(judgement: Judgement, all_of_them: Mapping[str, Judgement]) -> Judgement:
    """Without a positive control that works, seeing no difference means nothing."""
    name = judgement.claim.control
    if name is None or judgement.verdict is Verdict.NOT_EVALUATED:
        return judgement
    control = all_of_them.get(name)
    judgement = replace(judgement, control=control)
    works = control is not None and control.verdict is Verdict.SUPPORTED
    if works or judgement.verdict is not Verdict.SUPPORTED:
        return judgement
    found = control.verdict.value if control else "not among the claims"
    reason = f"its control {name} is {found}"
    return replace(
        judgement,
        verdict=Verdict.INCONCLUSIVE,
        reason=_joined(reason, judgement.reason),
    )
