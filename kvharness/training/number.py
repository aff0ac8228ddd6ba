"""Numbers among the arguments of trainers."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """A whole number from 1, for ``type=`` of an argument."""
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)
