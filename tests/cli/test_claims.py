from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from kvharness.claims.find import all_claims
from kvharness.cli.main import main
from tests.claims.conftest import Made, pair, spread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE = """\
# ours
[[claim]]
id = "mine"
kind = "better"
policy = "snapkv"
baseline = "random"
suites = ["qa"]
retention = ["0.25"]
metric = "nll"
expect = { tiny = "supported" } # reviewed

[[claim]]
id = "other"
kind = "not_worse"
policy = "snapkv"
baseline = "random"
suites = ["qa"]
retention = ["0.25"]
metric = "nll"
margin = 0.1
"""
#: As on a machine where nobody installed them.
BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "datasets", "accelerate"}:
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Block())
"""


def plain(text: str) -> str:
    """Without what a table adds, and lines of reasons in one."""
    return re.sub(" +", " ", text.replace("\n    ", " "))


class Judge(Protocol):
    def __call__(self, *arguments: str, text: str = ...) -> tuple[int, str, str]: ...


@pytest.fixture
def claims_file(tmp_path: Path) -> Path:
    path = tmp_path / "claims.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return pair(spread(mean=1.0)).write(tmp_path / "store")


@pytest.fixture
def judge(store: Path, claims_file: Path, capsys: pytest.CaptureFixture[str]) -> Judge:
    """Run the command on the store and a claims file, of which ``text`` is another version."""

    def run(*arguments: str, text: str = "") -> tuple[int, str, str]:
        if text:
            claims_file.write_text(text)
        code = main(["claims", str(store), f"--file={claims_file}", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_all_is_as_expected(judge: Judge) -> None:
    code, out, err = judge()
    assert (code, err) == (0, "")
    assert re.search(
        r"^mine +supported +supported +\+1.000 \[\+0\.784, \+1\.216\] qa at", out, re.MULTILINE
    )
    assert "other supported - " in plain(out)
    assert "\nnot evaluated: there are no records of sip: " in out
    others = len(all_claims())
    assert f"claims: 2 supported, {others} not evaluated" in out
    assert "claim mine" not in out, "what is expected needs no explanation"


def test_an_edited_expectation_is_a_failure_and_is_explained(judge: Judge) -> None:
    edited = FILE.replace('tiny = "supported"', 'tiny = "refuted"')
    code, out, _ = judge(text=edited)
    assert code == 1
    assert "mine supported refuted (!)" in plain(out)
    assert "; 1 not as expected\n\nSUPPORTED, expected refuted: claim mine (tiny)\n" in out
    assert "--claim mine --accept" in out
    assert judge("--report-only")[0] == 0


def test_one_claim_is_explained(judge: Judge) -> None:
    code, out, _ = judge("--claim", "other", "--claim", "mine", "--claim", "mine")
    assert code == 0
    assert out.startswith("SUPPORTED: claim other (tiny)\n")
    assert "\n\nSUPPORTED, expected supported: claim mine (tiny)\n" in out
    assert out.count("claim mine (tiny)") == 1
    assert "sip" not in out


def test_claims_of_one_suite_are_judged_by_themselves(judge: Judge) -> None:
    wider = FILE.replace('suites = ["qa"]', 'suites = ["qa", "needle"]', 1)
    assert judge(text=wider)[0] == 1, "needle is missing"
    code, out, _ = judge("--suite=qa", text=wider)
    assert code == 0
    assert out.splitlines()[2].startswith("other ")
    assert "mine" not in out
    code, _, err = judge("--suite=quiz")
    assert code == 2
    assert err.startswith("kvharness: --suite 'quiz': expected one of ")


def test_an_unknown_claim_is_told_with_what_may_be_meant(judge: Judge) -> None:
    code, out, err = judge("--claim", "oracle-beter-than-random")
    assert (code, out) == (2, "")
    assert err.startswith("kvharness: --claim 'oracle-beter-than-random': expected one of ")
    assert err.endswith("did you mean 'oracle-better-than-random'?\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[claim]]\nid = 3", "claim 1: id 3: expected text in quotes"),
        ("[[", "is not TOML"),
        (FILE.replace("snapkv", "sna("), "claim 'mine': policy 'sna('"),
    ],
)
def test_a_bad_claims_file_is_an_error_without_a_traceback(
    judge: Judge, text: str, told: str
) -> None:
    code, out, err = judge(text=text)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_a_store_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["claims", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


# -- lost records ---------------------------------------------------------------------------------


def halve(store: Path) -> None:
    """Delete every second record line."""
    (file,) = store.glob("*.jsonl")
    header, *lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(header + b"".join(lines[::2]))


def behead(store: Path) -> None:
    """Delete one of two files, as two workers write them: each has some of the seeds."""
    (file,) = store.glob("*.jsonl")
    file.unlink()
    both = pair(spread(mean=1.0))
    both.records = [each for each in both.records if each.seed % 2]
    both.write(store)


def behead_suite(store: Path) -> None:
    """Delete the file that has all of `random`, of a run that both policies were given to."""
    (file,) = store.glob("*.jsonl")
    header, *lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(header + b"".join(line for line in lines if b'"random"' not in line))


@pytest.mark.parametrize("lose", [halve, behead, behead_suite])
def test_lost_records_are_never_green(
    judge: Judge, store: Path, lose: Callable[[Path], None]
) -> None:
    lose(store)
    code, out, _ = judge()
    assert code == 1
    assert re.search(
        r"^mine +inconclusive +supported \(!\) +\d+ of 10 cells missing", out, re.MULTILINE
    )
    assert "other inconclusive - " in plain(out)


def test_a_policy_whose_only_run_is_lost_is_told_on_request(judge: Judge, store: Path) -> None:
    (file,) = store.glob("*.jsonl")
    file.unlink()
    Made().run("random", "0.25").write(store)
    code, out, _ = judge()
    assert code == 0, "many a store has records of some policies only"
    assert "not evaluated: there are no records of snapkv: mine, other" in out.replace(
        "\n    ", " "
    )
    code, out, _ = judge("--complete")
    assert code == 1
    assert "NOT EVALUATED, expected supported: claim mine (tiny)" in out
    assert "claim other" not in out, "nothing is expected of it"


# -- accepting ------------------------------------------------------------------------------------


def test_verdicts_are_accepted_as_a_diff(judge: Judge, claims_file: Path) -> None:
    edited = FILE.replace('tiny = "supported"', 'tiny = "refuted"')
    code, out, _ = judge("--claim", "mine", "--claim", "other", "--accept", text=edited)
    assert code == 0
    assert '\n-expect = { tiny = "refuted" } # reviewed\n+expect = { tiny = "supported"' in out
    assert '\n+expect = { "tiny" = "supported" }\n' in out
    assert out.endswith("2 expectations of tiny written; review the diff\n")
    assert claims_file.read_text() == FILE + 'expect = { "tiny" = "supported" }\n'
    code, out, _ = judge("--claim", "mine", "--claim", "other", "--accept")
    assert code == 0
    assert out.endswith("0 expectations of tiny written: all are as expected or not judged whole\n")


def test_only_the_claims_that_are_named_are_accepted(judge: Judge, claims_file: Path) -> None:
    judge("--claim", "mine", "--accept")
    assert claims_file.read_text() == FILE


def test_a_file_that_cannot_be_written_is_an_error(judge: Judge, claims_file: Path) -> None:
    claims_file.chmod(0o444)
    code, _, err = judge("--claim", "other", "--accept")
    assert code == 2
    assert err == f"kvharness: {claims_file}: cannot be written: the file is read-only\n"


def test_incomplete_verdicts_are_not_accepted(judge: Judge, store: Path, claims_file: Path) -> None:
    halve(store)
    code, out, _ = judge("--claim", "mine", "--claim", "other", "--accept")
    assert out.endswith("0 expectations of tiny written: all are as expected or not judged whole\n")
    assert claims_file.read_text() == FILE
    assert code == 1, "that nothing was written does not make it green"


# -- machines without torch -----------------------------------------------------------------------


def test_neither_torch_nor_transformers_is_needed(store: Path, claims_file: Path) -> None:
    code = f"""{BLOCK}
from kvharness.cli.main import main

store, file = sys.argv[1:]
codes = [
    main(["claims", store, file]),
    main(["compare", store, store, file]),
    main(["budget", store, "--policy=snapkv", "--metric=nll"]),
]
try:
    import torch
except ImportError:
    print(f"codes {{codes}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(store), f"--file={claims_file}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert "mine supported supported" in plain(done.stdout)
    assert done.stdout.endswith("codes [0, 0, 0]\n")


def test_help_needs_no_scipy() -> None:
    code = (
        "import sys; from kvharness.cli.main import main\n"
        "try: main(['claims', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'scipy', 'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
