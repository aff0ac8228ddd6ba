"""Checks that a policy keeps its promises, with the strategies they draw from.

``pytest --pyargs kvharness.testing --policy=mine`` runs them without a line of code. The names
load on first use: importing them costs torch and Hypothesis.
"""

from __future__ import annotations

import lazy_loader

# The names stand in __init__.pyi, once.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
