"""What the records of a run share: the part of their keys, and the header of their file."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from kvharness.pretrained.find import describe
from kvharness.records.engine_version import ENGINE_VERSION
from kvharness.records.key import record_key, shared_key
from kvharness.records.store import SCHEMA, Header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvharness.cell import Cell
    from kvharness.discovery.loaded import LoadedPolicy
    from kvharness.items.item import Item
    from kvharness.pretrained.find import ModelSource
    from kvharness.pretrained.prompt import Encoder
    from kvharness.run.settings import Settings


class RunIdentity:
    """Everything that changes the answers of a run.

    Args:
        settings: of the run.
        source: of its model.
        encoder: of its model.
        policies: loaded policies by slug.
    """

    def __init__(
        self,
        settings: Settings,
        source: ModelSource,
        encoder: Encoder,
        policies: Mapping[str, LoadedPolicy],
    ) -> None:
        self._settings = settings
        self._source = source
        self._encoder = encoder
        self._policies = policies

    @cached_property
    def model(self) -> dict[str, str]:
        """The model, and how it computes here."""
        from kvharness.model.loaded import identity, resolve_device, resolve_dtype  # noqa: PLC0415

        device = resolve_device(self._settings.device)
        return identity(
            self._source,
            self._encoder,
            device=device.type,
            dtype=resolve_dtype(self._settings.dtype, device),
            threads=self._settings.threads,
        )

    @cached_property
    def shared(self) -> dict[str, object]:
        """The part of every record's key that the whole run shares."""
        settings = self._settings
        shared = shared_key(
            self.model,
            settings.keyed_contract(),
            generate=settings.generate,
            schema=SCHEMA,
            engine=ENGINE_VERSION,
        )
        options = settings.keyed()
        return {**shared, **({"options": options} if options else {})}

    def key(self, cell: Cell, item: Item, weights: str) -> str:
        """Of the record of a cell on an item; ``weights`` is the policy's checkpoint, if any."""
        policy = self._policies[cell.policy].identity()
        return record_key(
            self.shared, policy | ({"checkpoint": weights} if weights else {}), cell, item.identity
        )

    def header(self) -> Header:
        settings = self._settings
        return Header.create(
            {
                **self.shared,
                "contract": settings.contract.as_dict(),
                "model": {**describe(self._source), **self.model},
                "seeds": settings.seeds,
                "items": settings.items,
                "data": dict(settings.data),
                "options": settings.options(),
                "policies": {slug: each.identity() for slug, each in self._policies.items()},
                "oracles": sorted(slug for slug, each in self._policies.items() if each.oracle),
            }
        )
