"""Shaped rewards for the trainers of TRL: GRPO and RLOO.

`ShapedRewards` comes before a trainer in a class of your own. The trainer's reward functions and models stay as they are; their
weighted sum is shaped for each prompt's group of completions, with the threshold m* of that group:

    from stackelberg.trl import ShapedRewards
    from trl import GRPOConfig, GRPOTrainer

    class ShapedGRPO(ShapedRewards, GRPOTrainer):
        pass

    trainer = ShapedGRPO(..., args=GRPOConfig(scale_rewards="none", ...), shaping={"rule": "srs", "bound": 2.0, "beta": 0.5})

A reward function cannot do this: it sees the completions of one process, and a group may lie in two. `pip install
'stackelberg[trl]'` installs TRL; this file needs NumPy only.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._results import Shaped
from ._shape import shape
from ._step import check_names
from ._types import Array


class ShapedRewards:
    """Shapes the rewards of a trainer of TRL where they are gathered from all processes.

    With r the weighted sum of the reward functions, the trainer gets s = shape(r) of each prompt's group. Completions for which
    all functions return None have no part in m* and no advantage. The trainer's log has the rewards of each function as they
    are, `reward` (the mean of s), and `shaping/threshold` and `shaping/kl` (the predicted KL of the follower from the policy that
    sampled, nats): means over the groups of a process's batch.

    Parameters
    ----------
    shaping
        Settings of `stackelberg.shape`: `rule`, `strength` or `beta`, `bound`, `alpha`, `kl_budget` and so on. The beta of the
        shaping is the KL coefficient that the threshold assumes; the trainer's own is a field of its config. Default: `srs` with
        bound 2 and strength 1.
    args, kwargs
        As for the trainer.

    Raises
    ------
    ValueError, TypeError
        A setting of the shaping is unknown or outside its range; the trainer normalizes each reward function by itself
        (`multi_objective_aggregation="normalize_then_sum"`), so that there is no sum to shape. While it trains: a reward is
        infinite.
    RuntimeError
        The trainer is none of GRPO and RLOO of TRL 1.16, or its groups are not the completions of one prompt each.

    Warns
    -----
    UserWarning
        The trainer divides by a standard deviation (`scale_rewards="group"` or `"batch"`, `normalize_advantages`), which cancels
        the scale of the shaped rewards: the bound then only moves the threshold.

    References
    ----------
    arXiv 2602.02572; Shao et al. 2024 (GRPO, arXiv 2402.03300); Ahmadian et al. 2024 (RLOO, arXiv 2402.14740).
    """

    def __init__(self, *args: Any, shaping: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.shaping = settings(shaping or {})
        super().__init__(*args, **kwargs)
        if not all(hasattr(self, name) for name in ("reward_weights", "num_generations", "num_generations_eval", "_log_metric")):
            raise RuntimeError("ShapedRewards comes before GRPOTrainer or RLOOTrainer of TRL 1.16 or newer in a class")
        trainer: Any = self
        config = trainer.args
        if getattr(config, "multi_objective_aggregation", "sum_then_normalize") != "sum_then_normalize":
            raise ValueError("multi_objective_aggregation must be 'sum_then_normalize': the weighted sum of the rewards is shaped")
        scale = getattr(config, "scale_rewards", "none")
        if scale not in ("none", False):
            _warn(f"scale_rewards={scale!r}", "scale_rewards='none'")
        if getattr(config, "normalize_advantages", False):
            _warn("normalize_advantages=True", "normalize_advantages=False")
        # The shaped rewards are a further column, the only one with a weight: the others are for the log.
        self._given_weights = trainer.reward_weights
        zeros = trainer.reward_weights * 0
        trainer.reward_weights = zeros.new_tensor([*zeros.tolist(), 1.0])

    def _calculate_rewards(self, inputs: Any, prompts: Any, *args: Any, **kwargs: Any) -> Any:
        """Rewards of all processes, shape (N, functions + 1): those of the functions, and the shaped ones."""
        trainer: Any = self
        parent: Any = super()
        rewards = parent._calculate_rewards(inputs, prompts, *args, **kwargs)
        numbers = trainer.accelerator.gather(trainer.reward_weights.new_tensor(identities(prompts)).to(rewards.device))
        size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        total = sums(_array(rewards), _array(self._given_weights))
        shaped, found = shaped_groups(total, _array(numbers), size, self.shaping)
        if found is not None:
            trainer._log_metric("shaping/threshold", float(np.mean(found.threshold)))
            trainer._log_metric("shaping/kl", float(np.mean(found.kl.shaped)))
        column = rewards.new_tensor(shaped.tolist())[:, None]
        joined = rewards.new_empty(len(rewards), rewards.shape[1] + 1)
        joined[:, :-1], joined[:, -1:] = rewards, column
        return joined


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the shaping, checked.

    Raises
    ------
    ValueError, TypeError
        A setting is unknown or outside its range.
    """
    check_names(given)
    shape([0.0, 1.0], **given)
    return dict(given)


def identities(prompts: Sequence[Any]) -> list[int]:
    """A number for each prompt, below 2^24 so that a float32 holds it: the same for equal texts or messages in all processes."""
    written = [json.dumps(prompt, sort_keys=True, default=lambda item: type(item).__name__) for prompt in prompts]
    return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:3], "big") for text in written]


def sums(rewards: NDArray[Any], weights: NDArray[Any]) -> Array:
    """Weighted sums of reward functions, (N, F) to (N,), without those that are NaN (None); NaN where all are."""
    missing = np.isnan(rewards)
    total: Array = np.where(missing, 0.0, rewards * weights).sum(1)
    total[missing.all(1)] = np.nan
    return total


def shaped_groups(
    rewards: NDArray[Any], prompts: NDArray[Any], size: int, shaping: Mapping[str, Any]
) -> tuple[Array, Shaped[Array] | None]:
    """Shape rewards group by group: each `size` rewards in a row are those of one prompt.

    Parameters
    ----------
    rewards
        Rewards, shape (N,). NaN where there is none.
    prompts
        The identity of each completion's prompt, shape (N,).
    size
        Number of completions in a group.
    shaping
        Settings of `shape`.

    Returns
    -------
    tuple
        Shaped rewards, shape (N,), NaN where there is no reward; and the results of the groups that have rewards, None if no
        group has.

    Raises
    ------
    RuntimeError
        N is no multiple of the size, or a group has completions of several prompts.
    ValueError
        As in `shape`.
    """
    if len(rewards) % size or len(prompts) != len(rewards):
        raise RuntimeError(f"{len(rewards)} rewards of {len(prompts)} prompts are no groups of {size}")
    if wrong := np.flatnonzero((prompts.reshape(-1, size) != prompts.reshape(-1, size)[:, :1]).any(1)).tolist():
        raise RuntimeError(f"group {wrong[0]} of the gathered rewards has completions of several prompts: they cannot be shaped")
    shaped = np.full(len(rewards), np.nan)
    kept = np.flatnonzero(~np.isnan(rewards))
    if not kept.size:
        return shaped, None
    found = shape(rewards[kept], groups=kept // size, **shaping)
    shaped[kept] = found.shaped
    return shaped, found


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu() if hasattr(tensor, "detach") else tensor, np.float64)


def _warn(what: str, instead: str) -> None:
    warnings.warn(
        f"{what} divides the shaped rewards by their standard deviation, so that the bound only moves the threshold: use {instead}",
        stacklevel=3,
    )
