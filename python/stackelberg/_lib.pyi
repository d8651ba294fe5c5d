"""The extension module: the functions of the crate `stackelberg-shaping` on rows, and models."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypedDict, final, type_check_only

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Answers",
    "Policy",
    "Rollouts",
    "RowError",
    "Scorer",
    "Settings",
    "__version__",
    "command_line",
    "evaluate",
    "follower",
    "interval",
    "kl_budget",
    "report",
    "rollout",
    "shape",
    "threshold",
    "train_reward",
    "train_value",
]

__version__: str

def command_line(arguments: Sequence[str]) -> int: ...

class RowError(ValueError):
    """An error in one row, with the arguments (row, index in the row or None, message)."""

@type_check_only
class Rows(Protocol):
    """What is read of `stackelberg._rows.Rows`."""

    @property
    def rewards(self) -> NDArray[Any]: ...
    @property
    def offsets(self) -> NDArray[np.int64] | None: ...
    @property
    def weights(self) -> NDArray[Any] | None: ...
    @property
    def logits(self) -> NDArray[Any] | None: ...
    @property
    def shaped(self) -> NDArray[Any] | None: ...

@final
class Settings:
    """Valid settings; what is not given has the default of the shaping crate."""

    def __new__(
        cls,
        *,
        rule: str | None = None,
        strength: float | None = None,
        beta: float | None = None,
        bound: float | None = None,
        alpha: float | None = None,
        cap: float | None = None,
        stretch: float | None = None,
        ref_quantile: float | None = None,
        budget: str | None = None,
        exponent_cap: float | None = None,
        kl_budget: float | None = None,
        level: float | None = None,
    ) -> Settings: ...

_Columns: TypeAlias = dict[str, NDArray[Any]]

@type_check_only
class ShapedRows(TypedDict):
    shaped: NDArray[np.float64]
    bound: NDArray[np.float64]
    strength: NDArray[np.float64]
    thresholds: _Columns

@type_check_only
class Intervals(TypedDict):
    level: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]

@type_check_only
class Reports(TypedDict):
    shape: ShapedRows
    utility: _Columns
    kl: _Columns
    ess: NDArray[np.float64]
    interval: Intervals
    warnings: list[tuple[str, ...]]
    fused: NDArray[np.float64]
    chosen: NDArray[np.int64]

def follower(rows: Rows, settings: Settings, threads: int) -> _Columns: ...
def interval(rows: Rows, settings: Settings, threads: int) -> Intervals: ...
def kl_budget(rows: Rows, settings: Settings, threads: int) -> _Columns: ...
def report(rows: Rows, settings: Settings, threads: int) -> Reports: ...
def shape(rows: Rows, settings: Settings, threads: int) -> ShapedRows: ...
def threshold(rows: Rows, settings: Settings, threads: int) -> _Columns: ...

_Function: TypeAlias = Callable[[list[Any], list[str]], Any]

@type_check_only
class Asked(Protocol):
    """What is read of `stackelberg._policy.Asked`."""

    @property
    def prompts(self) -> list[str]: ...
    @property
    def guidance(self) -> str: ...
    @property
    def function(self) -> tuple[str, _Function] | None: ...
    @property
    def options(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def system(self) -> str | None: ...
    @property
    def prompt_format(self) -> str | None: ...
    @property
    def steps(self) -> bool: ...

@type_check_only
class News(TypedDict):
    number: int
    piece: dict[str, Any] | None
    answer: dict[str, Any] | None

@final
class Answers:
    """Answers to the prompts of one call. They are cancelled when this object is dropped."""

    @property
    def warnings(self) -> list[str]: ...
    def next(self) -> News | None: ...
    def cancel(self) -> None: ...

@final
class Policy:
    """A policy that is loaded. Private: use `stackelberg.Policy`."""

    def __new__(
        cls,
        reference: str,
        *,
        tokenizer: str | None,
        states: str | None,
        dtype: str | None,
        kv_dtype: str | None,
        threads: int | None,
        sequences: int,
        cache: int,
        rewards: Sequence[tuple[str, str | _Function]],
        values: Sequence[tuple[str, str]],
    ) -> Policy: ...
    @property
    def path(self) -> Path: ...
    @property
    def context(self) -> int: ...
    def submit(self, asked: Asked) -> Answers: ...
    def close(self) -> None: ...

@final
class Scorer:
    """A reward that is loaded. Private: use `stackelberg.Reward`."""

    def __new__(cls, reference: str, *, policy: Policy | None, dtype: str | None, threads: int | None) -> Scorer: ...
    def score(self, prompts: Sequence[str] | None, answers: Sequence[str]) -> NDArray[np.float64]: ...

_Progress: TypeAlias = Callable[[int, int], object]

@type_check_only
class RolloutAsked(Protocol):
    """What is read of `stackelberg._rollouts.Asked`."""

    @property
    def file(self) -> str | None: ...
    @property
    def prompts(self) -> str: ...
    @property
    def out(self) -> str: ...
    @property
    def reward(self) -> str | None: ...
    @property
    def function(self) -> tuple[str, _Function] | None: ...
    @property
    def options(self) -> str: ...
    @property
    def hidden(self) -> bool: ...
    @property
    def system(self) -> str | None: ...
    @property
    def prompt_format(self) -> str | None: ...
    @property
    def prompts_per_shard(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def shard(self) -> str: ...

def rollout(policy: Policy, asked: RolloutAsked, progress: _Progress | None) -> None: ...

@final
class Rollouts:
    """A dataset of rollouts. Private: use `stackelberg.Dataset`."""

    def __new__(cls, folder: str) -> Rollouts: ...
    @property
    def manifest(self) -> str: ...
    @property
    def shards(self) -> int: ...
    def missing(self) -> list[int]: ...
    def read(self, shard: int) -> dict[str, list[Any]]: ...
    def hidden(self, shard: int) -> list[bytes]: ...

@type_check_only
class ValueAsked(Protocol):
    """What is read of `stackelberg._training.ValueAsked`."""

    @property
    def dataset(self) -> str: ...
    @property
    def out(self) -> str: ...
    @property
    def resume(self) -> bool: ...
    @property
    def coef(self) -> float | None: ...
    @property
    def width(self) -> int | None: ...
    @property
    def second_width(self) -> int | None: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def batch_size(self) -> int | None: ...
    @property
    def epochs(self) -> int | None: ...
    @property
    def patience(self) -> int | None: ...
    @property
    def validation(self) -> float | None: ...
    @property
    def clip(self) -> float | None: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def memory(self) -> int | None: ...
    @property
    def command(self) -> list[str]: ...

@type_check_only
class ValueTrained(TypedDict):
    epochs: list[tuple[float, float, float]]
    best: int
    explained: tuple[float, float] | None
    foresight: list[dict[str, Any]]
    sentence: str
    counts: dict[str, float]

def train_value(asked: ValueAsked, shaping: Settings, threads: int | None, progress: _Progress | None) -> ValueTrained: ...

@type_check_only
class RewardAsked(Protocol):
    """What is read of `stackelberg._training.RewardAsked`."""

    @property
    def pairs(self) -> list[str]: ...
    @property
    def rated(self) -> list[str]: ...
    @property
    def held_out(self) -> list[str]: ...
    @property
    def out(self) -> str: ...
    @property
    def embedder(self) -> str | None: ...
    @property
    def text_format(self) -> str | None: ...
    @property
    def about(self) -> str: ...
    @property
    def folds(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def command(self) -> list[str]: ...

@type_check_only
class RewardTrained(TypedDict):
    metrics: list[tuple[str, str, float, float]]
    regularisation: float
    data: list[tuple[str, int, int, bool]]

def train_reward(
    asked: RewardAsked, policy: Policy | None, threads: int | None, progress: _Progress | None
) -> RewardTrained: ...

@type_check_only
class EvaluateAsked(Protocol):
    """What is read of `stackelberg._evaluate.Asked`."""

    @property
    def runs(self) -> list[tuple[str, str | None, str]]: ...
    @property
    def rewards(self) -> list[str]: ...
    @property
    def embedder(self) -> str | None: ...
    @property
    def paired(self) -> bool: ...
    @property
    def seed(self) -> int: ...

def evaluate(asked: EvaluateAsked, policy: Policy | None, threads: int | None) -> str: ...
