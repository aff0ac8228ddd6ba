from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvharness.claims import accept as module
from kvharness.claims.accept import accept, acceptable
from kvharness.claims.file import read_claims
from kvharness.claims.judge import judge
from kvharness.claims.judgement import Judgement
from kvharness.errors import ClaimProblem
from kvharness.statistics.region import Kind, Verdict
from tests.claims.conftest import claim, pair, spread

if TYPE_CHECKING:
    from typing import Any

KEYS = """\
kind = "better"
policy = "snapkv"
baseline = "random"
suites = ["qa"]  # one
retention = [
    "0.25",  # a quarter
]
metric = "nll"
"""
FILE = f"""\
# Claims of ours.

[[claim]]
id = "first"
{KEYS}
# What follows is another thing.

[[claim]]
id = "second"
{KEYS}"""


def observed(path: Path, **found: Verdict) -> list[Judgement]:
    claims = {each.id: each for each in read_claims(path)}
    return [Judgement(claim=claims[name], verdict=verdict) for name, verdict in found.items()]


def write(path: Path, text: str, model: str = "tiny", **found: Verdict) -> list[str]:
    path.write_bytes(text.encode())
    return list(accept(observed(path, **found), model))


def expectations(path: Path) -> list[dict[str, str]]:
    return [claim.get("expect", {}) for claim in tomllib.loads(path.read_text())["claim"]]


def test_an_expectation_is_one_new_line_after_the_claims_keys(claims_file: Path) -> None:
    diff = write(claims_file, FILE, first=Verdict.REFUTED)
    line = 'expect = { "tiny" = "refuted" }'
    assert [each for each in diff if each[0] in "+-"] == [
        f"--- {claims_file}",
        f"+++ {claims_file}",
        f"+{line}",
    ]
    assert claims_file.read_text() == FILE.replace(
        "\n# What follows", f"{line}\n\n# What follows"
    ), "comments before the next claim stay with it"


def test_several_claims_and_models(claims_file: Path) -> None:
    write(claims_file, FILE, first=Verdict.REFUTED, second=Verdict.SUPPORTED)
    text = claims_file.read_text()
    write(claims_file, text, model="org/tiny-3.1", first=Verdict.INCONCLUSIVE)
    assert expectations(claims_file) == [
        {"tiny": "refuted", "org/tiny-3.1": "inconclusive"},
        {"tiny": "supported"},
    ]
    assert next(each.expect for each in read_claims(claims_file))["org/tiny-3.1"] == "inconclusive"


def test_writing_twice_changes_nothing(claims_file: Path) -> None:
    write(claims_file, FILE, first=Verdict.REFUTED)
    text = claims_file.read_text()
    assert write(claims_file, text, first=Verdict.REFUTED) == []
    assert claims_file.read_text() == text


