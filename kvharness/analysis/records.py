"""The records of a store as the report reads them."""

from __future__ import annotations

from kvharness.claims.evidence import Evidence
from kvharness.records.comparable import comparable
from kvharness.report.difference import Mean
from kvharness.report.survey import ALL, Survey

__all__ = ["ALL", "Evidence", "Mean", "Survey", "comparable"]
