"""Datasets of rollouts: samples of a policy with their rewards and hidden states."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _lib, _prompts
from ._guidance import RewardFunction, checked
from ._numbers import BATCH, SEEDS, TRAINING, number, whole
from ._prompts import Prompts, Reference

Progress: TypeAlias = Callable[[int, int], object]
"""A function that is called with what is done and with all there is to do."""


class Dataset:
    """A dataset of rollouts, as `Policy.rollout` and `stackelberg rollout` write it.

    Parameters
    ----------
    folder
        The folder of the dataset.

    Raises
    ------
    ValueError, OSError
        There is no dataset, or its manifest is malformed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self._rollouts = _lib.Rollouts(self.folder)

    @property
    def manifest(self) -> dict[str, Any]:
        """What all samples have in common: the model and the reward with their hashes, settings, and the ids of the prompts."""
        found: dict[str, Any] = json.loads(self._rollouts.manifest)
        return found

    @property
    def missing(self) -> list[int]:
        """The numbers of the shards that are not drawn yet. A complete dataset has none."""
        return self._rollouts.missing()

    def columns(self) -> dict[str, Any]:
        """All samples, column by column, in the order of the prompts.

        Returns
        -------
        dict
            `prompt_id`, `prompt` (as the model read it), `response`, `finish_reason` (stop or length) and
            `tokens` (arrays of token ids) are lists; `sample`, `seed` and `reward` (NaN without a reward) are
            arrays, shape (N,). Datasets that `stackelberg threshold` has shaped have further arrays, such as
            `shaped_srs` and `threshold_srs`.

        Raises
        ------
        ValueError, OSError
            A shard is missing or damaged.
        """
        joined: dict[str, list[Any]] = {}
        for shard in range(self._rollouts.shards):
            found = self._rollouts.read(shard)
            shaped = found.pop("shaped")
            for name, values in [*found.items(), *shaped]:
                joined.setdefault(name, []).extend(values)
        lists = {"prompt_id", "prompt", "response", "tokens", "finish_reason"}
        kinds = {"sample": np.int64, "seed": np.uint64}
        return {
            name: values if name in lists else np.array(values, dtype=kinds.get(name, np.float64)) for name, values in joined.items()
        }

    def records(self) -> list[dict[str, Any]]:
        """All samples as records, from which `pandas.DataFrame` makes a table.

        Returns
        -------
        list of dict
            One dictionary per sample, with the names of `columns`.

        Raises
        ------
        ValueError, OSError
            A shard is missing or damaged.
        """
        columns = {
            name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in self.columns().items()
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def hidden(self) -> Iterator[NDArray[np.float16]]:
        """The policy's hidden states of each sample, after the final norm.

        Yields
        ------
        ndarray
            Shape (tokens of the response, width), in the order of `records`.

        Raises
        ------
        ValueError, OSError
            The dataset has no hidden states, or a shard is missing or damaged.
        """
        width = self.manifest["hidden"] or 1
        for shard in range(self._rollouts.shards):
            for states in self._rollouts.hidden(shard):
                yield np.frombuffer(states, dtype=np.float16).reshape(-1, width)

    def __repr__(self) -> str:
        return f"Dataset({self.folder!r})"


@dataclass(frozen=True)
class Asked:
    """What the engine reads of `Policy.rollout`."""

    file: str | None
    prompts: str
    out: str
    reward: str | None
    function: tuple[str, RewardFunction] | None
    options: str
    hidden: bool
    system: str | None
    prompt_format: str | None
    prompts_per_shard: int
    batch_size: int
    shard: str


def asked(
    prompts: Prompts | Reference,
    *,
    out: str | os.PathLike[str],
    reward: Reference | RewardFunction | None,
    hidden: bool,
    system: str | None,
    prompt_format: str | None,
    prompts_per_shard: int,
    batch_size: int,
    shard: str,
    **settings: Any,
) -> Asked:
    """What `Policy.rollout` is given, checked."""
    if isinstance(prompts, (str, os.PathLike)):
        file, lines = str(os.fspath(prompts)), ""
    else:
        file, lines = None, "\n".join(_line(prompt) for prompt in _several(prompts))
    given = {"max_new_tokens": settings.pop("max_tokens"), **settings}
    given["seed"] = whole("seed", given["seed"], 0, SEEDS - 1)
    for name in ("temperature", "top_p", "min_p"):
        given[name] = number(name, given[name])
    if isinstance(given["stop"], str):
        given["stop"] = [given["stop"]]
    function = None
    if callable(reward):
        name = str(getattr(reward, "__name__", type(reward).__name__))
        function, reward = (name, checked(name, reward)), None
    return Asked(
        file=file,
        prompts=lines,
        out=_prompts.reference("out", out),
        reward=None if reward is None else _prompts.reference("reward", reward),
        function=function,
        options=_prompts.settings(given),
        hidden=bool(hidden),
        system=system,
        prompt_format=prompt_format,
        prompts_per_shard=whole("prompts_per_shard", prompts_per_shard, 1, TRAINING),
        batch_size=whole("batch_size", batch_size, 1, BATCH),
        shard=shard,
    )


def _several(prompts: Any) -> list[Any]:
    """The prompts of a list. Dictionaries without a role are no messages, but prompts with their ids."""
    if isinstance(prompts, list) and prompts and isinstance(prompts[0], Mapping) and "role" not in prompts[0]:
        return prompts
    return list(_prompts.several(prompts))


def _line(prompt: Any) -> str:
    """A prompt as a line of a file of prompts."""
    return json.dumps(dict(prompt)) if isinstance(prompt, Mapping) else f'{{"prompt": {_prompts.encoded(prompt)}}}'
