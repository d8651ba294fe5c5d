"""Shaped rewards, and the settings that spend a KL budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from . import _lib
from ._read import read
from ._results import KlBudget, Shaped
from ._types import Array, Groups, Missing, Ragged, Shaping, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def shape(rewards: Values, **settings: Unpack[Shaping]) -> Shaped[Array]: ...
@overload
def shape(rewards: Ragged, **settings: Unpack[Shaping]) -> Shaped[list[Array]]: ...
def shape(
    rewards: Values | Ragged,
    *,
    rule: str = "srs",
    strength: float | None = None,
    beta: float | None = None,
    bound: float | None = None,
    alpha: float | None = None,
    cap: float | None = None,
    stretch: float | None = None,
    ref_quantile: float | None = None,
    budget: str | None = None,
    exponent_cap: float | None = None,
    kl_budget: float | None = None,
    level: float | None = None,
    weights: Values | Ragged | None = None,
    logits: Values | Ragged | None = None,
    groups: Groups | None = None,
    missing: Missing = "error",
    threads: int = 1,
) -> Shaped[Any]:
    """Shape the rewards of each prompt's responses.

    The rules, with m* the threshold (Theorem 1), and min, range, mean, std and ref (a quantile)
    those of the prompt's rewards:

    ============== ==========================================================================
    `raw`          s = r
    `hard`         s = B where r >= m*, else 0: the best rule at a given bound (Theorem 1)
    `srs`          s = B sigmoid(alpha (r - m*)): Stackelberg reward shaping
    `srs-std`      s = B sigmoid(alpha (r - m*) / max(std, 1e-6))
    `mean-soft`    s = B sigmoid(alpha (r - mean))
    `minmax`       s = B' (r - min) / max(range, 1e-6), B' = min(B, stretch range)
    `meanstd`      s = (r - mean) / max(std, 1e-6)
    `cap`          s = clamp(r - min, 0, cap)
    `log-sigmoid`  s = ln sigmoid(r - ref)
    `par`          s = sigmoid(r - ref)
    ============== ==========================================================================

    Parameters
    ----------
    rewards
        The rewards of one prompt's responses, shape (M,); of many prompts, shape (P, M) or a list
        of P rows of any lengths; or, with `groups`, shape (N,). All computations are in float64.
    rule
        The shaping rule. A rule ignores the settings that it does not use, but all must be valid.
    strength, beta
        The guidance strength lambda = 1/beta, in 1/reward units, or the KL coefficient beta. Give
        one; default: strength 1.
    bound
        The bound B: the largest shaped reward, in reward units. Default: 2.
    alpha
        Steepness of `srs` and `mean-soft`, in 1/reward units, and of `srs-std`, without unit.
        Default: 1.
    cap
        The largest shaped reward of `cap`, in reward units. Default: 1.
    stretch
        The largest factor by which `minmax` stretches rewards. Default: 1.01.
    ref_quantile
        The quantile of the rewards that is ref of `par` and `log-sigmoid`. Default: 0.5.
    budget
        How the bound takes effect: `paper` (as given, the default), `reference-step` or
        `reference-offline` (capped as in the paper's public code).
    exponent_cap
        The largest exponent B/beta with the budget `reference-offline`, in nats. Default: 2.
    kl_budget
        The largest KL of each prompt's follower from the base policy, in nats, instead of a bound;
        see `kl_budget`.
    level
        Nominal level of the confidence interval, between 0.5 and 0.99. Default: 0.9.
    weights
        The base policy's weight on each response, of any scale, in the form of the rewards, or (M,)
        for all prompts. Without weights and logits, the responses are samples of the base policy,
        each of mass 1/M.
    logits
        The logits of a decoding step's candidates, in the form of the rewards. Minus infinity masks
        a candidate.
    groups
        The prompt of each reward, as an id of any kind, shape (N,). Rewards with the same id are
        one prompt, wherever they are.
    missing
        What happens to rewards that are NaN or None: `error`, or `drop`, which leaves the response
        out. Its shaped reward is NaN. At least one reward of each prompt is needed.
    threads
        The most threads to use. Python's global lock is released.

    Returns
    -------
    Shaped
        Shaped rewards in the form of the rewards, and for each prompt the threshold with its
        certificate. Utility, KL, effective sample size, interval and warnings are computed when
        they are read, from a copy of the rewards.

    Raises
    ------
    ValueError
        A reward is NaN or infinite, a setting is outside its range, or shapes do not agree. The
        message names the row or the group, and the column.
    TypeError
        Rewards, or other numbers, are not numbers.

    References
    ----------
    arXiv 2602.02572: Theorem 1 (`hard`), Stackelberg reward shaping (`srs`), and the paper's
    baselines. Wang et al. 2024 (`log-sigmoid`), Fu et al. 2025 (`par`).

    Examples
    --------
    >>> import numpy as np
    >>> import stackelberg
    >>> rewards = np.array([[0.1, 2.3, -0.4, 0.9], [1.0, 2.0, 1.5, 1.1]])
    >>> result = stackelberg.shape(rewards, rule="hard", beta=1.0, bound=2.0)
    >>> result.shaped
    array([[0., 2., 0., 0.],
           [0., 2., 0., 0.]])
    >>> result.threshold.round(4)
    array([1.6936, 1.769 ])
    >>> result.kl.shaped.round(4)
    array([0.468, 0.468])

    A list of rows gives a list of rows:

    >>> stackelberg.shape([[0.1, 2.3, -0.4, 0.9], [1.0, 2.0]], rule="hard").shaped
    [array([0., 2., 0., 0.]), array([0., 2.])]

    Rewards in any order, with their prompts:

    >>> stackelberg.shape([0.1, 1.0, 2.3, 2.0], groups=["a", "b", "a", "b"], rule="hard").shaped
    array([0., 0., 2., 2.])
    """
    settings: dict[str, Any] = {
        "rule": rule,
        "strength": strength,
        "beta": beta,
        "bound": bound,
        "alpha": alpha,
        "cap": cap,
        "stretch": stretch,
        "ref_quantile": ref_quantile,
        "budget": budget,
        "exponent_cap": exponent_cap,
        "kl_budget": kl_budget,
        "level": level,
    }
    rows = read(rewards, weights=weights, logits=logits, groups=groups, missing=missing).kept()
    # The settings for a KL budget cost more than all statistics, so these are computed with them.
    report = rows.call(_lib.report, _lib.Settings(**settings), threads) if kl_budget is not None else None
    found = report["shape"] if report else rows.call(_lib.shape, _lib.Settings(**settings), threads)
    return Shaped(
        shaped=rows.responses(found["shaped"]),
        bound=rows.prompts(found["bound"]),
        strength=rows.prompts(found["strength"]),
        **rows.all_prompts(found["thresholds"]),
        groups=rows.names,
        _rows=rows,
        _settings=settings,
        _threads=threads,
        _found=report,
    )


def kl_budget(
    rewards: Values | Ragged,
    nats: float,
    *,
    rule: str = "srs",
    strength: float | None = None,
    beta: float | None = None,
    alpha: float | None = None,
    cap: float | None = None,
    stretch: float | None = None,
    ref_quantile: float | None = None,
    budget: str | None = None,
    exponent_cap: float | None = None,
    weights: Values | Ragged | None = None,
    logits: Values | Ragged | None = None,
    groups: Groups | None = None,
    missing: Missing = "error",
    threads: int = 1,
) -> KlBudget:
    """Find the settings whose follower stays within a KL budget.

    For rules with a bound, this is the largest bound at the given strength. For rules without one,
    it is the largest strength. KL can be smaller than the budget, since it jumps where the set of
    rewarded responses changes.

    Parameters
    ----------
    rewards, rule, strength, beta, alpha, cap, stretch, ref_quantile, budget, exponent_cap, weights, logits, groups, missing, threads
        As in `shape`.
    nats
        The KL budget of each prompt, KL(rho_s || rho) <= nats.

    Returns
    -------
    KlBudget
        For each prompt the bound, the strength, the KL that they reach, and whether the budget
        cannot be spent.

    Raises
    ------
    ValueError
        As in `shape`; the budget is negative or infinite; the strength is 0 for a rule with a
        bound.
    TypeError
        As in `shape`.

    Examples
    --------
    >>> import stackelberg
    >>> found = stackelberg.kl_budget([0.1, 2.3, -0.4, 0.9], 0.2)
    >>> print(f"bound {found.bound:.4f}, KL {found.kl:.4f}")
    bound 3.0785, KL 0.2000
    """
    settings = _lib.Settings(
        rule=rule,
        strength=strength,
        beta=beta,
        alpha=alpha,
        cap=cap,
        stretch=stretch,
        ref_quantile=ref_quantile,
        budget=budget,
        exponent_cap=exponent_cap,
        kl_budget=nats,
    )
    rows = read(rewards, weights=weights, logits=logits, groups=groups, missing=missing)
    found = rows.call(_lib.kl_budget, settings, threads)
    return KlBudget(**rows.all_prompts(found), groups=rows.names)
