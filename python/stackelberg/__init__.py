"""Stackelberg reward shaping (arXiv 2602.02572) on NumPy arrays.

From the rewards of a language model's responses to provably optimal shaped rewards:

>>> import stackelberg
>>> result = stackelberg.shape([0.1, 2.3, -0.4, 0.9], rule="hard", bound=2.0)
>>> result.shaped
array([0., 2., 0., 0.])
>>> print(f"{result.threshold:.4f}")
1.6936

`shape` applies a shaping rule, `threshold` computes the threshold m*, `follower` a model's best
response, `kl_budget` the settings that spend a KL budget, and `interval` a confidence interval for
m*. All of them take the rewards of one prompt or of many.

`Policy` loads a language model and generates answers, which rewards guide as `Guidance` says; `Reward`
scores texts. `Policy.rollout` draws samples into a `Dataset`, `train_value` and `train_reward` train heads,
and `evaluate` measures answers and compares runs.
"""

from typing import TYPE_CHECKING, Any

from ._lib import __version__

if TYPE_CHECKING:
    from ._answer import Answer, Chunk
    from ._evaluate import Evaluation, evaluate
    from ._follower import follower
    from ._guidance import Guidance
    from ._policy import Policy
    from ._prompts import Prompt
    from ._results import Follower, Interval, Kl, KlBudget, Shaped, Threshold, Utility
    from ._reward import Reward
    from ._rollouts import Dataset
    from ._shape import kl_budget, shape
    from ._stream import Stream
    from ._threshold import interval, threshold
    from ._training import Epoch, Explained, Metric, RewardTraining, ValueTraining, train_reward, train_value

__all__ = [
    "Answer",
    "Chunk",
    "Dataset",
    "Epoch",
    "Evaluation",
    "Explained",
    "Follower",
    "Guidance",
    "Interval",
    "Kl",
    "KlBudget",
    "Metric",
    "Policy",
    "Prompt",
    "Reward",
    "RewardTraining",
    "Shaped",
    "Stream",
    "Threshold",
    "Utility",
    "ValueTraining",
    "__version__",
    "evaluate",
    "follower",
    "interval",
    "kl_budget",
    "shape",
    "threshold",
    "train_reward",
    "train_value",
]

_FROM = {
    "_answer": ["Answer", "Chunk"],
    "_evaluate": ["Evaluation", "evaluate"],
    "_follower": ["follower"],
    "_guidance": ["Guidance"],
    "_policy": ["Policy"],
    "_prompts": ["Prompt"],
    "_results": ["Follower", "Interval", "Kl", "KlBudget", "Shaped", "Threshold", "Utility"],
    "_reward": ["Reward"],
    "_rollouts": ["Dataset"],
    "_shape": ["kl_budget", "shape"],
    "_stream": ["Stream"],
    "_threshold": ["interval", "threshold"],
    "_training": ["Epoch", "Explained", "Metric", "RewardTraining", "ValueTraining", "train_reward", "train_value"],
}
"""Where names are. They are imported when they are first used, so that the script `stackelberg` starts without NumPy."""

_MODULES = {name: module for module, names in _FROM.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
