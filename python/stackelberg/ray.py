"""Samples, rewards and shaped rewards as stages of Ray Data.

    import ray
    from stackelberg.ray import build_processor, shape

    sample = build_processor("http://127.0.0.1:8080", samples=8, reward="kind", max_tokens=128)
    rows = shape(sample(ray.data.read_json("prompts.jsonl")), rule="srs", bound=2.0)

`pip install 'stackelberg[ray]'` installs Ray; this file calls methods of data sets and imports nothing of Ray. A Slurm array needs
neither: `stackelberg rollout --shard I/N` writes one part per task, and `stackelberg rollout merge` joins them.
"""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ._guidance import RewardFunction, checked
from ._prompts import count
from ._shape import shape as shape_rewards
from ._step import check_names
from ._types import Rule

if TYPE_CHECKING:
    from typing_extensions import Unpack

Dataset: TypeAlias = Any
"""A `ray.data.Dataset`."""

Row: TypeAlias = dict[str, Any]

MOST_SAMPLES = 4096
MOST_REQUESTS = 1024
LATER = (408, 429, 500, 502, 503, 504)
"""Statuses of requests that may succeed later."""


def build_processor(
    url: str,
    *,
    samples: int = 8,
    reward: str | RewardFunction | None = None,
    model: str | None = None,
    api_key: str | None = None,
    requests: int = 16,
    batch_size: int = 64,
    workers: int = 1,
    retries: int = 5,
    timeout: float = 600.0,
    **settings: Any,
) -> Callable[[Dataset], Dataset]:
    """Build a stage that draws samples from an OpenAI-compatible server, and scores them.

    Parameters
    ----------
    url
        The server: `stackelberg serve`, vLLM or another one with `/v1/chat/completions`.
    samples
        Number of samples of each prompt: `n` of one request.
    reward
        The name of a reward of `stackelberg serve`, or a function that takes a list of prompts and a list of answers and returns
        one finite number for each answer. A function is called with all samples of a batch, in the process of a worker. Default:
        no rewards.
    model
        The name of the model. Default: that of the server's list of models.
    api_key
        Sent as `Authorization: Bearer`.
    requests
        The most requests of a worker at once.
    batch_size
        Prompts of a batch.
    workers
        The most batches at once, each in a process of Ray.
    retries
        How often a request is repeated that fails with a status of 408, 429 or 5xx, or without an answer, with waits of 1, 2, 4...
        seconds, at most 60, or as the server asks.
    timeout
        Seconds after which a request without an answer has failed.
    settings
        Other fields of a request: `max_tokens`, `temperature`, `top_p`, `seed`, `stop`, `guidance` and so on.

    Returns
    -------
    function
        From a data set with a column `prompt` (texts or lists of messages) to one with a row for each sample: the columns of its
        prompt, `prompt_id`, `sample` (its number, from 0), `response`, `finish_reason`, and `reward` if there is one. The id is
        that of the column `prompt_id` or `id`, or else made of the prompt.

    Raises
    ------
    ValueError, TypeError
        An argument is outside its range. While the data set is computed: a row has no prompt, the server refuses a request, or
        a reward is not finite.
    RuntimeError
        While the data set is computed: a request fails after all repetitions.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"url is {url!r}: it must be the address of a server, such as http://127.0.0.1:8080")
    if fixed := sorted({"n", "messages", "model", "stream"} & set(settings)):
        raise TypeError(f"{fixed[0]} cannot be set: it follows from the other arguments")
    if not 0 <= retries <= 100:
        raise ValueError(f"retries is {retries}: it must be between 0 and 100")
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout is {timeout}: it must be a finite number of seconds above 0")
    fields: Row = dict(settings)
    function = None
    if isinstance(reward, str):
        fields["guidance"] = {"method": "base", **fields.get("guidance", {}), "reward": reward}
    elif reward is not None:
        function = checked(str(getattr(reward, "__name__", type(reward).__name__)), reward)
    json.dumps(fields)
    stage = Samples(
        url=url.rstrip("/").removesuffix("/v1"),
        fields={"n": count("samples", samples, MOST_SAMPLES), **fields},
        model=model,
        key=api_key,
        reward=function,
        named=isinstance(reward, str),
        requests=count("requests", requests, MOST_REQUESTS),
        retries=retries,
        timeout=timeout,
    )
    size, most = count("batch_size", batch_size), count("workers", workers)

    def processor(dataset: Dataset) -> Dataset:
        return dataset.map_batches(stage.batch, batch_size=size, batch_format="pyarrow", concurrency=most)

    return processor


def shape(
    dataset: Dataset, *, by: str = "prompt_id", reward: str = "reward", missing: str = "error", **settings: Unpack[Rule]
) -> Dataset:
    """Shape the rewards of each prompt's samples: a map over the groups of a data set.

    Parameters
    ----------
    dataset
        A `ray.data.Dataset`.
    by
        The column with the prompt's id.
    reward
        The column with the rewards.
    missing
        `error` or `drop`, as in `stackelberg.shape`: what happens to rewards that are None or NaN. A group without any reward is
        not shaped with `drop`.
    settings
        As in `stackelberg.shape`: `rule`, `strength` or `beta`, `bound`, `alpha`, `kl_budget` and so on.

    Returns
    -------
    Dataset
        The rows with two columns more: `shaped`, and `threshold`, the m* of the row's group (NaN for rules without one).

    Raises
    ------
    ValueError, TypeError
        A setting is unknown or outside its range. While the data set is computed: as in `stackelberg.shape`.
    """
    check_names(settings)
    if missing not in ("error", "drop"):
        raise ValueError(f"unknown missing '{missing}': known are error, drop")
    shape_rewards([0.0, 1.0], **settings)

    def group(table: Any) -> Any:
        shaped, threshold = shaped_group(table.column(reward).to_pylist(), missing, settings, table.column(by)[0].as_py())
        return table.append_column("shaped", [shaped]).append_column("threshold", [[threshold] * table.num_rows])

    return dataset.groupby(by).map_groups(group, batch_format="pyarrow")


def shaped_group(rewards: list[float | None], missing: str, settings: Mapping[str, Any], name: object) -> tuple[list[float], float]:
    """Shaped rewards of one prompt's samples, and their threshold; NaN where there is none. Errors name the group."""
    nan = float("nan")
    if missing == "drop" and all(reward is None or reward != reward for reward in rewards):
        return [nan] * len(rewards), nan
    found = shape_rewards(rewards, groups=[name] * len(rewards), missing="drop" if missing == "drop" else "error", **settings)
    return found.shaped.tolist(), float(found.threshold[0])


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The stage of `build_processor`."""

    url: str
    fields: Row
    model: str | None
    key: str | None
    reward: RewardFunction | None
    named: bool
    """Whether the server computes rewards."""
    requests: int
    retries: int
    timeout: float

    def batch(self, table: Any) -> Any:
        """A table of prompts to a table of samples."""
        return type(table).from_pylist(self.rows(table.to_pylist()))

    def rows(self, prompts: Iterable[Row]) -> list[Row]:
        """Rows of prompts to rows of samples."""
        rows = list(prompts)
        model = self.model or self.call("/v1/models")["data"][0]["id"]
        with ThreadPoolExecutor(max(1, min(self.requests, len(rows)))) as pool:
            samples = [sample for found in pool.map(lambda row: self.samples(row, model), rows) for sample in found]
        if self.reward is not None and samples:
            rewards: Any = self.reward([row["prompt"] for row in samples], [row["response"] for row in samples])
            samples = [row | {"reward": reward} for row, reward in zip(samples, rewards, strict=True)]
        return samples

    def samples(self, row: Row, model: str) -> list[Row]:
        """The samples of one prompt."""
        prompt = row.get("prompt")
        if prompt is None or not isinstance(prompt, (str, list)) or not prompt:
            raise ValueError(f"a row has no prompt: its columns are {', '.join(row) or 'none'}")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        known = row.get("prompt_id", row.get("id"))
        name = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16] if known is None else known
        answer = self.call("/v1/chat/completions", {"model": model, "messages": messages, **self.fields})
        found = []
        for number, choice in enumerate(sorted(answer["choices"], key=lambda choice: choice["index"])):
            sample = row | {"prompt_id": name, "sample": number, "response": choice["message"]["content"] or ""}
            sample["finish_reason"] = choice["finish_reason"]
            if self.named:
                sample["reward"] = (choice.get("guidance") or {}).get("reward")
                if sample["reward"] is None:
                    raise ValueError(f"{self.url} returned no reward: only `stackelberg serve` knows rewards by name")
            found.append(sample)
        if len(found) != self.fields["n"]:
            raise RuntimeError(f"{self.url} returned {len(found)} samples instead of {self.fields['n']}")
        return found

    def call(self, path: str, body: Row | None = None) -> Any:
        """The answer to a request, repeated while it may succeed later."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        for attempt in range(self.retries + 1):
            wait = min(2.0**attempt, 60.0)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                problem = f"{error.code}: {error.read(2000).decode(errors='replace')}"
                if error.code not in LATER:
                    raise ValueError(f"{self.url + path} refused a request: {problem}") from None
                asked = error.headers.get("Retry-After", "")
                wait = min(float(asked), 60.0) if asked.isdigit() else wait
            except (OSError, ValueError) as error:
                problem = str(error)
            if attempt < self.retries:
                time.sleep(wait)
        raise RuntimeError(f"{self.url + path} failed {self.retries + 1} times: {problem}")
