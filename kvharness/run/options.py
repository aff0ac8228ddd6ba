"""Command-line options and their ini twins; light, since every pytest run imports it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Option(NamedTuple):
    """One option and its ini twin (``--kv-seeds`` and ``kv_seeds``).

    ``kind`` is shown in ``--help``; ``default`` is what holds when neither is given.
    """

    flag: str
    help: str
    default: str = ""
    kind: str = "TEXT"
    choices: tuple[str, ...] = ()
    many: bool = False
    switch: bool = False

    @property
    def name(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")


# Help texts: a capital first letter, no full stop after a single phrase.
OPTIONS = (
    Option(
        flag="--policy",
        kind="NAMES",
        many=True,
        help="Policies to run, comma list, repeatable: snapkv, 'snapkv(window=16)'. The anchors "
        "full, floor and oracle run beside them; 'kvpress:KnormPress' is a press of the installed "
        "kvpress. Default: every installed policy that is not on request (kvharness policies "
        "tells); all: those too",
    ),
    Option(
        flag="--retention",
        kind="FRACTIONS",
        many=True,
        help="Fractions of the cache to keep, comma list (default: 0.1,0.25,0.5,0.75)",
    ),
    Option(flag="--kv-seeds", default="5", kind="N", help="Seeds: each draws its own items"),
    Option(flag="--kv-items", default="12", kind="N", help="Items for each suite and seed"),
    Option(
        flag="--kv-context",
        default="1024",
        kind="TOKENS",
        help="Tokens in the cache before the question, exact for generated items",
    ),
    Option(
        flag="--kv-model",
        default="smollm2-135m",
        kind="MODEL",
        help="Embedded model, local path or Hub id",
    ),
    Option(
        flag="--kv-device",
        default="auto",
        kind="DEVICE",
        help="Where to compute: auto, cpu, cuda or cuda:N",
    ),
    Option(
        flag="--kv-dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="Number format; auto is bfloat16 on GPUs and on CPUs that compute in it, else float32",
    ),
    Option(
        flag="--kv-threads",
        default="1",
        kind="N",
        help="CPU threads of a process; another number rounds differently, so -n 2 is the way to "
        "use more cores",
    ),
    Option(
        flag="--kv-question",
        default="unseen",
        choices=("unseen", "seen"),
        help="Whether the question is in the cache when it is compressed",
    ),
    Option(
        flag="--kv-evict",
        default="prefill",
        choices=("prefill", "decode", "blocks"),
        help="When eviction happens: after prefill; then also after each new token, so that the "
        "cache never grows; or after each block of 128 context tokens. Only some policies do the "
        "last two",
    ),
    Option(
        flag="--kv-sinks",
        default="4",
        kind="N",
        help="First tokens that every policy keeps, within its budget",
    ),
    Option(
        flag="--kv-recents",
        default="16",
        kind="N",
        help="Last context tokens that every policy keeps, within its budget",
    ),
    Option(
        flag="--kv-generate",
        default="first",
        choices=("first", "all", "none"),
        help="For which questions of an item text is generated; scores need none",
    ),
    Option(
        flag="--kv-data",
        kind="SUITE=SOURCE",
        many=True,
        help="Real data for a suite: qa=FILE, FOLDER or Hub id[:config[:split]]",
    ),
    Option(flag="--kv-haystack", kind="FILE", help="Text file to hide the generated facts in"),
    Option(
        flag="--kv-hard",
        switch=True,
        help="Also collect the harder suites, meant for larger models",
    ),
    Option(
        flag="--kv-store",
        default=".kvharness",
        kind="DIR",
        help="Where records are kept and reused from, relative to the rootdir",
    ),
    Option(flag="--kv-fresh", switch=True, help="Compute everything again; the store only grows"),
    Option(
        flag="--kv-masks",
        switch=True,
        help="Also keep each keep mask, in the store's folder masks; kvharness compare then tells "
        "how many entries two runs share",
    ),
    Option(
        flag="--kv-replay",
        kind="DIR",
        help="Report from the records in DIR; loads no model and computes nothing",
    ),
    Option(
        flag="--kv-claims",
        default="report",
        choices=("strict", "report", "off"),
        help="What a run does with claims about its policies: strict fails where a verdict is not "
        "the expected one or missing, report only tells; both also run the baselines that claims "
        "compare with",
    ),
    Option(
        flag="--kv-claims-file",
        kind="FILE",
        many=True,
        help="A claims file beside those of the suites and of installed packages",
    ),
    Option(
        flag="--kv-shard",
        kind="I/N",
        help="Run the I-th of N parts of the groups, I from 1; the parts meet in the store",
    ),
)


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and its ini twin."""
    group = parser.getgroup("kvharness", "KV-cache compression benchmarks (kvharness)")
    for option in OPTIONS:
        text = option.help
        if option.default:
            text += f" (default: {option.default})"
        arguments: dict[str, Any] = {"dest": option.name, "default": None, "help": text}
        if option.switch:
            arguments["action"] = "store_true"
        else:
            arguments["action"] = "append" if option.many else "store"
            arguments["metavar"] = "|".join(option.choices) or option.kind
            arguments["type"] = _checked(option)
        group.addoption(option.flag, **arguments)
        parser.addini(
            option.name, f"Default of {option.flag}", type=_ini_type(option), default=None
        )


def _ini_type(option: Option) -> Literal["args", "bool", "string"]:
    if option.many:
        return "args"
    return "bool" if option.switch else "string"


def _checked(option: Option) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not (option.many or value.strip()):
            raise argparse.ArgumentTypeError("it is empty; leave the option out for its default")
        if option.choices and value not in option.choices:
            raise argparse.ArgumentTypeError(f"{value!r} is not one of {', '.join(option.choices)}")
        return value

    return check


def given(config: pytest.Config) -> bool:
    """Whether an option is on the command line; a project's ini values alone start nothing."""
    return any(config.getoption(option.name, default=None) for option in OPTIONS)


def raw_value(config: pytest.Config, option: Option) -> Any:
    value = config.getoption(option.name, default=None)
    if value is None or value == []:
        value = config.getini(option.name)
    return value or None
