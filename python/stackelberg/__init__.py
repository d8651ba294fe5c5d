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
"""

from ._follower import follower
from ._lib import __version__
from ._results import Follower, Interval, Kl, KlBudget, Shaped, Threshold, Utility
from ._shape import kl_budget, shape
from ._threshold import interval, threshold

__all__ = [
    "Follower",
    "Interval",
    "Kl",
    "KlBudget",
    "Shaped",
    "Threshold",
    "Utility",
    "__version__",
    "follower",
    "interval",
    "kl_budget",
    "shape",
    "threshold",
]
