"""The rewards of many prompts: as `_lib` reads them, and how they were passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import _lib
from ._types import Array

P = ParamSpec("P")
T = TypeVar("T")
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rewards, and what describes the same responses. `_read.read` makes them.

    `_lib` reads the first five. Without offsets, arrays are (P, M). With them, arrays are (1, N), and
    prompt i has the columns from offsets[i] to offsets[i + 1].
    """

    rewards: NDArray[Any]
    offsets: Index | None
    weights: NDArray[Any] | None
    logits: NDArray[Any] | None
    shaped: NDArray[Any] | None
    shape: tuple[int, ...]
    """The shape of the rewards as they were passed: (M,), (P, M), or (N,) for groups and for the rows of a list."""
    splits: Index | None
    """Where the rows of the list that was passed begin and end."""
    positions: Index | None
    """Which number that was passed each number is. None: all, in their order."""
    names: NDArray[Any] | None
    """The group of each prompt."""
    none: NDArray[np.bool_] | None
    """Where a reward that was passed is None, (N,). None: nowhere."""

    def call(self, function: Callable[Concatenate[Rows, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function of `_lib`. Its errors name the row or the group, and the column as the reward was passed."""
        try:
            return function(self, *args, **kwargs)
        except _lib.RowError as error:
            row, index, message = error.args
            raise ValueError(self._words(row, index, message)) from None

    def prompts(self, column: NDArray[Any]) -> NDArray[Any]:
        """A number per prompt: (P,), or () if the rewards of one prompt were passed as (M,)."""
        return column.reshape(()) if self._single else column

    def all_prompts(self, columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Several numbers per prompt."""
        return {name: self.prompts(column) for name, column in columns.items()}

    def responses(self, flat: Array) -> Any:
        """A number per response in the form of the rewards; NaN where a reward was dropped."""
        if self.positions is not None:
            spread = np.full(self.shape, np.nan).reshape(-1)
            spread[self.positions] = flat
            flat = spread
        if self.splits is None:
            return flat.reshape(self.shape)
        ends = self.splits.tolist()
        return [flat[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]

    def columns(self, index: Index) -> Index:
        """The column of one response per prompt (groups: its position) by its index in `_lib`."""
        prompts = np.arange(index.size)
        return self._given(prompts, index) - self._starts(prompts)

    def kept(self) -> Rows:
        """The same rows in arrays that nobody else can change."""
        if self.positions is not None or self.splits is not None:
            return self
        weights = None if self.weights is None else self.weights.copy()
        logits = None if self.logits is None else self.logits.copy()
        return replace(self, rewards=self.rewards.copy(), weights=weights, logits=logits)

    @property
    def _single(self) -> bool:
        """Whether the rewards of one prompt were passed, as (M,)."""
        return len(self.shape) == 1 and self.splits is None and self.names is None

    def _given(self, prompts: Index, index: Index) -> Index:
        """The positions, among all numbers that were passed, of one response per prompt."""
        starts = prompts * self.rewards.shape[1] if self.offsets is None else self.offsets[prompts]
        return starts + index if self.positions is None else self.positions[starts + index]

    def _starts(self, prompts: Index) -> Index:
        """The position from which columns are counted."""
        if self.splits is not None:
            return self.splits[prompts]
        return prompts * self.shape[1] if len(self.shape) == 2 else np.zeros_like(prompts)

    def _words(self, row: int, index: int | None, message: str) -> str:
        if index is not None:
            prompt, place = np.array([row]), np.array([index])
            position = self._given(prompt, place)
            column = (position - self._starts(prompt)).item()
            message = message.replace(f"[{index}]", f"[{column}]", 1)
            if self.none is not None and self.none[position].item() and message.startswith("rewards"):
                message = message.replace("is NaN", "is None", 1)
        if self.names is not None:
            return f"group {self.names[row : row + 1].tolist()[0]!r}: {message}"
        return message if self._single else f"row {row}: {message}"
