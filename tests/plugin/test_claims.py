"""Claims in a run of pytest: what they make it run, and what their verdicts do to it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from kvharness.cli.main import main
from tests.plugin.conftest import Finished, finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.plugin.conftest import Lab, MakeLab

#: Enough items for a verdict.
SIZE = ("--kv-seeds=2", "--kv-items=10")
FAILING = """
from kvharness import Policy


class Seldom(Policy):
    def ready(self, model, seed):
        if seed == 1:
            raise RuntimeError("out of luck")
        return self

    def score(self, view):
        return view.positions.float().repeat(view.kv_heads, 1)
"""
CRASHING = FAILING.replace('raise RuntimeError("out of luck")', "os._exit(9)").replace(
    "from kvharness", "import os\n\nfrom kvharness", 1
)
HEAVY = """
import sys

def pytest_unconfigure(config):
    print(f"\\nheavy: {sorted({'torch', 'transformers', 'scipy'} & set(sys.modules))}")
"""


def claim(name: str, verdict: str = "", **changes: str) -> str:
    """`snapkv` keeps fewer bytes than the full cache: better, and so supported."""
    values = {
        "kind": '"better"',
        "policy": '"snapkv"',
        "baseline": '"full"',
        "suites": '["needle"]',
        "retention": '["0.25"]',
        "metric": '"bytes"',
        **changes,
    }
    if verdict:
        values["expect"] = f'{{ tiny = "{verdict}" }}'
    rows = "".join(f"{key} = {value}\n" for key, value in values.items())
    return f'[[claim]]\nid = "{name}"\n{rows}\n'


#: Random has as many bytes as any policy: whether they differ is decided, and by how much is not.
UNDECIDED = {"baseline": '"random"', "metric": '"nll"', "kind": '"not_worse"', "margin": "1e-6"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A lab whose store has what the claims here need."""

    lab: Lab

    def judge(self, *claims: str, mode: str = "strict", options: tuple[str, ...] = ()) -> Finished:
        """Run with these claims beside those of the suites."""
        (self.lab.folder / "mine.toml").write_text("".join(claims))
        given = ("--kv-claims-file=mine.toml", f"--kv-claims={mode}", *SIZE, *options)
        return Finished(self.lab, self.lab.run(*given))


@pytest.fixture(scope="module")
def recorded(make_lab: MakeLab) -> Recorded:
    lab = make_lab()
    result = lab.run(*SIZE, "--policy=snapkv,random")
    assert result.ret == 0
    return Recorded(lab)


def counts(run: Finished) -> dict[str, int]:
    return run.result.parseoutcomes()


def section(run: Finished, title: str) -> list[str]:
    """The lines of a part of the output, under its heading."""
    lines = iter(run.result.outlines)
    for line in lines:
        if line.strip("=_ ") == title:
            break

    def until() -> Iterator[str]:
        for line in lines:
            if re.match("[=_]{5}", line):
                return
            yield line

    return list(until())


# -- modes and expectations -----------------------------------------------------------------------


def test_verdicts_as_expected_pass(recorded: Recorded) -> None:
    run = recorded.judge(claim("mine", "supported"), claim("open", "inconclusive", **UNDECIDED))
    assert run.result.ret == 0
    # Ten cells and two claims pass; that of the suites is undecided, and nothing expected here.
    assert counts(run) == {"passed": 12, "inconclusive": 1}
    assert re.search(r"^mine +supported +supported +\+\d", run.text, re.MULTILINE)
    assert "claims: 1 supported, 2 inconclusive\n" in run.text
    assert "137%" not in run.text
    assert "[100%]" in run.text


def test_another_verdict_fails_and_is_explained_on_one_screen(recorded: Recorded) -> None:
    run = recorded.judge(claim("good", "supported"), claim("bad", "refuted"), options=("-v",))
    assert run.result.ret == pytest.ExitCode.TESTS_FAILED
    assert counts(run) == {"passed": 11, "failed": 1, "inconclusive": 1}
    assert re.search(r"^claims::good SUPPORTED +\[", run.text, re.MULTILINE)
    assert re.search(r"^claims::bad FAILED +\[", run.text, re.MULTILINE)
    assert re.search("^FAILED claims::bad - .*SUPPORTED, expected refuted", run.text, re.MULTILINE)
    screen = section(run, "bad")
    assert 8 <= len(screen) <= 40
    words = " ".join(" ".join(screen).split())
    for told in (
        "SUPPORTED, expected refuted: claim bad (tiny)",
        "snapkv is better than full, in bytes",
        "margin 0",
        "needle at 0.25 +153,600 [+153,600, +153,600] 20 supported",
        "mine.toml --claim bad",
        "--policy=snapkv,full --retention=0.25",
        "--accept",
    ):
        assert told in words
    assert "Traceback" not in run.text


