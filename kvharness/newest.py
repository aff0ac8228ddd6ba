"""What a store holds under its newest settings: records that belong in one table."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from kvharness.contract import EvictMode
from kvharness.errors import StoreProblem
from kvharness.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from kvharness.provenance import Header
    from kvharness.record import Record
    from kvharness.store import Stored


NOTHING: Mapping[str, object] = MappingProxyType({})


def newest_records(
    directory: Path, *, say: Callable[[str], None] | None = None
) -> tuple[list[Record], list[Header], int]:
    """Records of the newest settings in a store, their headers, and how many are left out.

    Raises:
        StoreProblem: there is no record to show.
    """
    stored, _, left_out = comparable(directory, say=say)
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
    evict: EvictMode | None = None,
    demanded: Mapping[str, object] = NOTHING,
    say: Callable[[str], None] | None = None,
) -> tuple[list[Stored], Header, int]:
    """What was stored under the newest settings by the newest policies, oldest first.

    Args:
        directory: of the store.
        evict: when eviction happened; where that is not given, after prefill if there is any such
            record, so that a run of another kind hides no recording.
        demanded: other settings by flag, such as ``--kv-context``.
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
        raise StoreProblem(
            f"{directory}: there are no records in this folder; expected what --kv-store "
            f"wrote{unread}"
        )
    everything.sort(key=lambda each: each.header.created)
    newest = _demanded(_of_mode(everything, evict, directory), demanded, directory)[-1].header
    shared = _shared(newest.settings)
    comparable = [each for each in everything if _shared(each.header.settings) == shared]
    policies = {each.record.policy: _version(each) for each in comparable}
    stored = [each for each in comparable if _version(each) == policies[each.record.policy]]
    return stored, newest, len(everything) - len(stored)


def _of_mode(stored: list[Stored], evict: EvictMode | None, directory: Path) -> list[Stored]:
    wanted = evict or EvictMode.PREFILL
    found = [each for each in stored if each.header.settings["contract"]["evict"] == wanted]
    if not found and evict is not None and evict is not EvictMode.PREFILL:
        there = sorted({each.header.settings["contract"]["evict"] for each in stored})
        raise StoreProblem(
            f"{directory}: no record is of --kv-evict={evict.value}; there are {', '.join(there)}"
        )
    return found or stored


def _demanded(
    stored: list[Stored], demanded: Mapping[str, object], directory: Path
) -> list[Stored]:
    for flag, wanted in demanded.items():
        # A model that is a folder is stored under the folder's name.
        names = {str(wanted), Path(str(wanted)).name}
        found = [each for each in stored if _setting(each.header.settings, flag) in names]
        if not found:
            there = sorted({_setting(each.header.settings, flag) for each in stored})
            raise StoreProblem(
                f"{directory}: no record is of {flag}={wanted}; there are {', '.join(there)}"
            )
        stored = found
    return stored


def _setting(settings: Mapping[str, Any], flag: str) -> str:
    name = flag.removeprefix("--kv-")
    if name == "model":
        return str(settings["model"]["name"])
    return str(settings["items"] if name == "items" else settings["contract"][name])


def _version(stored: Stored) -> object:
    """The code and parameters of the policy that a record is of."""
    return stored.header.settings["policies"].get(stored.record.policy)


def _shared(settings: dict[str, Any]) -> str:
    # The number of items is among them, since it changes how the items of a seed are drawn.
    names = ("engine", "torch", "transformers", "model", "contract", "generate", "data", "items")
    # Items are drawn from a haystack, under the same names as without one.
    haystack = settings.get("options", {}).get("--kv-haystack")
    shared = [*(settings.get(name) for name in names), haystack]
    return json.dumps(shared, sort_keys=True, default=str)
