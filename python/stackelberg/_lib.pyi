"""The extension module: the functions of the crate `stackelberg-shaping` on rows."""

from typing import Any, Protocol, TypeAlias, TypedDict, final, type_check_only

import numpy as np
from numpy.typing import NDArray

__all__ = ["RowError", "Settings", "__version__", "follower", "interval", "kl_budget", "report", "shape", "threshold"]

__version__: str

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
