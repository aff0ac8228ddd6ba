"""A setting: how it is given, what it means, and how it is shown, stored and found again.

Light, since every pytest run imports it.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kvharness.errors import UsageProblem

T = TypeVar("T")
_LARGEST = 10_000_000
#: What a switch that is on is given as, in an ini file.
_ON = "true"


class Reach(StrEnum):
    """What a setting belongs to.

    CONTRACT: equal for all cells that are compared. Headers have it under ``contract``, keys too.
    ANSWER: how answers are computed. Headers have it under ``options``, unless it is the default.
    RUN: only which cells a run has, and what it does with them.
    """

    CONTRACT = "contract"
    ANSWER = "answer"
    RUN = "run"


def as_text(value: object) -> str:
    """The text of a value as one would give it; a switch that is off is not given."""
    if isinstance(value, bool):
        return _ON if value else ""
    return str(value)


class Raw(NamedTuple):
    """What was given as a setting: texts, of which a list alone has several.

    ``root`` is pytest's rootdir, ``here`` the folder that pytest was started in.
    """

    flag: str
    texts: tuple[str, ...]
    root: Path = Path()
    here: Path = Path()

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def problem(self, expected: str) -> UsageProblem:
        return problem(f"{self.flag} {self.text[:40]!r}: {expected}")


class Holder(Protocol):
    """What has a value for every setting, by flag."""

    @property
    def values(self) -> Mapping[str, Any]: ...


# No slots, which make the class twice, and no comparisons: every pytest run would pay for them.
@dataclass(frozen=True, kw_only=True, eq=False)
class Setting(Generic[T]):
    """One setting; as an attribute of a class, it is its value in the instances.

    Attributes:
        flag: of the command line; `name` is the ini key, `key` what a contract calls it.
        help: begins with a capital, and has no full stop after a single phrase.
        parse: makes the value of what was given.
        reach: what it belongs to.
        default: as one would give it; empty for none.
        metavar: what ``--help`` calls its value.
        choices: all texts that there are, if they are few.
        many: whether it is a list, and repeatable.
        switch: whether it is on or off, without a value.
        show: the text of a value, as one would give it.
        place: where headers have what it came to, if its reach does not say that.
        keyed: whether an ANSWER is part of each record's key by itself: not if it is there as
            something else, such as the model's digest or the item's.
        demand: the text that headers must have in ``place``, if `show` gives another one.
        agrees: whether the text in a header is what was demanded.
    """

    flag: str
    help: str
    parse: Callable[[Raw], T]
    reach: Reach = Reach.RUN
    default: str = ""
    metavar: str = "TEXT"
    choices: tuple[str, ...] = ()
    many: bool = False
    switch: bool = False
    show: Callable[[T], str] = as_text
    place: tuple[str, ...] = ()
    keyed: bool = True
    demand: Callable[[T], str] | None = None
    agrees: Callable[[str, str], bool] = operator.eq

    @overload
    def __get__(self, holder: None, owner: type[object]) -> Self: ...
    @overload
    def __get__(self, holder: Holder, owner: type[object]) -> T: ...
    def __get__(self, holder: Holder | None, owner: type[object]) -> Self | T:
        if holder is None:
            return self
        value: T = holder.values[self.flag]
        return value

    @property
    def name(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def key(self) -> str:
        return self.name.removeprefix("kv_")

    def read(self, texts: tuple[str, ...], *, root: Path = Path(), here: Path = Path()) -> T:
        """The value of what was given; of nothing, that of the default.

        Raises:
            UsageProblem: it makes no sense; says what was expected.
        """
        found = texts or tuple(filter(None, [self.default]))
        raw = Raw(flag=self.flag, texts=found, root=root, here=here)
        if self.choices and raw.text not in self.choices:
            expected = ", ".join(self.choices)
            raise problem(f"{self.flag} {raw.text!r}: expected one of {expected}")
        return self.parse(raw)

    def read_text(self, text: str) -> T:
        """The value that `as_text` or `show` gave this text of."""
        return self.read((text,) if text else ())

    def demanded(self, value: T) -> str:
        """What the header of a run of this value has, as text; ``auto`` may be anything."""
        return self.show(value) if self.demand is None else self.demand(value)

    @property
    def is_number(self) -> bool:
        """Whether its values are whole numbers."""
        default = self.read_text("")
        return isinstance(default, int) and not isinstance(default, bool)

    @property
    def stored_at(self) -> tuple[str, ...]:
        """Where headers have it; empty if they do not."""
        places = {Reach.CONTRACT: ("contract", self.key), Reach.ANSWER: ("options", self.flag)}
        return self.place or places.get(self.reach, ())

    def stored(self, header: Mapping[str, Any]) -> str:
        """As text, what the settings of a header have; the default if they are older than it."""
        found: Any = header
        for name in self.stored_at:
            if name not in found:
                return "" if self.place else self.default
            found = found[name]
        return as_text(found)

    def phrase(self, text: str) -> str:
        """In a line about a run: ``context 1024``; of a switch, ``folded`` or ``no folded``."""
        if self.switch:
            return self.key if text else f"no {self.key}"
        return f"{self.key} {text}"

    def word(self, text: str) -> str:
        """Of a command line that gives it this text."""
        return self.flag if self.switch else f"{self.flag}={text}"


def problem(message: str) -> UsageProblem:
    from kvharness.errors import UsageProblem  # noqa: PLC0415 - every pytest run imports this

    return UsageProblem(message)


# -- parsers --------------------------------------------------------------------------------------


def as_given(raw: Raw) -> str:
    return raw.text


def listed(raw: Raw) -> tuple[str, ...]:
    return raw.texts


def switched(raw: Raw) -> bool:
    return bool(raw.texts)


def whole(least: int = 1) -> Callable[[Raw], int]:
    """For a number of so many at least."""

    def parse(raw: Raw) -> int:
        given = raw.text
        if not re.fullmatch(r"\d{1,9}", given, re.ASCII) or not least <= int(given) <= _LARGEST:
            raise raw.problem(f"expected a whole number from {least} to {_LARGEST}")
        return int(given)

    return parse


def rooted(raw: Raw) -> Path:
    """For a path that is relative to the rootdir."""
    return path_of(raw, raw.text, raw.root)


def near(raw: Raw) -> Path:
    """For a path that is relative to where pytest was started."""
    return path_of(raw, raw.text, raw.here)


def path_of(raw: Raw, given: str, base: Path) -> Path:
    """A path that may begin with ``~``; otherwise it is relative to ``base``."""
    try:
        path = base / Path(given).expanduser()
    except RuntimeError:
        raise problem(f"{raw.flag} {given!r}: there is no such user on this machine") from None
    if "\0" in given:
        raise problem(f"{raw.flag} {given!r}: expected a path without NUL characters")
    return path


def optional(parse: Callable[[Raw], T]) -> Callable[[Raw], T | None]:
    """For what may be left out."""
    return lambda raw: parse(raw) if raw.texts else None
