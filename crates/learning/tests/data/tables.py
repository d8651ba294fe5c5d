"""Writes the Parquet files beside this one, as pandas (snappy) and polars (zstd) do by default."""

from decimal import Decimal

import pandas
import polars

pandas.DataFrame(
    {
        "prompt_id": pandas.Categorical(["a", "a", "b"]),
        "prompt": ["w5", "w5", "w8"],
        "response": ["w6 w7", "w6", ""],
        "reward": pandas.Series([1, 2.5, -1], dtype="float32"),
        "finish_reason": ["stop", None, "length"],
        "tokens": [[6, 7], None, []],
        # Not looked at.
        "when": pandas.to_datetime(["2024-01-01"] * 3),
        "bytes": [b"\xff"] * 3,
        "nested": [{"a": 1}] * 3,
        "decimal": [Decimal("1.5")] * 3,
    }
).to_parquet("pandas.parquet")

polars.DataFrame(
    {
        "messages": [[{"role": "user", "content": "w5"}], [{"role": "user", "content": "w8"}]],
        "responses": [["w6", "w7"], ["w9"]],
        "rewards": [[1.0, 2.0], [3.0]],
    }
).write_parquet("polars.parquet")
