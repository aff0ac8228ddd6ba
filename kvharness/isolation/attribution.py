"""What the code of a stranger does wrong, told with the name of its policy."""

from __future__ import annotations

import os
import sysconfig
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kvharness.errors import KvharnessError, ModelProblem, PolicyProblem
from kvharness.isolation.torch_settings import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Ending in a separator: an author's package may well be called kvharness_mine.
_LIBRARIES = tuple(
    f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(torch.__file__).parent)
)
#: Python's own library, which has packages of others in a folder below.
_PYTHON = sysconfig.get_paths()["stdlib"] + os.sep


@contextmanager
def blamed(policy: str, *, stage: str = "") -> Iterator[None]:
    """Turn whatever a policy raises, or changes for all others, into a problem with its name.

    Args:
        policy: its name.
        stage: what it is doing, where it is only one thing.

    Raises:
        PolicyProblem: it raised something, or left torch's settings changed; they are put back.
        KeyboardInterrupt: as it came, with the name: nobody knows whether a user or the policy
            raised it.
    """
    lead = f"{stage} failed with " if stage else ""
    with _told(
        PolicyProblem,
        lambda reason: PolicyProblem(policy, f"{lead}{reason}"),
        lambda reason: PolicyProblem(policy, f"{stage or 'it'} {reason}"),
        running=f"policy {policy!r}",
    ):
        yield


@contextmanager
def blamed_for_all(observation: str) -> Iterator[None]:
    """The same for an observation, whose problems are those of all policies that declare it.

    Raises:
        ModelProblem: it raised something, or left torch's settings changed; they are put back.
        KeyboardInterrupt: as it came, with the name.
    """
    with _told(
        ModelProblem,
        ModelProblem,
        lambda reason: ModelProblem(f"it {reason}"),
        running=observation,
    ):
        yield


@contextmanager
def _told(
    ours: type[KvharnessError],
    raised: Callable[[str], KvharnessError],
    left: Callable[[str], KvharnessError],
    *,
    running: str,
) -> Iterator[None]:
    """Problems from what is raised, and from the settings that are left changed."""
    try:
        with kept() as changed:
            yield
    except (ours, GeneratorExit):
        raise
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"{running} was running{_place(error)}") from error
    except BaseException as error:
        # Also sys.exit and what test frameworks raise: a stranger's code ends no one else's cells.
        known = isinstance(error, KvharnessError)
        reason = (str(error) if known else f"{type(error).__name__}: {error}").splitlines()[0]
        raise raised(f"{reason}{_place(error)}") from error
    if changed:
        raise left(left_changed(changed))


def left_changed(changed: list[str]) -> str:
    """What to tell of the settings that `kept` names."""
    return (
        f"changed {' and '.join(changed)}, for every policy of the process; undo it before "
        f"returning, or pass dtype, device and the like to the calls that need them"
    )


def _is_own(file: str) -> bool:
    inside = file.startswith(_PYTHON) and "site-packages" not in file
    return not (inside or file.startswith(_LIBRARIES))


def _place(error: BaseException) -> str:
    """Where in the policy's own code it happened: `` (mine.py:12)``."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    frame = next((frame for frame in frames if _is_own(frame.filename)), None)
    return f" ({Path(frame.filename).name}:{frame.lineno})" if frame else ""
