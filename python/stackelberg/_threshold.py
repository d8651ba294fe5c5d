"""The threshold m*, and its confidence interval."""

from __future__ import annotations

from . import _lib
from ._read import read
from ._results import Interval, Threshold, interval_of
from ._types import Groups, Missing, Ragged, Values


def threshold(
    rewards: Values | Ragged,
    *,
    bound: float | None = None,
    strength: float | None = None,
    beta: float | None = None,
    weights: Values | Ragged | None = None,
    logits: Values | Ragged | None = None,
    groups: Groups | None = None,
    missing: Missing = "error",
    threads: int = 1,
) -> Threshold:
    """Compute the threshold m* of the optimal shaped reward in closed form.

    The optimal shaped reward with bound B is B where r >= m*, else 0 (Theorem 1). m* is the root of
    F(m) = E[w(m) (r - m)], with w(m) = exp(B/beta) where r >= m, else 1, and it is also the
    expected reward of the follower.

    Parameters
    ----------
    rewards, weights, logits, groups, missing, threads
        As in `shape`. Arrays of float32 and float64 are read in place, whatever their strides.
    bound
        The bound B, in reward units. Default: 2.
    strength, beta
        The guidance strength 1/beta, in 1/reward units, or the KL coefficient beta. Give one;
        default: strength 1.

    Returns
    -------
    Threshold
        For each prompt m*, in reward units, with its certificate.

    Raises
    ------
    ValueError, TypeError
        As in `shape`.

    References
    ----------
    arXiv 2602.02572, Theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> import stackelberg
    >>> rewards = np.array([[1.0, 2.0], [1.0, 3.0]])
    >>> found = stackelberg.threshold(rewards, bound=5.0, beta=1.0, weights=[0.9, 0.1])
    >>> found.threshold.round(5)
    array([1.94283, 2.88565])
    >>> found.above
    array([1, 1])
    """
    rows = read(rewards, weights=weights, logits=logits, groups=groups, missing=missing)
    found = rows.call(_lib.threshold, _lib.Settings(bound=bound, strength=strength, beta=beta), threads)
    return Threshold(**rows.all_prompts(found), groups=rows.names)


def interval(
    rewards: Values | Ragged,
    *,
    bound: float | None = None,
    strength: float | None = None,
    beta: float | None = None,
    level: float | None = None,
    groups: Groups | None = None,
    missing: Missing = "error",
    threads: int = 1,
) -> Interval:
    """Compute a confidence interval for the threshold m* of the population that the rewards were drawn from.

    The interval has the thresholds m with |mean g(m)| <= t se(m), where g_i(m) = w_i(m) (r_i - m)
    are the independent terms of the equation of m*. It exists for samples of the base policy only,
    so there are no weights and no logits.

    Parameters
    ----------
    rewards, groups, missing, threads
        As in `shape`.
    bound, strength, beta
        As in `threshold`.
    level
        Nominal level, between 0.5 and 0.99. Default: 0.9. The result has the coverage in
        the worst simulated case, which is lower.

    Returns
    -------
    Interval
        For each prompt the ends of the interval, in reward units. The high end is infinity if the
        samples give none. Both ends are NaN if all rewards of the prompt are equal.

    Raises
    ------
    ValueError, TypeError
        As in `shape`.

    References
    ----------
    arXiv 2602.02572, Theorem 1, for m*. The interval is of this project.

    Examples
    --------
    >>> import numpy as np
    >>> import stackelberg
    >>> found = stackelberg.interval(np.linspace(-1.0, 1.0, 20), bound=0.5)
    >>> print(f"level {found.level}: {found.low:.4f} to {found.high:.4f}")
    level 0.835: -0.1249 to 0.3599
    """
    rows = read(rewards, groups=groups, missing=missing)
    settings = _lib.Settings(bound=bound, strength=strength, beta=beta, level=level)
    return interval_of(rows, rows.call(_lib.interval, settings, threads))
