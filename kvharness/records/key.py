"""Keys of records: a digest of everything that changes an answer."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvharness.cell import Cell


def shared_key(
    model: Mapping[str, str],
    contract: Mapping[str, object],
    *,
    generate: str,
    schema: int,
    engine: int,
) -> dict[str, object]:
    """What all records of a run have in common.

    `RunIdentity` gives ``model`` and ``contract``.

    ``schema`` and ``engine`` are the versions of the store and of the engine's behaviour.
    """
    return {
        "schema": schema,
        "engine": str(engine),
        "torch": importlib.metadata.version("torch"),
        "transformers": importlib.metadata.version("transformers"),
        "model": dict(model),
        "contract": dict(contract),
        "generate": generate,
    }


def record_key(
    shared: Mapping[str, object],
    policy: Mapping[str, str],
    cell: Cell,
    item: Mapping[str, object],
) -> str:
    """32 hex digits; ``policy`` is `LoadedPolicy.identity`, ``item`` is `Item.identity`."""
    content = {
        **shared,
        "policy": dict(policy),
        "suite": cell.suite,
        "retention": cell.retention_text,
        "seed": cell.seed,
        "item": dict(item),
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
