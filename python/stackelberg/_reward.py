"""Rewards that score finished texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import _lib, _prompts
from ._policy import Policy
from ._prompts import Prompt, Reference


class Reward:
    """A reward that scores finished texts, as `stackelberg score` does.

    Parameters
    ----------
    reference
        A built-in name (see `stackelberg models`), a head (.safetensors), the folder of a reward model or
        a classifier, `program:COMMAND`, an address, or a combination such as `a*0.7+b*0.3`.
    policy
        The policy whose hidden states or tokens the reward reads. Default: the default model, which is
        loaded if the reward needs one.
    dtype
        Data type of the weights in memory: f32, bf16 (default), int8, q4 (rounded to blocks of 4
        bits), or native (the blocks of a GGUF file as they are).
    threads
        Compute threads of this process; default: all cores.

    Raises
    ------
    ValueError, OSError
        The reward is unknown, does not fit the policy, or cannot be fetched or loaded.

    Examples
    --------
    >>> import stackelberg
    >>> reward = stackelberg.Reward("sentiment")
    >>> scores = reward.score(["How was it?"] * 2, ["It was wonderful!", "It was horrible."])
    >>> bool(scores[0] > scores[1])
    True
    """

    def __init__(
        self, reference: Reference, policy: Policy | None = None, *, dtype: str | None = None, threads: int | None = None
    ) -> None:
        self.reference = _prompts.reference("reference", reference)
        self._scorer = _lib.Scorer(
            self.reference,
            policy=None if policy is None else policy._policy,
            dtype=dtype,
            threads=None if threads is None else _prompts.count("threads", threads),
        )

    def score(self, prompts: Sequence[Prompt] | None, answers: Sequence[str]) -> NDArray[np.float64]:
        """Score answers. A reward does not depend on the other answers.

        Parameters
        ----------
        prompts
            The prompt of each answer, a text or messages; None scores the answers as texts of their own.
        answers
            The answers, N of them.

        Returns
        -------
        ndarray
            Rewards, shape (N,).

        Raises
        ------
        ValueError, TypeError
            The numbers of prompts and answers differ, a text is empty or too long, or a reward is not finite.
        RuntimeError
            A reward outside of this process fails.
        """
        if isinstance(answers, str) or isinstance(prompts, str):
            raise TypeError("prompts and answers must be lists, not text")
        texts = [text for text in answers]
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise TypeError(f"answers must be texts, not {type(wrong[0]).__name__}")
        written = None if prompts is None else [_prompts.encoded(prompt) for prompt in prompts]
        if written is not None and len(written) != len(texts):
            raise ValueError(f"prompts has {len(written)} entries but there are {len(texts)} answers")
        return self._scorer.score(written, texts)

    def __repr__(self) -> str:
        return f"Reward({self.reference!r})"
