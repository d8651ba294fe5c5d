"""The best response of a model to shaped rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from . import _lib
from ._read import read
from ._results import Follower
from ._types import Array, Groups, Missing, Ragged, Response, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def follower(rewards: Values, shaped: Values, **settings: Unpack[Response]) -> Follower[Array]: ...
@overload
def follower(rewards: Ragged, shaped: Ragged, **settings: Unpack[Response]) -> Follower[list[Array]]: ...
def follower(
    rewards: Values | Ragged,
    shaped: Values | Ragged,
    *,
    strength: float | None = None,
    beta: float | None = None,
    weights: Values | Ragged | None = None,
    logits: Values | Ragged | None = None,
    groups: Groups | None = None,
    missing: Missing = "error",
    threads: int = 1,
) -> Follower[Any]:
    """Compute the best response of a model to shaped rewards: rho_s(y) proportional to rho(y) exp(s(y) / beta).

    Parameters
    ----------
    rewards, weights, logits, groups, missing, threads
        As in `shape`.
    shaped
        The shaped rewards s that the model is shown, in the form of the rewards: those of `shape`,
        or any others.
    strength, beta
        The guidance strength 1/beta, in 1/reward units, or the KL coefficient beta. Give one;
        default: strength 1.

    Returns
    -------
    Follower
        The policy, in the form of the rewards (NaN where a reward was dropped), and for each prompt
        its expected reward, its KL from the base policy in nats, and its effective sample size.

    Raises
    ------
    ValueError, TypeError
        As in `shape`; a shaped reward is not finite.

    References
    ----------
    arXiv 2602.02572: the follower's best response under a KL penalty with coefficient beta.

    Examples
    --------
    >>> import stackelberg
    >>> found = stackelberg.follower([1.0, 2.0], shaped=[0.0, 5.0], beta=1.0, weights=[0.9, 0.1])
    >>> found.policy.round(4)
    array([0.0572, 0.9428])
    >>> print(f"utility {found.utility:.4f}, KL {found.kl:.4f}")
    utility 1.9428, KL 1.9578
    """
    rows = read(rewards, weights=weights, logits=logits, shaped=shaped, groups=groups, missing=missing)
    found = rows.call(_lib.follower, _lib.Settings(strength=strength, beta=beta), threads)
    return Follower(
        policy=rows.responses(found["policy"]),
        utility=rows.prompts(found["utility"]),
        kl=rows.prompts(found["kl"]),
        ess=rows.prompts(found["ess"]),
        groups=rows.names,
    )
