"""Numbers that users pass."""

from __future__ import annotations

from typing import Any

import numpy as np

MEGABYTES = 1 << 20
"""The most megabytes of a cache: a terabyte."""
TRAINING = 65_536
"""The most epochs, samples of a step, widths of a layer, and prompts of a shard."""
BATCH = 4096
"""The most sequences that are decoded together."""
SEEDS = 1 << 64


def number(name: str, value: Any) -> float:
    """A number. Its range is checked where it is used."""
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"{name} must be a number, not {type(value).__name__}")


def whole(name: str, value: Any, least: int, most: int) -> int:
    """A whole number between two others."""
    try:
        found = int(value.__index__())
    except AttributeError:
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}") from None
    if not least <= found <= most:
        raise ValueError(f"{name} is {found}: it must be a whole number between {least} and {most}")
    return found
