"""The table of settings: an entry for each, and nothing else has to list them.

Light, since every pytest run imports it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvharness.settings.setting import (
    Raw,
    Reach,
    Setting,
    as_given,
    listed,
    near,
    optional,
    path_of,
    problem,
    rooted,
    switched,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from kvharness.contract import EvictMode, QuestionMode


class ClaimsMode(StrEnum):
    """What a run does with claims: fail on a surprise, report, or nothing."""

    STRICT = "strict"
    REPORT = "report"
    OFF = "off"


# -- parsers: what they need is imported when a value is read, not when options are declared ------


def _retentions(raw: Raw) -> tuple[Fraction, ...]:
    from kvharness.contract import parse_retention  # noqa: PLC0415

    found = {parse_retention(part) for text in raw.texts for part in text.split(",")}
    return tuple(sorted(found))


def _question(raw: Raw) -> QuestionMode:
    from kvharness.contract import QuestionMode  # noqa: PLC0415

    return QuestionMode(raw.text)


def _evict(raw: Raw) -> EvictMode:
    from kvharness.contract import EvictMode  # noqa: PLC0415

    return EvictMode(raw.text)


def _sources(raw: Raw) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for text in raw.texts:
        suite, equals, source = text.partition("=")
        if not (suite and equals and source):
            raise problem(f"{raw.flag} {text!r}: expected SUITE=SOURCE such as qa=questions.jsonl")
        other = found.setdefault(suite, source)
        if other != source:
            raise problem(
                f"{raw.flag} {suite}={other} and {suite}={source}: expected one source for a "
                f"suite; a folder may hold several files"
            )
    return tuple(found.items())


def _files(raw: Raw) -> tuple[Path, ...]:
    return tuple(path_of(raw, text, raw.here) for text in raw.texts)


def _typed(path: Path | None) -> str:
    from kvharness._messages import typed  # noqa: PLC0415

    return "" if path is None else typed(path)


def _shard(raw: Raw) -> tuple[int, int]:
    if not raw.texts:
        return (1, 1)
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", raw.text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise problem(f"{raw.flag} {raw.text!r}: expected I/N with I from 1 to N, such as 1/4")
    return int(match[1]), int(match[2])


def _same_model(found: str, wanted: str) -> bool:
    """Records name a model that is a folder by the folder's name."""
    return found == wanted or (found == Path(wanted).name and Path(wanted).is_dir())


