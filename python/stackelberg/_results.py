"""What the functions return.

A number per prompt has shape (P,), or () if the rewards of one prompt were passed as (M,). A number
per response has the form of the rewards: the same shape, or a list of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import _lib
from ._rows import Rows
from ._types import Array

S = TypeVar("S")
"""Numbers of responses: an array, or a list with an array per row."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Result:
    """Base of results."""

    groups: NDArray[Any] | None = None
    """The group of each prompt, in the order in which they first appear; None without groups."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Threshold(_Result):
    """The threshold m* of each prompt, with a certificate."""

    threshold: Array
    """m*, in reward units. NaN, like all fields, for rules without a threshold."""
    residual: Array
    """How exactly m* solves its equation F(m*) = 0, in reward units: zero up to rounding."""
    lowest_rewarded: Array
    """The smallest reward at or above the threshold."""
    highest_unrewarded: Array
    """The largest reward below it; NaN if there is none."""
    above: NDArray[np.int64]
    """Number of responses at or above the threshold; 0 for rules without one."""
    mass: Array
    """The base policy's mass on these responses."""
    exponent: Array
    """The exponent c = B/beta, in nats."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Interval(_Result):
    """A confidence interval of each prompt's threshold."""

    level: float
    """Simulated worst-case coverage, below the nominal level."""
    low: Array
    """Low end, in reward units. NaN if there is no interval: all rewards are equal, the rule has no
    threshold, or weights or logits are given."""
    high: Array
    """High end; infinity if the samples give none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Follower(_Result, Generic[S]):
    """The best response of a model to shaped rewards, and its statistics."""

    policy: S
    """Its mass on each response; sums to 1 per prompt."""
    utility: Array
    """Its expected reward (not shaped), in reward units."""
    kl: Array
    """Its KL from the base policy, in nats."""
    ess: Array
    """Its effective sample size, between 1 and the number of responses."""


@dataclass(frozen=True, eq=False, kw_only=True)
class KlBudget(_Result):
    """Settings that spend a KL budget."""

    bound: Array
    """The bound B to shape with, in reward units; NaN for rules without a bound. If all rewards of a
    prompt are equal, so that every bound does, it is the default."""
    strength: Array
    """The strength 1/beta, in 1/reward units: as given for rules with a bound, else solved for."""
    kl: Array
    """The KL of the follower under these settings, in nats: at most the budget."""
    saturated: NDArray[np.bool_]
    """Whether the rule cannot spend the budget: every bound (or strength) stays within it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Utility:
    """Expected rewards, in reward units."""

    base: Array
    """Of the base policy."""
    raw: Array
    """Of the follower of the raw rewards."""
    shaped: Array
    """Of the follower of the shaped rewards."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Kl:
    """KL from the base policy, in nats."""

    raw: Array
    """Of the follower of the raw rewards."""
    shaped: Array
    """Of the follower of the shaped rewards."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Shaped(Threshold, Generic[S]):
    """Shaped rewards.

    `utility`, `kl`, `ess`, `interval`, `warnings`, `fused` and `chosen` are computed when one of them
    is first read, or with the rest if a KL budget is given.
    """

    shaped: S
    """The shaped rewards."""
    bound: Array
    """The bound B in effect, in reward units; NaN for rules without one."""
    strength: Array
    """The strength 1/beta in effect, in 1/reward units."""
    _rows: Rows = field(repr=False)
    _settings: Mapping[str, Any] = field(repr=False)
    _threads: int = field(repr=False)
    _found: _lib.Reports | None = field(repr=False)

    @cached_property
    def utility(self) -> Utility:
        """Expected rewards of the base policy and of the followers, in reward units."""
        return Utility(**self._rows.all_prompts(self._report["utility"]))

    @cached_property
    def kl(self) -> Kl:
        """KL of the followers from the base policy, in nats."""
        return Kl(**self._rows.all_prompts(self._report["kl"]))

    @cached_property
    def ess(self) -> Array:
        """Effective sample size of the follower of the shaped rewards."""
        return self._rows.prompts(self._report["ess"])

    @cached_property
    def interval(self) -> Interval:
        """Confidence interval of the threshold."""
        return interval_of(self._rows, self._report["interval"])

    @cached_property
    def warnings(self) -> list[tuple[str, ...]]:
        """Reasons to doubt the result: one tuple per prompt, also for rewards (M,)."""
        return self._report["warnings"]

    @cached_property
    def fused(self) -> S | None:
        """A decoding step's scores, logits + strength * shaped; None without logits."""
        return None if self._rows.logits is None else self._rows.responses(self._report["fused"])

    @cached_property
    def chosen(self) -> NDArray[np.int64] | None:
        """The column of the largest fused score, or with groups its position; None without logits."""
        if self._rows.logits is None:
            return None
        return self._rows.prompts(self._rows.columns(self._report["chosen"]))

    @cached_property
    def _report(self) -> _lib.Reports:
        return self._found or self._rows.call(_lib.report, _lib.Settings(**self._settings), self._threads)


def interval_of(rows: Rows, found: _lib.Intervals) -> Interval:
    """The intervals of rows."""
    return Interval(
        level=found["level"], low=rows.prompts(found["low"]), high=rows.prompts(found["high"]), groups=rows.names
    )
