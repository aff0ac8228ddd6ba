"""kvharness: claims about KV-cache compression as regression tests.

The public names load on first use, so that importing the pytest plugin costs no torch.
"""

from __future__ import annotations

import lazy_loader

# The names stand in __init__.pyi, once.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
