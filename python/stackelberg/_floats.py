"""Arrays of float32 or float64 from what users pass, in place where possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Floats:
    """Numbers, and where None was given instead of NaN (None: nowhere)."""

    array: NDArray[Any]
    none: NDArray[np.bool_] | None = None


def floats(name: str, given: object) -> Floats:
    """Numbers of any shape. Arrays of native float32 and float64 are not copied; None becomes NaN."""
    if isinstance(given, np.ma.MaskedArray):
        given = np.ma.filled(given.astype(np.float64), np.nan)
    array = np.asarray(given)
    none = None
    if array.dtype == object:
        if any(isinstance(item, (str, bytes)) for item in array.flat):
            raise TypeError(f"{name} must be numbers, not text")
        if any(isinstance(item, (list, tuple, np.ndarray)) for item in array.flat):
            raise TypeError(f"{name} must be numbers, not rows: pass rows of different lengths as a list")
        none = np.array([item is None for item in array.flat], dtype=np.bool_)
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be numbers, not {array.dtype}")
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        array = array.astype(np.float64)
    return Floats(np.require(array, requirements="A"), none)


def line(name: str, row: int, given: object) -> Floats:
    """Numbers of one row of a list."""
    found = floats(name, given)
    if found.array.ndim != 1:
        raise ValueError(f"row {row}: {name} must have shape (M,), not {found.array.shape}")
    return found


def joined(rows: list[Floats]) -> Floats:
    """Rows one after the other."""
    array = np.concatenate([row.array for row in rows])
    if all(row.none is None for row in rows):
        return Floats(array)
    none = [np.zeros(row.array.size, np.bool_) if row.none is None else row.none for row in rows]
    return Floats(array, np.concatenate(none))
