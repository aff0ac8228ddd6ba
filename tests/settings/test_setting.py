from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kvharness.errors import UsageProblem
from kvharness.settings.setting import (
    Raw,
    Reach,
    Setting,
    as_given,
    as_text,
    listed,
    optional,
    rooted,
    switched,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLD = Setting(flag="--kv-fold-by", help="Folds", parse=whole(), default="2")


def changed(**changes: Any) -> Setting[Any]:
    values = {"flag": "--kv-fold-by", "help": "Folds", "parse": whole(), "default": "2", **changes}
    return Setting(**values)


def test_its_names_follow_from_its_flag() -> None:
    assert (FOLD.name, FOLD.key) == ("kv_fold_by", "fold_by")
    assert changed(flag="--policy").name == "policy"


def test_as_an_attribute_it_is_its_value() -> None:
    class Table:
        values: Mapping[str, Any]
        fold = FOLD

    @dataclass(frozen=True)
    class Values(Table):
        values: Mapping[str, Any]

    assert Values({"--kv-fold-by": 7}).fold + 1 == 8
    assert Table.fold is FOLD


@pytest.mark.parametrize(
    ("setting", "texts", "value"),
    [
        (FOLD, ("3",), 3),
        (FOLD, (), 2),
        (changed(parse=as_given), ("x",), "x"),
        (changed(parse=listed, default=""), (), ()),
        (changed(parse=listed, many=True), ("a", "b"), ("a", "b")),
        (changed(parse=switched, switch=True, default=""), ("true",), True),
        (changed(parse=switched, switch=True, default=""), (), False),
        (changed(parse=rooted), ("there",), Path("/root/there")),
        (changed(parse=optional(rooted), default=""), (), None),
    ],
)
def test_what_was_given_or_the_default_is_read(
    setting: Setting[Any], texts: tuple[str, ...], value: object
) -> None:
    assert setting.read(texts, root=Path("/root")) == value


@pytest.mark.parametrize(
    ("setting", "text", "message"),
    [
        (FOLD, "0", "--kv-fold-by '0': expected a whole number from 1 to 10000000"),
        (FOLD, "9" * 50, f"--kv-fold-by '{'9' * 40}': expected a whole"),
        (changed(choices=("2", "3")), "4", "--kv-fold-by '4': expected one of 2, 3"),
        (changed(parse=rooted), "~nosuchuserhere", "there is no such user on this machine"),
        (changed(parse=rooted), "a\0b", r"'a\x00b': expected a path without NUL"),
    ],
)
def test_what_makes_no_sense_is_refused(setting: Setting[Any], text: str, message: str) -> None:
    with pytest.raises(UsageProblem) as told:
        setting.read((text,))
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"reach": Reach.CONTRACT}, ("contract", "fold_by")),
        ({"reach": Reach.ANSWER}, ("options", "--kv-fold-by")),
        ({"reach": Reach.ANSWER, "place": ("model", "fold")}, ("model", "fold")),
        ({"place": ("fold",)}, ("fold",)),
        ({}, ()),
    ],
)
def test_its_reach_says_where_headers_have_it(
    changes: dict[str, Any], place: tuple[str, ...]
) -> None:
    setting = changed(**changes)
    assert setting.stored_at == place
    header: dict[str, Any] = {"contract": {}, "model": {}}
    if place:
        lacks = "" if setting.place else "2"
        assert setting.stored(header) == lacks, "an older header was of the default"
        *outer, last = place
        inner = header
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = 5
        assert setting.stored(header) == "5"


def test_what_a_header_must_have_may_be_less_than_was_given() -> None:
    assert FOLD.demanded(3) == "3"
    assert changed(demand=lambda value: f"about {value}").demanded(3) == "about 3"


def test_a_switch_is_a_word_alone() -> None:
    switch = changed(parse=switched, switch=True, default="")
    assert switch.word(as_text(value=True)) == "--kv-fold-by"
    assert [switch.phrase(text) for text in ("true", "")] == ["fold_by", "no fold_by"]
    assert [switch.read_text(as_text(value)) for value in (True, False)] == [True, False]
    assert (FOLD.word("3"), FOLD.phrase("3")) == ("--kv-fold-by=3", "fold_by 3")


def test_numbers_are_told_from_switches_and_texts() -> None:
    assert FOLD.is_number
    assert not changed(parse=switched).is_number
    assert not changed(parse=as_given).is_number


def test_a_problem_names_the_flag_and_what_was_given() -> None:
    raw = Raw(flag="--kv-fold-by", texts=("x" * 50,))
    assert str(raw.problem("expected y")) == f"--kv-fold-by '{'x' * 40}': expected y"
