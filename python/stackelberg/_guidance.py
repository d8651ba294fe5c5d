"""What guides an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from ._floats import floats
from ._prompts import Prompt, Reference, reference, settings
from ._types import SupportsArray

RewardFunction: TypeAlias = Callable[[list[Prompt], list[str]], Sequence[float] | SupportsArray]
"""A function that takes prompts and answers and returns one reward for each answer."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How a reward guides the answers of a `Policy`: the fields of a server's `guidance`.

    Fields that are None have the defaults of `stackelberg generate`. A field that the method does not
    use is an error.

    Examples
    --------
    >>> import stackelberg
    >>> stackelberg.Guidance(method="args", reward="harmless", bound=2.0).bound
    2.0
    """

    method: str | None = None
    """The decoding method: base, args, cd, best-of-n, soft-best-of-n, follower, blockwise or particles."""
    reward: Reference | RewardFunction | None = None
    """A name of the policy's rewards, a reference, an expression such as `a*0.7+b*0.3`, or a function."""
    value: Reference | None = None
    """A name of the policy's value heads, or a reference. cd, blockwise and particles use one."""
    shaping: str | None = None
    """The shaping rule."""
    strength: float | None = None
    """The guidance strength 1/beta, in 1/reward units."""
    beta: float | None = None
    """The KL coefficient, instead of the strength."""
    bound: float | None = None
    """The bound B: the largest shaped reward."""
    kl_budget: float | None = None
    """Maximum KL from the base policy in nats, instead of the bound. Per step in args and cd, per block in blockwise and particles, else per prompt."""
    alpha: float | None = None
    """Steepness of the soft rules."""
    cap: float | None = None
    """Upper limit of the rule cap, in reward units."""
    stretch: float | None = None
    """Largest factor by which the rule minmax stretches rewards."""
    ref_quantile: float | None = None
    """The quantile of the rewards that the rules par and log-sigmoid subtract."""
    budget: str | None = None
    """Which bound takes effect: paper, reference-step or reference-offline."""
    exponent_cap: float | None = None
    """Upper limit of the exponent in the budget reference-offline, in nats."""
    candidates: int | None = None
    """Number of candidates per guided step."""
    samples: int | None = None
    """Number of answers to choose from, of continuations of a block, or of particles."""
    block: int | None = None
    """Number of tokens of a block."""
    keep: str | None = None
    """Which continuation of a block is kept: best or draw."""
    token_price: float | None = None
    """Price of a token in reward units, at which drawing samples stops."""
    reject: float | None = None
    """The fraction of samples that best-of-n drops at the end of each block."""
    score_every: int | None = None
    """Number of tokens of a segment."""
    entropy_gate: float | None = None
    """Least entropy over the candidates at which rewards are computed, in nats."""
    skip: bool | None = None
    """Whether rewards are left out where they provably cannot change the choice."""
    policy_temperature: float | None = None
    """Temperature of the log-probabilities to which cd adds values."""
    beams: int | None = None
    """Number of beams of cd."""
    length_penalty: float | None = None
    """Exponent of the length by which beams are ranked."""
    perturbation: str | None = None
    """What is done to rewards before they are shaped: noise=STD, random=STD or reversed."""
    trace: bool = False
    """Whether answers have their steps, as `stackelberg generate --trace` writes them."""


def encoded(guidance: Guidance | Mapping[str, Any] | None) -> tuple[str, tuple[str, RewardFunction] | None]:
    """Guidance as JSON, and its reward with a name if it is a function."""
    if guidance is None:
        given: dict[str, Any] = {"method": "base"}
    elif isinstance(guidance, Guidance):
        given = {field.name: getattr(guidance, field.name) for field in fields(guidance)}
    elif isinstance(guidance, Mapping):
        given = dict(guidance)
    else:
        raise TypeError(f"guidance must be a Guidance or a dictionary, not {type(guidance).__name__}")
    function = None
    if callable(given.get("reward")):
        reward = given.pop("reward")
        name = str(getattr(reward, "__name__", type(reward).__name__))
        function = (name, checked(name, reward))
    for name in ("reward", "value"):
        if given.get(name) is not None:
            given[name] = reference(f"guidance.{name}", given[name])
    return settings(given), function


def checked(name: str, function: RewardFunction) -> RewardFunction:
    """The function, with its rewards checked and as a list."""

    def rewards(prompts: list[Prompt], answers: list[str]) -> Sequence[float]:
        count = len(answers)
        returned = function(prompts, answers)
        if returned is None:
            raise TypeError(f"{name} returned None: it must return one number for each answer")
        found = floats(f"rewards of {name}", returned)
        if found.array.ndim != 1:
            raise ValueError(f"rewards of {name} must have shape ({count},), not {found.array.shape}")
        if found.array.size != count:
            raise ValueError(f"{name} returned {found.array.size} rewards for {count} answers")
        wrong = np.flatnonzero(~np.isfinite(found.array))
        if wrong.size:
            first = int(wrong[0])
            value = float(found.array[first])
            if found.none is not None and found.none[first]:
                raise TypeError(f"rewards[{first}] of {name} is None: it must be a finite number")
            words = "NaN" if np.isnan(value) else str(value)
            raise ValueError(f"rewards[{first}] of {name} is {words}: it must be a finite number")
        numbers: list[float] = found.array.astype(np.float64).tolist()
        return numbers

    return rewards
