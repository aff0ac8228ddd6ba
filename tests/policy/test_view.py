from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvharness import Ends, Needs, Repeat


def some_needs() -> st.SearchStrategy[Needs]:
    probes = [Ends(prefix=1, suffix=2), Ends(prefix=1, suffix=2, offset=3), Repeat(chunk=4)]
    return st.builds(
        Needs,
        queries=st.integers(0, 9),
        column_sums=st.booleans(),
        future=st.booleans(),
        probes=st.frozensets(st.sampled_from(probes)),
    )


@given(one=some_needs(), two=some_needs())
def test_needs_unite(one: Needs, two: Needs) -> None:
    both = one.union(two)
    assert both == two.union(one)
    assert both == both.union(one) == one.union(both)
    assert both.queries == max(one.queries, two.queries)
    assert both.column_sums == (one.column_sums or two.column_sums)
    assert both.future == (one.future or two.future)
    assert both.probes == one.probes | two.probes