@pytest.mark.parametrize(
    "form",
    [
        'expect."tiny" = "supported"\n',
        'expect.other = "supported"\n',
        "expect = {}\n",
        'expect = { tiny = "supported" }  # reviewed\n',
        '\n# of each model\n[claim.expect]\nother = "supported"\n',
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_way_of_writing_expectations(claims_file: Path, form: str, ending: str) -> None:
    text = FILE.replace("\n# What follows", f"{form}\n# What follows").replace("\n", ending)
    diff = write(claims_file, text, first=Verdict.REFUTED)
    assert expectations(claims_file)[0]["tiny"] == "refuted"
    assert len([each for each in diff if each[0] in "+-"]) <= 4, "the header, one line or two"
    after = claims_file.read_bytes().decode()
    assert ("\r\n" in after) is (ending == "\r\n")
    assert after.count("\n") == after.count(ending), "line endings stay as they are"
    assert after.index("# What follows") > after.index("refuted")


def test_a_file_without_a_last_newline(claims_file: Path) -> None:
    write(claims_file, FILE.rstrip(), second=Verdict.SUPPORTED)
    assert expectations(claims_file) == [{}, {"tiny": "supported"}]


def test_a_byte_order_mark_stays(claims_file: Path) -> None:
    write(claims_file, f"\ufeff{FILE}", first=Verdict.REFUTED)
    raw = claims_file.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf# Claims of ours.")
    assert b'expect = { "tiny" = "refuted" }' in raw


def test_claims_in_an_array(claims_file: Path) -> None:
    one_line = KEYS.replace("  # one", "").replace('\n    "0.25",  # a quarter\n', '"0.25"')
    text = f'claim = [{{ id = "first", {", ".join(one_line.splitlines())} }}]\n'
    write(claims_file, text, first=Verdict.REFUTED)
    assert expectations(claims_file) == [{"tiny": "refuted"}]


@pytest.mark.parametrize("after", ["[[claim]]\n", "no TOML", FILE.replace("0.25", "0.5")])
def test_nothing_but_expectations_is_ever_changed(
    claims_file: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    monkeypatch.setattr(module, "_expecting", lambda *_: after)
    with pytest.raises(ClaimProblem, match="without changing more than expectations") as told:
        write(claims_file, FILE, first=Verdict.REFUTED)
    assert 'expect = { "tiny" = ... }' in str(told.value)
    assert claims_file.read_text() == FILE


def test_permissions_stay(claims_file: Path) -> None:
    claims_file.write_text(FILE)
    claims_file.chmod(0o640)
    list(accept(observed(claims_file, first=Verdict.REFUTED), "tiny"))
    assert claims_file.stat().st_mode & 0o777 == 0o640
    assert list(claims_file.parent.iterdir()) == [claims_file]


def test_a_read_only_file_is_not_replaced(claims_file: Path) -> None:
    claims_file.write_text(FILE)
    claims_file.chmod(0o444)
    with pytest.raises(ClaimProblem, match=r"claims\.toml: cannot be written: .* read-only"):
        list(accept(observed(claims_file, first=Verdict.REFUTED), "tiny"))
    assert claims_file.read_text() == FILE


def test_a_full_disk_leaves_the_file_whole(
    claims_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims_file.write_text(FILE)
    found = observed(claims_file, first=Verdict.REFUTED)

    def replace(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(ClaimProblem, match="cannot be written: No space left on device"):
        list(accept(found, "tiny"))
    assert claims_file.read_text() == FILE
    assert list(claims_file.parent.iterdir()) == [claims_file]


def test_a_file_that_is_gone(claims_file: Path) -> None:
    claims_file.write_text(FILE)
    found = observed(claims_file, first=Verdict.REFUTED)
    claims_file.unlink()
    with pytest.raises(ClaimProblem, match="cannot be read: No such file"):
        list(accept(found, "tiny"))


# -- what may be accepted -------------------------------------------------------------------------


def names(*claims: Any, **given: Any) -> list[str]:
    made = given.pop("made", None) or pair(spread(mean=9.0))
    return [each.claim.id for each in acceptable(judge(claims, made.evidence(**given)))]


def test_new_and_other_verdicts_are_acceptable() -> None:
    assert names(claim()) == ["mine"]
    assert names(claim(expect={"tiny": Verdict.REFUTED})) == ["mine"]
    assert names(claim(expect={"another": Verdict.REFUTED})) == ["mine"]
    assert names(claim(), made=pair(0.1 * spread())) == ["mine"], "inconclusive is a verdict"


def test_what_is_as_expected_needs_no_writing() -> None:
    assert names(claim(expect={"tiny": Verdict.SUPPORTED})) == []


def test_verdicts_of_other_settings_are_not() -> None:
    assert names(claim(settings={"context": 64})) == []
    assert names(claim(), made=pair(spread(mean=9.0), data={"qa": "mine.jsonl"})) == []


def test_verdicts_without_all_records_are_not() -> None:
    assert names(claim(), made=pair(spread(mean=9.0)).drop(policy="random", seed=0)) == []
    assert names(claim(retentions=("0.25", "0.5"))) == []
    assert names(claim(policy="sip")) == []


def test_verdicts_whose_control_lacks_records_are_not() -> None:
    mine = claim(kind=Kind.NOT_BETTER, margin=99.0, control="sees")
    control = claim(id="sees", policy="oracle")
    assert names(mine, control) == []
    made = pair(spread(mean=9.0)).run("oracle", "0.25", nll=-spread(mean=9.0))
    assert names(mine, control, made=made) == ["mine", "sees"]