def test_the_command_that_is_told_reproduces_the_verdict(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = section(recorded.judge(claim("bad", "refuted")), "bad")
    (again,) = [line.split(":  ")[1].split() for line in screen if "judge again" in line]
    monkeypatch.chdir(recorded.lab.folder)
    assert main(again[1:]) == 1
    assert "SUPPORTED, expected refuted: claim bad (tiny)" in capsys.readouterr().out


def test_in_report_mode_nothing_fails(recorded: Recorded) -> None:
    claims = [claim("bad", "refuted"), claim("open", "supported", **UNDECIDED)]
    run = recorded.judge(*claims, mode="report")
    assert run.result.ret == 0
    assert counts(run) == {"passed": 10, "surprising": 1, "inconclusive": 2}
    assert "; 2 not as expected\n" in run.text


def test_undecided_where_something_was_expected_fails_strictly(recorded: Recorded) -> None:
    run = recorded.judge(claim("open", "supported", **UNDECIDED))
    assert run.result.ret == pytest.ExitCode.TESTS_FAILED
    assert counts(run) == {"passed": 10, "failed": 1, "inconclusive": 1}
    assert "INCONCLUSIVE, expected supported: claim open (tiny)" in run.text


def test_off_judges_and_runs_nothing_for_claims(recorded: Recorded) -> None:
    run = recorded.judge(claim("bad", "refuted"), mode="off")
    assert run.result.ret == 0
    # No random, which only claims compare with.
    assert counts(run) == {"passed": 8}
    assert "claim" not in run.text.replace("mine.toml", "")


def test_a_policy_that_is_not_installed_is_told(recorded: Recorded) -> None:
    run = recorded.judge(claim("ours", "supported", baseline='"nosuch"'), options=("-rs",))
    assert run.result.ret == 0
    assert counts(run) == {"passed": 10, "skipped": 1, "inconclusive": 1}
    assert "not evaluated: nosuch is not installed: ours\n" in run.text
    assert re.search(r"^NOT EVALUATED \[1\] .*: nosuch is not installed", run.text, re.MULTILINE)


def test_junit_files_have_the_verdicts(recorded: Recorded) -> None:
    recorded.judge(
        claim("good", "supported"), claim("bad", "refuted"), options=("--junitxml=junit.xml",)
    )
    tree = ET.parse(recorded.lab.folder / "junit.xml")  # noqa: S314 - just written
    cases = {case.get("name"): case for case in tree.iter("testcase")}
    good, bad, told = (cases[name] for name in ("good", "bad", "snapkv-better-than-random"))
    assert {case.get("classname") for case in (good, bad, told)} == {"claims"}
    (failure,) = bad.iter("failure")
    assert "expected refuted" in str(failure.get("message"))
    assert "needle at 0.25" in str(failure.text)
    (skipped,) = told.iter("skipped")
    assert str(skipped.get("message")).startswith("inconclusive: ")
    assert {each.get("name"): each.get("value") for each in good.iter("property")} == {
        "kvharness-claim": "good",
        "kvharness-verdict": "supported",
        "kvharness-outcome": "as expected",
    }


# -- what a run with claims runs ------------------------------------------------------------------


def test_a_policy_comes_with_the_baselines_of_its_claims(recorded: Recorded) -> None:
    run = recorded.judge(mode="report")
    names = {f"{policy}-s{seed}" for policy in ("full", "floor") for seed in (0, 1)}
    assert counts(run)["passed"] == len(names) + 2 * len(("oracle", "random", "snapkv"))
    assert "\n0 records computed, 100 reused; " in run.text, "all of them were in the store"


def test_only_claims_of_the_policy_are_judged(recorded: Recorded) -> None:
    run = recorded.judge(
        claim("about-another", policy='"tova"'),
        claim("mine", kind='"not_better"', margin="1", control='"oracle-better-than-random"'),
    )
    (start,) = [n for n, line in enumerate(run.result.outlines) if line.startswith("claim  ")]
    ids = [line.split()[0] for line in run.result.outlines[start + 2 : start + 5]]
    assert ids == ["mine", "oracle-better-than-random", "snapkv-better-than-random"], "and controls"


def collected(lab: Lab, *options: str, claims: str = "") -> set[str]:
    """Columns of the first seed, where a user names no retention."""
    (lab.folder / "mine.toml").write_text(claims)
    result = lab.main(
        "suites/test_needle.py",
        "--collect-only",
        "-q",
        "-pno:hypothesispytest",
        "--kv-claims-file=mine.toml",
        "--kv-claims=report",
        "--kv-store=none",
        *options,
    )
    assert result.ret == 0, str(result.stderr)
    text = "\n".join(result.outlines)
    return set(re.findall(r"\[([^\[\]]+)-s0\]", text))


def test_retentions_of_claims_are_added_where_a_user_names_none(recorded: Recorded) -> None:
    mine = claim("mine", retention='["0.15"]', baseline='"h2o"', baseline_retention='"0.6"')
    found = collected(recorded.lab, "--policy=snapkv", claims=mine)
    grid = {f"-r{each}" for each in ("0.1", "0.25", "0.5", "0.75")}
    assert {name for name in found if name.startswith("snapkv")} == {
        f"snapkv{each}" for each in grid | {"-r0.15"}
    }
    assert {name for name in found if name.startswith("h2o")} == {
        f"h2o{each}" for each in grid | {"-r0.6"}
    }
    assert "random-r0.15" not in found, "only what is compared"
    named = collected(recorded.lab, "--policy=snapkv", "--retention=0.5", claims=mine)
    assert {name for name in named if "-r" in name} == {
        f"{policy}-r0.5" for policy in ("oracle", "snapkv", "h2o", "random")
    }


def test_a_retention_that_keeps_too_little_is_not_added(recorded: Recorded) -> None:
    mine = claim("mine", retention='["0.001"]')
    found = collected(recorded.lab, "--policy=snapkv", "--kv-context=400", claims=mine)
    assert "snapkv-r0.001" not in found


def test_before_the_run_each_claim_says_what_it_can_find(recorded: Recorded) -> None:
    run = recorded.judge(
        claim("mine", metric='"recovered"', kind='"not_worse"', margin="0.05"),
        options=("--collect-only",),
    )
    assert run.result.ret == 0
    told = " ".join(run.text.split())
    assert "kvharness: 2 claims will be judged (--kv-claims=strict)" in told
    assert re.search(r"mine 0\.05 0\.\d+ recovered with 20 items: this run cannot settle", told)
    assert "snapkv-better-than-random 0 0." in told
    assert "claims: " not in told, "nothing is judged"
    assert counts(run) == {"tests": 10} or "10 tests collected" in told


def test_the_outlook_of_too_few_items(recorded: Recorded) -> None:
    run = recorded.judge(options=("--collect-only", "--kv-seeds=1"))
    assert "nothing: 10 items are too few" in run.text


# -- what is not whole ----------------------------------------------------------------------------


def test_what_was_deselected_never_gates(recorded: Recorded) -> None:
    parts = claim("mine", "refuted", suites='["needle", "qa"]', retention='["0.25", "0.5"]')
    run = recorded.judge(parts)
    assert run.result.ret == 0
    assert "no expectation applies: only 1 of 4 parts were selected: needle at 0.25" in run.text
    seeds = recorded.judge(claim("mine", "refuted"), options=("-ks0",))
    assert seeds.result.ret == 0
    assert "no expectation applies: only 1 of 2 seeds were selected: mine" in seeds.text
    nothing = recorded.judge(claim("mine", "refuted"), options=("-ksnapkv",))
    assert nothing.result.ret == 0
    assert "not evaluated: no cells of full were selected: mine\n" in nothing.text


def test_a_run_that_was_stopped_is_not_judged(recorded: Recorded) -> None:
    (recorded.lab.folder / "test_bad.py").write_text("def test_bad(): assert 0\n")
    stopped = recorded.judge(
        claim("bad", "refuted"), options=("test_bad.py", "suites/test_needle.py", "-x")
    )
    assert stopped.result.ret == pytest.ExitCode.TESTS_FAILED
    assert counts(stopped) == {"failed": 1}
    assert "claims: " not in stopped.text
    late = recorded.judge(
        claim("bad", "refuted"), options=("suites/test_needle.py", "test_bad.py", "-x")
    )
    assert counts(late) == {"failed": 1, "passed": 10}, "it was stopped, though at its end"


def test_a_shard_is_not_judged_and_says_how_to(recorded: Recorded) -> None:
    run = recorded.judge(claim("bad", "refuted"), options=("--kv-shard=1/2",))
    assert run.result.ret == 0
    assert "claims are not judged on one shard; when all have run: kvharness claims store" in (
        run.text
    )
    assert "claims will be judged" not in run.text
    assert "cells missing" not in run.text


def test_failing_cells_are_missing(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.install("seldom-kv", {"seldom": "seldom_kv:Seldom"}, seldom_kv=FAILING)
    run = Recorded(lab).judge(
        claim("mine", "supported", policy='"seldom"'), options=("--policy=seldom",)
    )
    assert run.result.ret == pytest.ExitCode.TESTS_FAILED
    assert counts(run) == {"failed": 2, "passed": 7}
    assert "FAILED claims::mine - " in run.text
    assert "1 of 4 cells missing" in run.text


# -- other sources of claims ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[claim]]\nid = 3\n", "mine.toml: claim 1: id 3: expected text in quotes"),
        (claim("mine", metric='"byts"'), "claim 'mine': metric 'byts': expected one of exact, "),
        (claim("snapkv-better-than-random"), "two claims have the id 'snapkv-better-than-random'"),
        ("x = [", "mine.toml: is not TOML"),
    ],
)
def test_a_bad_claims_file_is_a_usage_error(recorded: Recorded, text: str, told: str) -> None:
    run = recorded.judge(text)
    assert run.result.ret == pytest.ExitCode.USAGE_ERROR
    assert told in run.text
    assert "Traceback" not in run.text


