"""Analysing policies: what an analyst of another package builds on.

An analyst is an entry point of ``kvharness.analysts``; ``kvharness analyse NAME`` runs it. The
names load on first use: importing them costs numpy, scipy and matplotlib.
"""

from __future__ import annotations

import lazy_loader

# The names stand in __init__.pyi, once.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