class SettingTable:
    """All settings, in the order of ``--help``; an instance has their values."""

    values: Mapping[str, Any]

    # fmt: off
    # In rows: how it is given, where it belongs, what --help says.
    policies = Setting(
        flag="--policy", metavar="NAMES", many=True, parse=listed,
        help="Policies to run, comma list, repeatable: snapkv, 'snapkv(window=16)'. The anchors "
        "full, floor and oracle run beside them; 'kvpress:KnormPress' is a press of the installed "
        "kvpress. Default: every installed policy that is not on request (kvharness policies "
        "tells); all: those too",
    )
    retentions = Setting(
        flag="--retention", metavar="FRACTIONS", many=True, default="0.1,0.25,0.5,0.75",
        parse=_retentions,
        help="Fractions of the cache to keep, comma list",
    )
    seeds = Setting(
        flag="--kv-seeds", metavar="N", default="5", parse=whole(),
        help="Seeds: each draws its own items",
    )
    items = Setting(
        flag="--kv-items", metavar="N", default="12", parse=whole(),
        place=("items",),
        help="Items for each suite and seed",
    )
    context = Setting(
        flag="--kv-context", metavar="TOKENS", default="1024", parse=whole(),
        reach=Reach.CONTRACT,
        help="Tokens in the cache before the question, exact for generated items",
    )
    # Each record's key has what model, device, dtype and threads came to: the model's identity.
    model = Setting(
        flag="--kv-model", metavar="MODEL", default="smollm2-135m", parse=as_given,
        reach=Reach.ANSWER, place=("model", "name"), keyed=False, agrees=_same_model,
        help="Embedded model, local path or Hub id",
    )
    device = Setting(
        flag="--kv-device", metavar="DEVICE", default="auto", parse=as_given,
        reach=Reach.ANSWER, place=("model", "device"), keyed=False,
        demand=lambda text: text.partition(":")[0],
        help="Where to compute: auto, cpu, cuda or cuda:N",
    )
    dtype = Setting(
        flag="--kv-dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
        parse=as_given,
        reach=Reach.ANSWER, place=("model", "dtype"), keyed=False,
        help="Number format; auto is bfloat16 on GPUs and on CPUs that compute in it, else float32",
    )
    threads = Setting(
        flag="--kv-threads", metavar="N", default="1", parse=whole(),
        reach=Reach.ANSWER, place=("model", "threads"), keyed=False,
        help="CPU threads of a process; another number rounds differently, so -n 2 is the way to "
        "use more cores",
    )
    question = Setting(
        flag="--kv-question", choices=("unseen", "seen", "prompt"), default="unseen",
        parse=_question,
        reach=Reach.CONTRACT,
        help="What is in the cache when it is compressed: the context; the question too; or the "
        "whole prompt, whose last token is read once more before the answer",
    )
    evict = Setting(
        flag="--kv-evict", choices=("prefill", "decode", "blocks"), default="prefill", parse=_evict,
        reach=Reach.CONTRACT,
        help="When eviction happens: after prefill; then also after each new token, so that the "
        "cache never grows; or after each block of 128 context tokens. Only some policies do the "
        "last two",
    )
    sinks = Setting(
        flag="--kv-sinks", metavar="N", default="4", parse=whole(0),
        reach=Reach.CONTRACT,
        help="First tokens that every policy keeps, within its budget",
    )
    recents = Setting(
        flag="--kv-recents", metavar="N", default="16", parse=whole(0),
        reach=Reach.CONTRACT,
        help="Last context tokens that every policy keeps, within its budget",
    )
    generate = Setting(
        flag="--kv-generate", choices=("first", "all", "none"), default="first", parse=as_given,
        reach=Reach.ANSWER, place=("generate",), keyed=False,
        help="For which questions of an item text is generated; scores need none",
    )
    data = Setting(
        flag="--kv-data", metavar="SUITE=SOURCE", many=True, parse=_sources,
        help="Real data for a suite: qa=FILE, FOLDER or Hub id[:config[:split]]",
    )
    # Each record's key has the digest of its item.
    haystack = Setting(
        flag="--kv-haystack", metavar="FILE", parse=optional(near),
        reach=Reach.ANSWER, keyed=False, show=_typed,
        help="Text file to hide the generated facts in",
    )
    hard = Setting(
        flag="--kv-hard", switch=True, parse=switched,
        help="Also collect the harder suites, meant for larger models",
    )
    store = Setting(
        flag="--kv-store", metavar="DIR", default=".kvharness", parse=rooted,
        help="Where records are kept and reused from, relative to the rootdir",
    )
    fresh = Setting(
        flag="--kv-fresh", switch=True, parse=switched,
        help="Compute everything again; the store only grows",
    )
    masks = Setting(
        flag="--kv-masks", switch=True, parse=switched,
        help="Also keep each keep mask, in the store's folder masks; kvharness compare then tells "
        "how many entries two runs share",
    )
    replay = Setting(
        flag="--kv-replay", metavar="DIR", parse=optional(rooted),
        help="Report from the records in DIR; loads no model and computes nothing",
    )
    claims = Setting(
        flag="--kv-claims", choices=tuple(ClaimsMode), default="report",
        parse=lambda raw: ClaimsMode(raw.text),
        help="What a run does with claims about its policies: strict fails where a verdict is not "
        "the expected one or missing, report only tells; both also run the baselines that claims "
        "compare with",
    )
    claims_files = Setting(
        flag="--kv-claims-file", metavar="FILE", many=True, parse=_files,
        help="A claims file beside those of the suites and of installed packages",
    )
    shard = Setting(
        flag="--kv-shard", metavar="I/N", parse=_shard,
        help="Run the I-th of N parts of the groups, I from 1; the parts meet in the store",
    )
    # fmt: on


def settings_of(*reaches: Reach) -> tuple[Setting[Any], ...]:
    """Those of these reaches, or all if none is named, in the order of the table."""
    found = (each for each in vars(SettingTable).values() if isinstance(each, Setting))
    return tuple(each for each in found if each.reach in (reaches or Reach))


def contract_settings() -> dict[str, Setting[Any]]:
    """Those of the contract by the names that it calls them, in its order."""
    from kvharness.contract import Contract  # noqa: PLC0415

    found = {each.key: each for each in settings_of(Reach.CONTRACT)}
    return {name: found[name] for name in Contract().as_dict()} | found


def by_flag() -> dict[str, Setting[Any]]:
    return {each.flag: each for each in settings_of()}
