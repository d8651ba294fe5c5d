"""Samples of vLLM as rows for shaping and for `stackelberg rollout import`, without files in between.

    from stackelberg.vllm import rows
    found = rows(llm.generate(prompts, SamplingParams(n=8, max_tokens=128)), rewards=reward)
    shaped = stackelberg.shape([row["rewards"] for row in found], rule="srs", bound=2.0)

This file reads plain attributes of vLLM's `RequestOutput` and imports nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from ._floats import line
from ._guidance import RewardFunction, checked
from ._types import Ragged


class Completion(Protocol):
    """What is read of vLLM's `CompletionOutput`."""

    @property
    def text(self) -> str: ...
    @property
    def token_ids(self) -> Sequence[int]: ...
    @property
    def finish_reason(self) -> str | None: ...


class Request(Protocol):
    """What is read of vLLM's `RequestOutput`."""

    @property
    def request_id(self) -> str: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def prompt_token_ids(self) -> Sequence[int] | None: ...
    @property
    def outputs(self) -> Sequence[Completion]: ...
    @property
    def finished(self) -> bool: ...


Row: TypeAlias = dict[str, Any]
"""A prompt with its samples: `prompt`, `prompt_token_ids`, `outputs` (dictionaries with `text`, `token_ids` and
`finish_reason`), and `rewards` if there are any: one number for each output."""


def rows(
    outputs: Iterable[Request], rewards: RewardFunction | Ragged | None = None, *, prompts: Sequence[str] | None = None
) -> list[Row]:
    """Turn the outputs of `LLM.generate` or `LLM.chat` into rows.

    Each row is a JSON object that `stackelberg rollout import` reads as a request output of vLLM: one line of a file.

    Parameters
    ----------
    outputs
        Request outputs, P of them, all finished.
    rewards
        A function that takes a list of prompts and a list of answers and returns one finite number for each answer, called once
        with all samples; or P rows with one number for each output. Default: no rewards.
    prompts
        The prompts, P of them, for requests of token ids, whose outputs have no text of the prompt.

    Returns
    -------
    list of dict
        One row for each request, in their order.

    Raises
    ------
    ValueError
        A request is not finished, has no prompt or no outputs; numbers of prompts or rewards do not agree; a reward is not
        finite.
    TypeError
        A reward is no number.
    Exception
        What the reward function raises.

    Examples
    --------
    >>> from types import SimpleNamespace as Output
    >>> from stackelberg.vllm import rows
    >>> samples = [Output(text=text, token_ids=[1, 2], finish_reason="stop") for text in ("Hello.", "Hi!")]
    >>> request = Output(request_id="0", prompt="Hey", prompt_token_ids=[3], outputs=samples, finished=True)
    >>> found = rows([request], lambda prompts, answers: [float(len(answer)) for answer in answers])
    >>> found[0]["prompt"], found[0]["rewards"]
    ('Hey', [6.0, 3.0])
    """
    requests = list(outputs)
    if prompts is not None and len(prompts) != len(requests):
        raise ValueError(f"prompts has {len(prompts)} entries but there are {len(requests)} requests")
    found = [_row(request, None if prompts is None else prompts[i]) for i, request in enumerate(requests)]
    if rewards is None:
        return found
    counts = [len(row["outputs"]) for row in found]
    for row, scores in zip(found, _rewards(found, counts, rewards), strict=True):
        row["rewards"] = scores
    return found


def _row(request: Request, prompt: str | None) -> Row:
    """A request as a row."""
    name = f"request {request.request_id}"
    prompt = request.prompt if prompt is None else prompt
    if not request.finished:
        raise ValueError(f"{name} is not finished: wait for its last output")
    if not prompt:
        raise ValueError(f"{name} has no text of its prompt: give prompts=")
    if not request.outputs:
        raise ValueError(f"{name} has no outputs")
    outputs = [
        {"text": one.text, "token_ids": [int(token) for token in one.token_ids], "finish_reason": one.finish_reason}
        for one in request.outputs
    ]
    row: Row = {"prompt": prompt, "outputs": outputs}
    if request.prompt_token_ids is not None:
        row["prompt_token_ids"] = [int(token) for token in request.prompt_token_ids]
    return row


def _rewards(found: list[Row], counts: list[int], rewards: RewardFunction | Ragged) -> list[list[float]]:
    """Rewards of each row."""
    if callable(rewards):
        asked: list[Any] = [row["prompt"] for row, count in zip(found, counts, strict=True) for _ in range(count)]
        answers = [output["text"] for row in found for output in row["outputs"]]
        function = checked(str(getattr(rewards, "__name__", type(rewards).__name__)), rewards)
        scores: Any = function(asked, answers)
        flat = list(scores)
        ends = np.cumsum([0, *counts]).tolist()
        return [flat[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]
    if len(rewards) != len(found):
        raise ValueError(f"rewards has {len(rewards)} rows but there are {len(found)} requests")
    listed: list[list[float]] = []
    for number, (row, count) in enumerate(zip(rewards, counts, strict=True)):
        array = line("rewards", number, row).array
        if array.size != count:
            raise ValueError(f"row {number}: rewards has {array.size} entries but there are {count} outputs")
        if wrong := np.flatnonzero(~np.isfinite(array)).tolist():
            raise ValueError(f"row {number}: rewards[{wrong[0]}] is not a finite number")
        listed.append(array.astype(np.float64).tolist())
    return listed
