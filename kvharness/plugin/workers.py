"""Spreading groups over GPUs, xdist workers and shards."""

from __future__ import annotations

import importlib.util
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

    from kvharness.cell import Group

_CELL = re.compile(r"(?P<test>.*)\[.*?-s(?P<seed>\d+)\]")
_MARK = "kv_suite"
#: A worker with the embedded model peaks at 2.5 GB.
_WORKER_BYTES = 4 * 2**30
_PACKAGE = "kvharness.suites"


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that this process may use, as CUDA names them; found without torch."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in {"", "-1"}]
    listed = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number, _ in enumerate(listed.iterdir())] if listed.is_dir() else []


def auto_workers() -> int:
    """What ``-n auto`` means: a worker for each GPU, or as many as cores and memory allow."""
    gpus = len(visible_gpus())
    if gpus:
        return gpus
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // _WORKER_BYTES))


def pin_worker(config: pytest.Config) -> None:
    """Set up an xdist worker before torch is imported: one of the caller's GPUs is its own.

    Indexes into the caller's ``CUDA_VISIBLE_DEVICES`` and never widens it.
    """
    worker = getattr(config, "workerinput", None)
    if worker is None:
        return
    # Workers share the cores: threads that spin while they wait take time from each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gpus = visible_gpus()
    if not gpus:
        return
    number = int(re.sub(r"\D", "", str(worker["workerid"])) or 0)
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]


def group_scheduler(config: pytest.Config, log: Any) -> Any:
    """An xdist scheduler that keeps the cells of a group on one worker."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - optional dependency

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            cell = _CELL.fullmatch(nodeid)
            return f"{cell['test']}-s{cell['seed']}" if cell else nodeid

        def remove_node(self, node: Any) -> Any:
            # xdist 3.8 hands out the finished groups of a crashed worker again, and the only
            # worker, replaced, would wait for ever on a group without a test left to run.
            self.assigned_work[node] = {
                scope: tests
                for scope, tests in self.assigned_work[node].items()
                if not all(tests.values())
            }
            return super().remove_node(node)

    return GroupScheduling(config, log)


def mentions_cells(config: pytest.Config) -> bool:
    """Whether a test file that was named, or lies in a folder that was, uses a suite.

    Folders below are not looked through: this is asked in every xdist run on the machine.
    """
    for argument in config.args:
        if argument.startswith(_PACKAGE) and config.getoption("pyargs", default=False):
            return True
        path = _named(argument.partition("::")[0], config)
        files = path.glob("test_*.py") if path.is_dir() else [path]
        if any(_mentions(file) for file in files if file.suffix == ".py"):
            return True
    return False


def _named(argument: str, config: pytest.Config) -> Path:
    """The path of an argument, which may be a package's name after ``--pyargs``."""
    if config.getoption("pyargs", default=False):
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(argument)
            if spec is not None and spec.origin is not None:
                origin = Path(spec.origin)
                return origin.parent if origin.name == "__init__.py" else origin
    return config.invocation_params.dir / argument


def _mentions(file: Path) -> bool:
    try:
        return _MARK in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def in_shard(group: Group, groups: Sequence[Group], shard: tuple[int, int]) -> bool:
    """Whether a group belongs to shard ``(I, N)`` of all groups; shards differ by one at most."""
    index, count = shard
    ordered = sorted(groups, key=lambda each: (each.suite, each.seed))
    return ordered.index(group) % count == index - 1
