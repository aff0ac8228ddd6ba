"""What a store holds under its newest settings: records that belong in one table."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING

from kvharness.contract import EvictMode
from kvharness.errors import StoreProblem
from kvharness.records.store import Store
from kvharness.settings.setting import Reach
from kvharness.settings.table import SettingTable, by_flag, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from kvharness.records.header import Header
    from kvharness.records.record import Record
    from kvharness.records.store import Stored
    from kvharness.settings.setting import Setting


NOTHING: Mapping[str, str] = MappingProxyType({})
EVICT = SettingTable.evict.flag
#: What records of one table share, and two stores are compared by, as headers have it. The number
#: of items is among them, since it changes how the items of a seed are drawn.
GROUND = ("engine", "torch", "transformers", "model", "contract", "generate", "data", "items")


def newest_records(
    directory: Path,
    *,
    demanded: Mapping[str, str] = NOTHING,
    say: Callable[[str], None] | None = None,
) -> tuple[list[Record], list[Header], int]:
    """What `comparable` finds, each item once, its headers, and how many records are left out.

    Raises:
        StoreProblem: there is no record to show.
    """
    stored, _, left_out = comparable(directory, demanded=demanded, say=say)
    latest = {
        (r.suite, r.policy, r.retention, r.seed, r.item): each
        for each in stored
        for r in [each.record]
    }
    headers = {each.header.run: each.header for each in latest.values()}
    return [each.record for each in latest.values()], list(headers.values()), left_out


def comparable(
    directory: Path,
    *,
    demanded: Mapping[str, str] = NOTHING,
    say: Callable[[str], None] | None = None,
) -> tuple[list[Stored], Header, int]:
    """What was stored under the newest settings by the newest policies, oldest first.

    Args:
        directory: of the store.
        demanded: settings that they must have, by flag, such as ``--kv-context``. Where `EVICT` is
            not among them, runs that evicted after prefill come first, so that one of another
            kind hides no recording.
        say: is told what could not be read.

    Returns:
        the records, the newest header, and how many records of other settings there are.

    Raises:
        StoreProblem: there are none.
    """
    store = Store.read(directory)
    if say is not None:
        for warning in store.warnings:
            say(f"{directory}: {warning}")
    everything = list(store.by_key.values())
    if not everything:
        unread = "".join(f"; {warning}" for warning in store.warnings[:1])
        lacking = "there are no records in this folder" if directory.is_dir() else "no such folder"
        raise StoreProblem(f"{directory}: {lacking}; expected what --kv-store wrote{unread}")
    everything.sort(key=lambda each: each.header.created)
    found = _demanded(everything, demanded, directory)
    newest = (found if EVICT in demanded else _preferred(found))[-1].header
    shared = _shared(newest.settings)
    headers = {id(each.header): each.header for each in everything}
    alike = {name for name, header in headers.items() if _shared(header.settings) == shared}
    comparable = [each for each in everything if id(each.header) in alike]
    policies = {each.record.policy: _version(each) for each in comparable}
    stored = [each for each in comparable if _version(each) == policies[each.record.policy]]
    return stored, newest, len(everything) - len(stored)


def _preferred(stored: list[Stored]) -> list[Stored]:
    evict = SettingTable.evict
    found = [each for each in stored if evict.stored(each.header.settings) == EvictMode.PREFILL]
    return found or stored


def _demanded(stored: list[Stored], demanded: Mapping[str, str], directory: Path) -> list[Stored]:
    known = by_flag()
    wanted = {known[flag]: text for flag, text in demanded.items()}
    headers = {id(each.header): each.header for each in stored}
    differing = {name: _differing(header.settings, wanted) for name, header in headers.items()}
    found = [each for each in stored if not differing[id(each.header)]]
    if not found:
        instead = ", or ".join(dict.fromkeys(map(_said, differing.values())))
        raise StoreProblem(f"{directory}: no record is {_said(wanted)}; there are some {instead}")
    return found


def _differing(
    header: Mapping[str, Any], wanted: Mapping[Setting[Any], str]
) -> dict[Setting[Any], str]:
    """What the settings of a header have instead of what is wanted."""
    found = {setting: setting.stored(header) for setting in wanted}
    return {each: text for each, text in found.items() if not each.agrees(text, wanted[each])}


def _said(settings: Mapping[Setting[Any], str]) -> str:
    """Settings in words: ``of --kv-context=512 without --kv-haystack``."""
    given = " ".join(each.word(text) for each, text in settings.items() if text)
    lacking = " and ".join(each.flag for each, text in settings.items() if not text)
    said = (("of", given), ("without", lacking))
    return " ".join(f"{word} {flags}" for word, flags in said if flags)


def _version(stored: Stored) -> object:
    """The code and parameters of the policy that a record is of."""
    return stored.header.settings["policies"].get(stored.record.policy)


def _shared(settings: dict[str, Any]) -> str:
    shared = [settings.get(name) for name in GROUND]
    # Of the others only the options tell: from a haystack, items of the same names are drawn.
    others = [each.stored(settings) for each in settings_of(Reach.ANSWER) if not each.place]
    return json.dumps([*shared, *others], sort_keys=True, default=str)