def test_a_missing_claims_file_is_a_usage_error(lab: Lab) -> None:
    result = lab.run("--kv-claims=report", "--kv-claims-file=none.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *none.toml: cannot be read: No such file or directory"])


def test_an_installed_package_brings_claims(lab: Lab) -> None:
    lab.install(
        "their-kv",
        {},
        claims={"theirs": "their_kv:claims-of-theirs.toml"},
        their_kv="raise RuntimeError('imported')",
    )
    (lab.site / "claims-of-theirs.toml").write_text(claim("theirs"))
    result = lab.run("--kv-claims=report", "--collect-only")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["  theirs  *"])


def test_a_broken_registration_is_a_usage_error(lab: Lab) -> None:
    lab.install("their-kv", {}, claims={"theirs": "their_kv:claims.toml"})
    result = lab.run("--kv-claims=report")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: their-kv 1.0 registers claims as *'their_kv'*"])
    assert lab.run("--kv-claims=off", "--collect-only").ret == 0


# -- judging again --------------------------------------------------------------------------------


def test_the_command_gives_the_verdicts_of_the_session(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = [claim("good", "supported"), claim("bad", "refuted"), claim("open", **UNDECIDED)]
    run = recorded.judge(*claims)
    table = re.compile("^(?:good|bad|open) .*", re.MULTILINE)
    folder = recorded.lab.folder
    assert main(["claims", str(folder / "store"), f"--file={folder / 'mine.toml'}"]) == 1
    told = [" ".join(row.split()) for row in table.findall(capsys.readouterr().out)]
    assert told == [" ".join(row.split()) for row in table.findall(run.text)]
    assert len(told) == 3


def replayed(recorded: Recorded, *options: str, claims: str) -> Finished:
    (recorded.lab.folder / "mine.toml").write_text(claims)
    given = ["--kv-replay=store", "--kv-claims=strict", "--kv-claims-file=mine.toml", *options]
    result = recorded.lab.main("suites/test_needle.py", "-pno:hypothesispytest", *given)
    return Finished(recorded.lab, result)


@pytest.mark.parametrize("options", [(), ("--policy=snapkv",)])
def test_a_replay_is_judged(recorded: Recorded, options: tuple[str, ...]) -> None:
    for verdict, code in (("supported", 0), ("refuted", 1)):
        run = replayed(recorded, *options, claims=claim("mine", verdict))
        assert run.result.ret == code
        assert re.search(f"^mine +supported +{verdict}", run.text, re.MULTILINE)
    assert ("there are no records of h2o" in run.text) is (not options)
    assert "not installed" not in run.text


def test_what_a_replay_deselects_never_gates(recorded: Recorded) -> None:
    run = replayed(recorded, "-ks1", claims=claim("mine", "refuted"))
    assert run.result.ret == 0
    assert "no expectation applies: only 1 of 2 seeds were selected: mine" in run.text
    assert re.search(r"^mine .*, n=10$", run.text, re.MULTILINE)


def test_tables_verdicts_and_job_summary_are_of_the_same_records(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = recorded.lab.folder / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run = replayed(recorded, "--kv-seeds=1", "--policy=snapkv", claims=claim("mine", "supported"))
    assert "intervals over 10 items" in run.text
    assert re.search(r"^mine .*, n=10$", run.text, re.MULTILINE)
    assert "interval over 10 items" in summary.read_text()
    # Its claims compare with random, as in a run with these options.
    assert re.search("^random ", run.text, re.MULTILINE)
    assert "only 1 of 2 seeds" not in run.text


def test_a_strict_replay_fails_where_every_cell_lacks_the_same_items(recorded: Recorded) -> None:
    folder = recorded.lab.folder / "short"
    folder.mkdir()
    for file in (recorded.lab.folder / "store").glob("*.jsonl"):
        lines = file.read_text().splitlines(keepends=True)
        kept = (line for line in lines if '"item": "needle-s0-09"' not in line)
        (folder / file.name).write_text("".join(kept))
    run = replayed(recorded, "--kv-replay=short", claims=claim("mine", "supported"))
    assert run.result.ret == 1
    assert "9 of 10 items have a record" in run.text
    assert re.search(r"^mine +inconclusive +supported \(!\) ", run.text, re.MULTILINE)


def test_a_replay_of_a_store_that_lost_records_is_not_green(
    recorded: Recorded,
) -> None:
    folder = recorded.lab.folder
    (folder / "lossy").mkdir(exist_ok=True)
    for file in (folder / "store").glob("*.jsonl"):
        lines = file.read_bytes().splitlines(keepends=True)
        (folder / "lossy" / file.name).write_bytes(b"".join(lines[:-7]))
    run = replayed(
        recorded, "--kv-replay=lossy", "-pno:cacheprovider", claims=claim("mine", "supported")
    )
    assert run.result.ret == 1
    assert "cells missing" in run.text


# -- processes ------------------------------------------------------------------------------------


def test_collecting_with_claims_imports_no_torch(lab: Lab) -> None:
    (lab.folder / "conftest.py").write_text(HEAVY)
    (lab.folder / "mine.toml").write_text(claim("mine"))
    given = ("--collect-only", "-q", "-pno:benchmark", "--kv-claims=report")
    result = lab.spawn(*given, "--kv-claims-file=mine.toml")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["heavy: [[]'scipy'[]]"])
    # Without a claim there is nothing to compute.
    result = lab.spawn(*given, "--policy=full")
    result.stdout.fnmatch_lines(["heavy: [[][]]"])


@pytest.mark.parametrize(("verdict", "code"), [("supported", 0), ("refuted", 1)])
def test_workers_are_judged_as_one_process(recorded: Recorded, verdict: str, code: int) -> None:
    # A replay: its workers need no torch. The next test has workers that compute.
    lab, claims = recorded.lab, claim("mine", verdict) + claim("open", **UNDECIDED)
    alone = replayed(recorded, claims=claims)
    options = ["--kv-replay=store", "--kv-claims=strict", "--kv-claims-file=mine.toml", "-n2"]
    process = lab.start("suites/test_needle.py", "-pno:hypothesispytest", *options)
    spread = Finished(lab, finish(process))
    assert spread.result.ret == alone.result.ret == code
    assert counts(spread) == counts(alone)
    table = re.compile("^(?:mine|open|snapkv-better).*", re.MULTILINE)
    assert table.findall(spread.text) == table.findall(alone.text)
    assert section(spread, "mine") == section(alone, "mine")
    assert len(re.findall("^FAILED claims::mine - ", spread.text, re.MULTILINE)) == code


def test_what_a_crashed_worker_took_with_it_is_missing(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.install("seldom-kv", {"seldom": "seldom_kv:Seldom"}, seldom_kv=CRASHING)
    (lab.folder / "mine.toml").write_text(claim("mine", "supported", policy='"seldom"'))
    given = lab.arguments("--policy=seldom", "--kv-claims-file=mine.toml", "--kv-claims=strict")
    process = lab.start(*given, *SIZE, "-n1", "--max-worker-restart=0")
    run = Finished(lab, finish(process))
    assert run.result.ret == pytest.ExitCode.TESTS_FAILED
    assert re.search(
        r"^mine +inconclusive +supported \(!\) +\d of 4 cells missing", run.text, re.MULTILINE
    )
    assert "FAILED claims::mine - " in run.text
    assert run.text.count("kvharness: 1 claim will be judged") == 1
