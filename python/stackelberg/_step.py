"""The arithmetic of one decoding step for engines other than our own: candidates' logits and rewards to fused scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._shape import shape
from ._types import Array, Rule

BUDGET = 0.3
"""KL budget of a step in nats, where neither a bound nor a strength is given: the default of `stackelberg generate`."""

NAMES = frozenset(Rule.__annotations__)


def check_names(given: Mapping[str, Any]) -> None:
    """Refuse settings that a rule does not have.

    Raises
    ------
    TypeError
        A setting is unknown.
    """
    if unknown := sorted(set(given) - NAMES):
        raise TypeError(f"unknown setting {unknown[0]!r}: known are {', '.join(sorted(NAMES))}")


def rule(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a step's rule, checked, with the budget that is in force if none of them limits the step.

    Raises
    ------
    ValueError, TypeError
        A setting is unknown or outside its range.
    """
    check_names(given)
    found = {name: value for name, value in given.items() if value is not None}
    if not found.keys() & {"strength", "beta", "bound", "kl_budget"}:
        found["kl_budget"] = BUDGET
    shape([0.0, 1.0], logits=[0.0, 0.0], **found)
    return found


def fused(logits: NDArray[Any], rewards: NDArray[Any], rule: Mapping[str, Any], temperature: float = 1.0) -> Array:
    """Scores of a step's candidates: f = l + lambda s, with s the rewards shaped over the candidates.

    The prior of the threshold is softmax(l). With a KL budget it is softmax(l / temperature), so that the budget holds where
    the token is drawn (arXiv 2602.02572, section 4, and the KL budget of `shape`).

    Parameters
    ----------
    logits, rewards
        Logits l and rewards r of the candidates, shape (B, k). Minus infinity masks a candidate.
    rule
        Settings of `shape`.
    temperature
        The temperature that the token is drawn at.

    Returns
    -------
    ndarray
        The scores f, shape (B, k), float64.
    """
    logits = np.asarray(logits, np.float64)
    if "kl_budget" not in rule:
        temperature = 1.0
    settings = dict(rule)
    # At the temperature T the follower of s has the exponent s lambda / T.
    if "beta" in settings:
        settings["beta"] *= temperature
    else:
        settings["strength"] = settings.get("strength", 1.0) / temperature
    found = shape(rewards, logits=logits / temperature, **settings)
    return logits + (found.strength * temperature)[:, None] * found.shaped
