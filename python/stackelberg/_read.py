"""Reads rewards: from what users pass to rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._floats import Floats, floats, joined, line
from ._rows import Index, Rows
from ._types import Groups, Missing, Ragged, Values


def read(
    rewards: Values | Ragged,
    *,
    weights: Values | Ragged | None = None,
    logits: Values | Ragged | None = None,
    shaped: Values | Ragged | None = None,
    groups: Groups | None = None,
    missing: Missing = "error",
) -> Rows:
    """Rows of rewards, and of what describes the same responses: the same shape, or one row for all prompts."""
    if missing not in ("error", "drop"):
        raise ValueError(f"unknown missing '{missing}': known are error, drop")
    others = {"weights": weights, "logits": logits, "shaped": shaped}
    given = {name: other for name, other in others.items() if other is not None}
    positions = offsets = splits = names = None
    if groups is None and isinstance(rewards, (list, tuple)) and _is_list_of_rows(rewards):
        found, splits = _lists(rewards, given)
        offsets = splits
    else:
        found = _arrays(rewards, given, dimensions=2 if groups is None else 1)
    shape = found["rewards"].array.shape
    if groups is not None:
        positions, offsets, names = _grouped(groups, shape[0])

    if missing == "drop":
        flat = found["rewards"].array.reshape(-1)
        numbers = np.flatnonzero(~np.isnan(flat if positions is None else flat[positions]))
        if numbers.size < flat.size:
            if offsets is None:
                offsets = np.arange(shape[0] + 1) * shape[1] if len(shape) == 2 else np.array([0, shape[0]])
            offsets = np.searchsorted(numbers, offsets)
            positions = numbers if positions is None else positions[numbers]

    def prepared(name: str) -> NDArray[Any] | None:
        if name not in found:
            return None
        array = found[name].array
        if positions is not None:
            array = array.reshape(-1)[positions]
        return array if array.ndim == 2 else array.reshape(1, -1)

    array = prepared("rewards")
    assert array is not None
    return Rows(
        rewards=array,
        offsets=offsets,
        weights=prepared("weights"),
        logits=prepared("logits"),
        shaped=prepared("shaped"),
        shape=shape,
        splits=splits,
        positions=positions,
        names=names,
        none=found["rewards"].none,
    )


def _is_list_of_rows(given: Sequence[object]) -> bool:
    first = given[0] if given else None
    return isinstance(first, (list, tuple)) or getattr(first, "ndim", 0) > 0


def _arrays(rewards: object, given: dict[str, Any], dimensions: int) -> dict[str, Floats]:
    """Arrays of the shape of the rewards."""
    found = {"rewards": floats("rewards", rewards)}
    shape = found["rewards"].array.shape
    if not 1 <= len(shape) <= dimensions:
        allowed = "(M,), (P, M) or be a list of rows" if dimensions == 2 else "(N,) if groups are given"
        raise ValueError(f"rewards must have shape {allowed}, not {shape}")
    for name, other in given.items():
        array = floats(name, other).array
        if array.ndim == 0 or array.shape[-1] != shape[-1]:
            raise ValueError(f"{name} has {array.shape[-1] if array.ndim else 1} entries but there are {shape[-1]} rewards")
        if array.shape not in (shape, shape[-1:]):
            raise ValueError(f"{name} has shape {array.shape} but the rewards have shape {shape}")
        found[name] = Floats(np.broadcast_to(array, shape))
    return found


def _lists(rewards: Sequence[Any], given: dict[str, Any]) -> tuple[dict[str, Floats], Index]:
    """Lists of rows of the lengths of the rows of rewards: all rows joined, and where they begin and end."""
    rows = [line("rewards", number, row) for number, row in enumerate(rewards)]
    lengths = [row.array.size for row in rows]
    found = {"rewards": joined(rows)}
    for name, other in given.items():
        if len(other) != len(rows):
            raise ValueError(f"{name} has {len(other)} rows but there are {len(rows)} rows of rewards")
        lines = [line(name, number, row) for number, row in enumerate(other)]
        for number, (row, length) in enumerate(zip(lines, lengths, strict=True)):
            if row.array.size != length:
                raise ValueError(f"row {number}: {name} has {row.array.size} entries but there are {length} rewards")
        found[name] = joined(lines)
    return found, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _grouped(groups: Groups, size: int) -> tuple[Index, Index, NDArray[Any]]:
    """The positions of the responses group by group, where each group begins and ends, and the groups as they first appear."""
    ids = np.asarray(groups)
    if ids.ndim != 1:
        raise ValueError(f"groups must have shape (N,), not {ids.shape}")
    if ids.size != size:
        raise ValueError(f"groups has {ids.size} entries but there are {size} rewards")
    if ids.dtype == object:
        # Objects need not have an order.
        known: dict[Any, int] = {}
        number = np.array([known.setdefault(item, len(known)) for item in ids.tolist()], dtype=np.int64)
        names = np.empty(len(known), dtype=object)
        names[:] = list(known)
    else:
        unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        number, names = rank[inverse], unique[order]
    positions = np.argsort(number, kind="stable")
    counts = np.bincount(number, minlength=names.size)
    return positions, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), names
