"""Where claims files lie: beside the suites, in installed packages, and where the user says."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from kvharness.claims.file import check_ids, read_claims
from kvharness.errors import ClaimProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvharness.claims.claim import Claim

GROUP = "kvharness.claims"
_PACKAGE = Path(__file__).parents[1]


def all_claims(files: Iterable[Path] = ()) -> list[Claim]:
    """Claims of the suites, of installed packages, and of ``files``, sorted by id.

    Raises:
        ClaimProblem: a file cannot be read, or two claims have one id.
    """
    paths = dict.fromkeys([*_own(), *_registered(), *(path.resolve() for path in files)])
    claims = [claim for path in paths for claim in read_claims(path)]
    check_ids(claims)
    return sorted(claims, key=lambda claim: claim.id)


def _own() -> list[Path]:
    """The suites lie in the package in a wheel, and beside it in a checkout."""
    places = (_PACKAGE / "suites", _PACKAGE.parent / "suites")
    return [path for place in places if (path := place / "claims.toml").is_file()][:1]


def _registered() -> list[Path]:
    entries = importlib.metadata.entry_points(group=GROUP)
    return [_path(entry) for entry in sorted(entries, key=lambda e: (e.name, e.value))]


def _path(entry: importlib.metadata.EntryPoint) -> Path:
    """``package:claims.toml`` names a file beside the package's modules; nothing is imported."""
    distribution = entry.dist.name if entry.dist else "a package"
    top, *below = entry.module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ClaimProblem(
            f"{distribution} registers claims as {entry.value!r}, but there is no module {top!r}; "
            f"expected package:file.toml"
        )
    locations = spec.submodule_search_locations
    home = Path(locations[0]) if locations else Path(spec.origin or "").parent
    return Path(home, *below, entry.attr or "claims.toml").resolve()
