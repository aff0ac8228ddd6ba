"""Where claims files lie: beside the suites, in installed packages, and where the user says."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from kvharness._entry_points import entry_points_of
from kvharness.claims.file import check_ids, read_claims
from kvharness.errors import ClaimProblem
from kvharness.statistics.region import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kvharness.claims.claim import Claim

GROUP = "kvharness.claims"
PACKAGE = Path(__file__).resolve().parents[1]
_FILE = "claims.toml"


def all_claims(files: Iterable[Path] = ()) -> list[Claim]:
    """Claims of the suites, of installed packages, and of ``files``, sorted by id.

    Raises:
        ClaimProblem: a file cannot be read, two claims have one id, or a control is no claim.
    """
    paths = dict.fromkeys([*_own(), *_registered(), *(path.resolve() for path in files)])
    claims = [claim for path in paths for claim in read_claims(path)]
    check_ids(claims)
    _check_controls(claims)
    return sorted(claims, key=lambda claim: claim.id)


def found_unasked(origin: str) -> bool:
    """Whether the claims of a file are found without naming it."""
    return Path(origin) in {*_own(), *_registered()}


def _check_controls(claims: Sequence[Claim]) -> None:
    able = {claim.id for claim in claims if claim.kind is Kind.BETTER}
    for claim in claims:
        if claim.control is None or claim.control in able:
            continue
        near = difflib.get_close_matches(claim.control, able, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ClaimProblem(
            f"{claim.origin}: claim {claim.id!r}: control {claim.control[:60]!r}: expected the id "
            f"of a claim of kind better{hint}"
        )


def suites_folder() -> Path:
    """The suites lie in the package in a wheel; in a checkout that is a link to their folder."""
    return (PACKAGE / "suites").resolve()


def _own() -> list[Path]:
    return [path] if (path := suites_folder() / _FILE).is_file() else []


def _registered() -> list[Path]:
    entries = entry_points_of(GROUP)
    return [_path(entry) for entry in sorted(entries, key=lambda e: (e.name, e.value))]


def _path(entry: importlib.metadata.EntryPoint) -> Path:
    """``package:claims.toml`` names a file beside the package's modules; nothing is imported."""
    # Not entry.module: it takes no '-' or '/' in the file's name.
    module, _, file = (part.strip() for part in entry.value.partition(":"))
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise _broken(entry, f"there is no module {top!r}")
    locations = list(spec.submodule_search_locations or [])
    home = Path(locations[0]) if locations else Path(spec.origin or "").parent
    path = Path(home, *below, file or _FILE).resolve()
    if not path.is_file():
        raise _broken(entry, f"there is no file {path}")
    return path


def _broken(entry: importlib.metadata.EntryPoint, reason: str) -> ClaimProblem:
    name = entry.dist.name if entry.dist else None
    version = entry.dist.version if entry.dist else ""
    return ClaimProblem(
        f"{name or 'a package'} {version} registers claims as {entry.value!r}, but {reason}; "
        f"expected package:file.toml. Correct or uninstall it, or run with --kv-claims=off"
    )
