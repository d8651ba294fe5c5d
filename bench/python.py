"""Times of the Python package on arrays of 100,000 x 10 rewards, on one thread: python bench/python.py

Needs the package and NumPy. `.ci/python` runs it. With the argument `reference`, which needs SciPy, it also times the method of the
paper's Python reference on 10,000 prompts: bisection with `scipy.optimize.bisect`, prompt by prompt.
"""

import platform
import statistics
import sys
import time

import numpy as np

import stackelberg

REWARDS = np.random.default_rng(0).normal(size=(100_000, 10))
RUNS = {
    "threshold": lambda: stackelberg.threshold(REWARDS),
    "shape": lambda: stackelberg.shape(REWARDS),
    "shape, rule hard": lambda: stackelberg.shape(REWARDS, rule="hard"),
    "shape, float32": lambda: stackelberg.shape(REWARDS.astype(np.float32)),
    "shape, transposed": lambda: stackelberg.shape(np.asfortranarray(REWARDS)),
    "shape, groups": lambda: stackelberg.shape(REWARDS.reshape(-1), groups=np.repeat(np.arange(100_000), 10)),
    "shape with utility, KL, interval": lambda: stackelberg.shape(REWARDS).kl,
}


def reference(rewards, bound=2.0, beta=1.0, alpha=1.0):
    """Shaped rewards of one prompt."""
    from scipy.optimize import bisect

    def excess(m):
        return np.mean(np.where(rewards >= m, np.exp(bound / beta), 1.0) * (rewards - m))

    threshold = bisect(excess, rewards.min() - 10, rewards.max() + 10)
    return bound / (1 + np.exp(-alpha * (rewards - threshold)))


def compare():
    """The paper's method against `shape`, on 10,000 prompts."""
    rewards = REWARDS[:10_000]
    shaped = stackelberg.shape(rewards).shaped
    assert np.allclose([reference(row) for row in rewards[:100]], shaped[:100], atol=1e-9)
    theirs = min(seconds(lambda: [reference(row) for row in rewards]) for _ in range(3))
    ours = min(seconds(lambda: stackelberg.shape(rewards)) for _ in range(9))
    print(f"10,000 prompts: reference {theirs * 1e3:.0f} ms, shape {ours * 1e3:.1f} ms, ratio {theirs / ours:.0f}")


def seconds(run):
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main():
    print(f"stackelberg {stackelberg.__version__}, Python {platform.python_version()}, NumPy {np.__version__}")
    for name, run in RUNS.items():
        took = [seconds(run) * 1e3 for _ in range(9)]
        print(f"{name:<34} {min(took):7.1f} ms, median {statistics.median(took):.1f} ms")
    began = time.perf_counter()
    for _ in range(10_000):
        stackelberg.shape([0.1, 2.3, -0.4, 0.9])
    print(f"{'shape, one prompt of 4 rewards':<34} {(time.perf_counter() - began) * 100:7.1f} us")
    if sys.argv[1:] == ["reference"]:
        compare()


main()
