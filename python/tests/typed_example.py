"""A program that uses the package with types. `test_types` checks it strictly and runs it."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

import stackelberg
from stackelberg import Answer, Dataset, Evaluation, Follower, Guidance, Policy, Reward, Shaped, Threshold

Array = NDArray[np.float64]


def advantages(rewards: NDArray[np.float32]) -> Array:
    """Shaped rewards of each prompt, centred."""
    result = stackelberg.shape(rewards, rule="srs", bound=2.0, threads=2)
    mean: Array = result.shaped.mean(axis=1, keepdims=True)
    return result.shaped - mean


def short(prompts: list[stackelberg.Prompt], answers: list[str]) -> list[float]:
    """A reward of one's own."""
    return [-float(len(answer)) for answer in answers]


def generated(policy: Policy) -> list[str]:
    """Answers of a policy, whole and streamed."""
    one: Answer = policy.generate("Hello!", max_tokens=4)
    message = [{"role": "user", "content": "Hello!"}]
    same: Answer = policy.generate(message, max_tokens=4)
    guidance = Guidance(method="best-of-n", reward=short, samples=2)
    several: list[Answer] = policy.generate(["Hello!", "Hi!"], guidance=guidance, max_tokens=4)
    each: list[list[Answer]] = policy.generate(["Hello!"], n=2, temperature=1.0, max_tokens=4)
    streamed: str = "".join(chunk.text for chunk in policy.stream("Hello!", max_tokens=4))
    scores: Array = Reward("sentiment", policy).score(["Hello!"], [one.text])
    assert one.text == same.text == streamed and len(each[0]) == 2 and scores.shape == (1,)

    policy.generate("Hello!", max_tokens=4, guidance={"reward": "sentiment"})
    try:
        policy.generate("Hello!", max_token=4)  # type: ignore[call-overload]
    except TypeError:
        pass
    return [answer.text for answer in several]


def measured(policy: Policy, folder: str) -> list[dict[str, object]]:
    """Rollouts, a head that is trained on them, and answers that are measured."""
    dataset: Dataset = policy.rollout(["Hello!", "Hi!"], out=folder, reward=short, samples=3, max_tokens=4)
    columns = dataset.columns()
    shaped: Shaped[Array] = stackelberg.shape(columns["reward"], groups=columns["prompt_id"])
    lengths: list[int] = [states.shape[0] for states in dataset.hidden()]
    assert shaped.shaped.size == len(lengths) == len(dataset.records())
    answers: list[Answer] = policy.generate(["Hello!", "Hi!"], max_tokens=4)
    found: Evaluation = stackelberg.evaluate({"base": answers, "same": answers}, embedder=None)
    return [dict(row) for row in found.comparisons]


def main() -> None:
    with Policy() as policy:
        assert len(generated(policy)) == 2
        with TemporaryDirectory() as folder:
            assert all(row["mean"] == 0 for row in measured(policy, folder) if row["metric"] != "tokens/s")
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
