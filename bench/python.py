"""Times of the Python package on arrays of 100,000 x 10 rewards, on one thread: python bench/python.py

Needs the package and NumPy. `.ci/python` runs it.
"""

import platform
import statistics
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


main()
