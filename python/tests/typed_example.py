"""A program that uses the package with types. `test_types` checks it strictly and runs it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import stackelberg
from stackelberg import Follower, Shaped, Threshold

Array = NDArray[np.float64]


def advantages(rewards: NDArray[np.float32]) -> Array:
    """Shaped rewards of each prompt, centred."""
    result = stackelberg.shape(rewards, rule="srs", bound=2.0, threads=2)
    mean: Array = result.shaped.mean(axis=1, keepdims=True)
    return result.shaped - mean


def main() -> None:
    grid = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    centred: Array = advantages(grid)
    rows: Shaped[list[Array]] = stackelberg.shape([[0.1, 2.0], [0.5, None, 1.5]], missing="drop")
    lengths: list[int] = [row.size for row in rows.shaped]
    flat: Shaped[Array] = stackelberg.shape([0.1, 1.0, 2.3, 2.0], groups=["a", "b", "a", "b"])
    one: Threshold = stackelberg.threshold([0.1, 2.3])
    response: Follower[Array] = stackelberg.follower(grid, advantages(grid), beta=0.5)
    kl: Array = flat.kl.shaped
    assert centred.shape == response.policy.shape and lengths == [2, 3]
    assert kl.shape == (2,) and 0.1 < float(one.threshold) < 2.3

    # A type checker refuses these. Each comment is needed, or the check fails.
    try:
        stackelberg.shape([0.1, "b"])  # type: ignore[list-item]
    except TypeError:
        pass
    try:
        stackelberg.shape([0.1], missing="skip")  # type: ignore[call-overload]
    except ValueError:
        pass
    wrong: Array = rows.shaped  # type: ignore[assignment]
    assert isinstance(wrong, list)


if __name__ == "__main__":
    main()
