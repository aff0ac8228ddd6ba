"""Eviction while decoding and in blocks, as options of a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Finished, Lab, MakeLab

DECODING = "floor, full, h2o, oracle, position, random, sage-kv, scissorhands, streaming-llm, tova"
IN_BLOCKS = r"caote(...), floor, full, keydiff, oracle, random"
CLAIMS = """
[[claim]]
id = "{id}"
kind = "better"
policy = "{policy}"
baseline = "random"
suites = ["needle"]
retention = ["0.25"]
metric = "nll"
{settings}
"""


@pytest.fixture(scope="module")
def decoded(make_lab: MakeLab) -> Finished:
    """A run that evicts while decoding, after one that does not."""
    from tests.plugin.conftest import Finished

    lab = make_lab()
    before = lab.run("--policy=h2o,random", "--kv-seeds=1")
    assert before.ret == 0
    run = lab.run(
        "--policy=h2o,random,streaming-llm",
        "--kv-seeds=1",
        "--kv-evict=decode",
        "--kv-generate=first",
    )
    return Finished(lab, run)


@pytest.mark.parametrize(
    ("mode", "policy", "able"),
    [
        ("decode", "snapkv", DECODING),
        ("decode", "caote(h2o)", DECODING),
        ("blocks", "h2o", IN_BLOCKS),
        ("blocks", "ada(keydiff)", IN_BLOCKS),
    ],
)
@pytest.mark.parametrize("also", [[], ["--collect-only"]])
def test_a_policy_that_does_not_is_refused(
    lab: Lab, mode: str, policy: str, able: str, also: list[str]
) -> None:
    result = lab.run(f"--policy=random,{policy}", f"--kv-evict={mode}", *also)
    text = "\n".join([*result.outlines, *result.errlines])
    assert result.ret == pytest.ExitCode.USAGE_ERROR, text
    assert f"--policy {policy}: not made for --kv-evict={mode}; these are: {able}" in text
    assert "Traceback" not in text
    assert not (lab.folder / "store").exists()


def test_where_none_is_named_those_that_do_are_run(lab: Lab) -> None:
    given = [each for each in lab.arguments("--kv-evict=blocks") if "--policy" not in each]
    result = lab.main("--collect-only", "-q", *given)
    ids = [line.partition("[")[2] for line in result.outlines if "::" in line]
    found = {re.sub(r"(-r[\d.]+)?-s\d\]$", "", each) for each in ids}
    assert found == {"full", "floor", "oracle", "keydiff", "random"}


def test_every_head_holds_its_budget_after_every_step(decoded: Finished) -> None:
    assert decoded.result.ret == 0, decoded.text
    assert "question unseen, evict decode; store" in decoded.text
    rolled = [record for record in decoded.lab.records() if record.held is not None]
    assert {record.policy for record in rolled} == {
        "floor",
        "h2o",
        "oracle",
        "random",
        "streaming-llm",
    }
    for record in rolled:
        assert record.held is not None
        budget = 20 if record.policy == "floor" else 100
        assert (record.held.least, record.held.most) == (budget, budget)
        assert record.held.steps > 1
        assert record.questions[0].generated is not None


def test_modes_have_records_of_their_own(decoded: Finished) -> None:
    """Nothing of the run before was reused, and no table has both."""
    assert re.search(r"12 (records )?computed, 0 reused", decoded.text), decoded.text
    records = decoded.lab.records()
    by_mode = {
        mode: [each for each in records if (each.held is not None) is mode and each.policy == "h2o"]
        for mode in (True, False)
    }
    assert len(by_mode[True]) == len(by_mode[False]) == 2
    keys = {mode: {record.key for record in found} for mode, found in by_mode.items()}
    assert not keys[True] & keys[False]
    generated = {"decode": "first", "prefill": "none"}
    for mode, other in (("decode", "prefill"), ("prefill", "decode")):
        asked = (f"--kv-evict={mode}", f"--kv-generate={generated[mode]}")
        shown = decoded.lab.run("--kv-replay=store", "--policy=h2o", *asked)
        text = "\n".join(shown.outlines)
        assert shown.ret == 0, text
        assert f"evict {mode}" in text
        assert f"evict {other}" not in text
    lacking = decoded.lab.run("--kv-replay=store", "--kv-evict=blocks")
    assert lacking.ret == 4
    told = "\n".join([*lacking.outlines, *lacking.errlines])
    assert (
        "; there are some of --kv-evict=prefill, or of --kv-generate=first --kv-evict=decode"
        in told
    )


def test_claims_are_about_one_mode(decoded: Finished) -> None:
    """A claim that says nothing is about the default, and no expectation binds elsewhere."""
    lab = decoded.lab
    claims = [
        CLAIMS.format(id="h2o-as-ever", policy="h2o", settings='expect = { tiny = "supported" }'),
        CLAIMS.format(
            id="h2o-on-the-way", policy="h2o", settings='settings = { evict = "decode" }'
        ),
    ]
    (lab.folder / "mine.toml").write_text("".join(claims))
    given = ("--kv-claims=strict", "--kv-claims-file=mine.toml", "--kv-evict=decode")
    run = lab.run("--policy=h2o", "--kv-seeds=1", "--kv-generate=first", *given)
    text = "\n".join(run.outlines)
    assert "h2o-on-the-way" in text
    assert "h2o-as-ever" not in text
    assert run.ret == 0, text
    replay = lab.run("--kv-replay=store", "--policy=h2o", "--kv-generate=first", *given)
    text = "\n".join(replay.outlines)
    assert "about policies that evict by --kv-evict=prefill, not decode" in text
    assert replay.ret == 0, text


def test_a_run_in_blocks(lab: Lab) -> None:
    run = lab.run("--policy=keydiff,caote(tova)", "--kv-seeds=1", "--kv-evict=blocks")
    text = "\n".join([*run.outlines, *run.errlines])
    assert run.ret == 0, text
    assert "evict blocks" in text
    shares = {record.policy: record.realised_retention for record in lab.records()}
    assert shares == {
        "full": 1.0,
        "floor": 0.05,
        "oracle": 0.25,
        "keydiff": 0.25,
        "caote+tova": 0.25,
    }
