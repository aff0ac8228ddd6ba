"""Training learned policies: what a trainer of another package builds on.

A trainer is an entry point of ``kvharness.trainers``; ``kvharness train NAME`` runs it. The names
load on first use: importing them costs torch.
"""

from __future__ import annotations

import lazy_loader

# The names stand in __init__.pyi, once.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
