"""How many examples a check draws, and that they are the same in every run."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

#: Of checks that touch tensors only.
PURE = 200
#: Of checks that run a model.
MODELLED = 20


def examples(count: int) -> settings:
    """Settings that draw the same examples on every machine.

    A conformance run judges a policy, so it must not depend on what an earlier run found, and
    shared CI machines are too uneven for deadlines.
    """
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        # Not the phase that explains: it runs each failure many times and adds lines of our source.
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
