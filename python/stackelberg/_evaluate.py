"""Answers are measured, and runs compared."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from . import _lib, _prompts
from ._answer import Answer
from ._numbers import SEEDS, whole
from ._policy import Policy
from ._prompts import Reference

Answers: TypeAlias = Reference | Sequence[Answer | Mapping[str, Any]]
"""A file of answers, or answers."""

Runs: TypeAlias = Answers | Sequence[Reference] | Mapping[str, Answers]
"""One run, several files, or runs by name."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measured answers. Each list makes a table: `pandas.DataFrame(evaluation.summary)`."""

    answers: list[dict[str, Any]]
    """One record per answer: `run`, `id`, each reward by its name, `rep_2`, `rep_3`, `rep_4` (percent), `diversity`,
    `coherence`, `length` (words), and what is known of the generation: `tokens`, `tokens_per_second`, `kl`, `tail_nll` and
    `log_prob` (nats), `steered`. Unknown values are None."""
    summary: list[dict[str, Any]]
    """One record per run and metric: `run`, `answers` (their number), `metric`, `mean`, and the 95 percent bootstrap interval
    `low` to `high`, which is infinite for fewer than 10 answers."""
    comparisons: list[dict[str, Any]]
    """One record per run but the first, and metric: `run`, `other` (the first run), `metric`, the `mean` difference run minus
    other, paired by prompt, with its interval `low` to `high`; of rewards also `win`, `tie`, `lose` and the p value `p` of the
    sign test."""
    measured_by: dict[str, str]
    """The hashes of the rewards and of the embedder."""


@dataclass(frozen=True)
class Asked:
    """What the engine reads of `evaluate`."""

    runs: list[tuple[str, str | None, str]]
    rewards: list[str]
    embedder: str | None
    paired: bool
    seed: int


def evaluate(
    runs: Runs,
    rewards: Sequence[Reference] = (),
    *,
    embedder: Reference | None = "all-minilm-l6-v2",
    policy: Policy | None = None,
    paired: bool = True,
    seed: int = 0,
    threads: int | None = None,
) -> Evaluation:
    """Measure answers, as `stackelberg evaluate` does. Several runs are compared with the first, paired by prompt.

    Answers are cut where the model begins the human's next turn.

    Parameters
    ----------
    runs
        One run: a file of answers (as `stackelberg generate --out` and other projects write them), or a list of
        answers: `Answer` objects, or dictionaries with `prompt` and `response`. Or several: a list of files, or
        a dictionary of runs by name.
    rewards
        Rewards that are measured, whether or not they guided: names, references or expressions.
    embedder
        The sentence embedder for coherence; None: coherence is not measured.
    policy
        The policy whose hidden states or tokens rewards read; default: the default model, which is loaded if a
        reward needs one.
    paired
        Whether runs are compared; they must then answer the same prompts.
    seed
        Random seed of the bootstrap.
    threads
        Compute threads of this process; default: all cores.

    Returns
    -------
    Evaluation
        Records of answers, means and comparisons.

    Raises
    ------
    ValueError, TypeError
        An answer is malformed, runs answer different prompts, or a reward is unknown or not finite for an answer.
    OSError
        A file cannot be read.

    Examples
    --------
    >>> import stackelberg
    >>> with stackelberg.Policy() as policy:
    ...     prompts = ["How was your day?", "Tell me about your town."]
    ...     base = policy.generate(prompts, max_tokens=16)
    ...     guided = policy.generate(prompts, guidance={"reward": "sentiment"}, max_tokens=16)
    ...     found = stackelberg.evaluate({"base": base, "guided": guided}, ["sentiment"], embedder=None, policy=policy)
    >>> [(row["run"], row["answers"]) for row in found.summary if row["metric"] == "sentiment"]
    [('base', 2), ('guided', 2)]
    >>> [row["mean"] > 0 for row in found.comparisons if row["metric"] == "sentiment"]
    [True]
    """
    if isinstance(rewards, (str, os.PathLike)):
        raise TypeError("rewards must be a list of names")
    names = [_prompts.reference("rewards", name) for name in rewards]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(f"rewards: {name} is given twice")
    asked = Asked(
        runs=[_run(name, answers) for name, answers in _named(runs)],
        rewards=names,
        embedder=None if embedder is None else _prompts.reference("embedder", embedder),
        paired=bool(paired),
        seed=whole("seed", seed, 0, SEEDS - 1),
    )
    own = None if policy is None else policy._policy
    found = json.loads(_lib.evaluate(asked, own, None if threads is None else _prompts.count("threads", threads)))
    answers = [
        {"run": run["run"], "id": answer.pop("id"), **answer.pop("rewards", {}), **answer}
        for run in found["answers"]
        for answer in run["answers"]
    ]
    summary = [
        {"run": run["run"], "answers": run["answers"], **_interval(mean)} for run in found["runs"] for mean in run["metrics"]
    ]
    comparisons = []
    for comparison in found["comparisons"]:
        wins = {won.pop("reward"): won for won in comparison["wins"]}
        ends = {"run": comparison["run"], "other": comparison["with"]}
        comparisons += [ends | _interval(mean) | wins.get(mean["metric"], {}) for mean in comparison["differences"]]
    return Evaluation(answers=answers, summary=summary, comparisons=comparisons, measured_by=dict(found["measured_by"]))


def _interval(mean: dict[str, Any]) -> dict[str, Any]:
    """A mean with its interval. JSON has no infinite ends."""
    low, high = mean["low"], mean["high"]
    return mean | {"low": -math.inf if low is None else low, "high": math.inf if high is None else high}


def _named(runs: Any) -> list[tuple[str | None, Any]]:
    """Runs with their names."""
    if isinstance(runs, Mapping) and not {"prompt", "instruction", "messages"} & set(runs):
        named = list(runs.items())
        if wrong := [name for name, _ in named if not isinstance(name, str)]:
            raise TypeError(f"names of runs must be texts, not {type(wrong[0]).__name__}")
        if not named:
            raise ValueError("there are no runs")
        return named
    if isinstance(runs, (str, os.PathLike)):
        return [(None, runs)]
    if isinstance(runs, (Mapping, Answer)) or not isinstance(runs, Iterable):
        raise TypeError(f"runs must be files, a list of answers or a dictionary of runs, not {type(runs).__name__}")
    several = list(runs)
    if several and all(isinstance(one, (str, os.PathLike)) for one in several):
        return [(None, one) for one in several]
    return [("answers", several)]


def _run(name: str | None, answers: Any) -> tuple[str, str | None, str]:
    """The name of a run, and its file or its answers as JSON lines."""
    if isinstance(answers, (str, os.PathLike)):
        file = str(os.fspath(answers))
        return (file if name is None else name, file, "")
    if isinstance(answers, (Mapping, Answer)) or not isinstance(answers, Iterable):
        raise TypeError(f"the run {name!r} must be a file or a list of answers, not {type(answers).__name__}")
    return (name or "answers", None, "\n".join(json.dumps(_record(answer), default=_plain) for answer in answers))


def _record(answer: Any) -> dict[str, Any]:
    """An answer with the names of a file of answers."""
    if not isinstance(answer, (Answer, Mapping)):
        raise TypeError(f"an answer must be an Answer or a dictionary, not {type(answer).__name__}")
    record = answer.to_dict() if isinstance(answer, Answer) else dict(answer)
    record.pop("trace", None)
    if "text" in record and not {"response", "result", "output"} & set(record):
        record["response"] = record.pop("text")
    if "token_ids" in record:
        record.setdefault("tokens", len(record.pop("token_ids")))
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"an answer has a {type(value).__name__}, which is no JSON")
