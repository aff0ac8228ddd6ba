"""How much of the prompt is in the cache when it is compressed, as an option of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Lab

POLICIES = {"prefill": "snapkv,random", "decode": "h2o,random", "blocks": "keydiff,random"}


@pytest.mark.parametrize("evict", POLICIES)
def test_the_whole_prompt_is_compressed(lab: Lab, evict: str) -> None:
    given = ("--kv-question=prompt", "--kv-seeds=1", f"--policy={POLICIES[evict]}")
    result = lab.run(*given, f"--kv-evict={evict}", "--kv-generate=first")
    assert result.ret == pytest.ExitCode.OK, str(result.stdout)
    result.stdout.fnmatch_lines([f"model tiny*, question prompt, evict {evict}"])
    records = lab.records()
    assert len(records) == 2 * 5
    assert all(record.tokens > 400 for record in records)
    assert all(record.questions[0].generated is not None for record in records)
    floors = [record for record in records if record.policy == "floor"]
    assert all(record.realised_retention > 20 / record.tokens for record in floors)


def test_layouts_share_no_record(lab: Lab) -> None:
    for layout in ("unseen", "seen", "prompt"):
        result = lab.run(f"--kv-question={layout}", "--kv-seeds=1")
        result.stdout.fnmatch_lines(["8 records computed, 0 reused; store: *"])
    result = lab.run("--kv-question=prompt", "--kv-seeds=1")
    result.stdout.fnmatch_lines(["0 records computed, 8 reused; store: *"])


def test_a_budget_must_hold_the_last_token_too(lab: Lab) -> None:
    given = ("--retention=0.01", "--kv-context=400", "--kv-sinks=4", "--collect-only")
    assert lab.run(*given).ret == pytest.ExitCode.OK
    result = lab.run(*given, "--kv-question=prompt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*cannot hold the 4 sinks and the last token of a prompt; raise*"])
