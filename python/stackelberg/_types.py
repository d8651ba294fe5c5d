"""Types of what users pass and get."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
"""Numbers of prompts or responses."""


class SupportsArray(Protocol):
    """An array, or what NumPy can see as one: a tensor on the CPU, a column of a data frame."""

    def __array__(self) -> NDArray[Any]: ...
    def __len__(self) -> int: ...


Values: TypeAlias = SupportsArray | Sequence[float | None]
"""One array: shape (M,) or (P, M)."""

Ragged: TypeAlias = Sequence[SupportsArray | Sequence[float | None]]
"""A list of rows, one per prompt, of any lengths."""

Groups: TypeAlias = SupportsArray | Sequence[Hashable]
"""The group of each reward."""

Missing: TypeAlias = Literal["error", "drop"]
"""What happens to rewards that are NaN or None."""


class Rule(TypedDict, total=False):
    """A shaping rule and its settings, as in `shape`."""

    rule: str
    strength: float | None
    beta: float | None
    bound: float | None
    alpha: float | None
    cap: float | None
    stretch: float | None
    ref_quantile: float | None
    budget: str | None
    exponent_cap: float | None
    kl_budget: float | None


class Shaping(Rule, total=False):
    """Settings of `shape`; see there."""

    level: float | None
    weights: Values | Ragged | None
    logits: Values | Ragged | None
    groups: Groups | None
    missing: Missing
    threads: int


class Response(TypedDict, total=False):
    """Settings of `follower`; see there."""

    strength: float | None
    beta: float | None
    weights: Values | Ragged | None
    logits: Values | Ragged | None
    groups: Groups | None
    missing: Missing
    threads: int
