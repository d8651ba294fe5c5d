"""Random groups of rewards, and comparison to the last bit."""

import numpy as np


def groups(count, seed, most=40):
    """Rewards of 1 to `most` responses each: spread out, tied, far from zero, or of any scale; some are all equal."""
    rng = np.random.default_rng(seed)

    def one():
        size = rng.integers(1, most, endpoint=True)
        kind = rng.integers(5)
        if kind == 0:
            return rng.uniform(-5, 5, size)
        if kind == 1:
            return rng.integers(-3, 3, size, endpoint=True).astype(float)
        if kind == 2:
            return rng.normal(size=size) + rng.uniform(-1e9, 1e9)
        if kind == 3:
            return rng.uniform(-1, 1, size) * 10.0 ** rng.integers(-300, 300)
        return np.full(size, rng.normal())

    return [one() for _ in range(count)]


def bits(numbers):
    """The bits of numbers. All NaNs are alike."""
    numbers = np.array(numbers, dtype=np.float64)
    numbers[np.isnan(numbers)] = np.nan
    return numbers.view(np.int64).tolist()


def same(found, expected):
    """Whether arrays of any shape, or lists of rows, are equal to the last bit."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return np.shape(found) == np.shape(expected) and bits(found) == bits(expected)
