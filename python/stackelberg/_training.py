"""Heads are trained: value heads on rollouts, reward heads on judgements."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from . import _lib, _prompts
from ._numbers import MEGABYTES, SEEDS, TRAINING, number, whole
from ._policy import Policy
from ._prompts import Reference
from ._rollouts import Dataset, Progress

Files: TypeAlias = Reference | Sequence[Reference]
"""A file, or several."""


@dataclass(frozen=True)
class Epoch:
    """Losses of an epoch of a value head."""

    training: float
    """Mean training loss, during the epoch."""
    last: float
    """Mean squared error on the validation set after the epoch, at the last token. In squared units of the shaped reward."""
    along: float
    """The same over all tokens."""


@dataclass(frozen=True)
class Explained:
    """Share of the variance of the shaped rewards that a value head explains on the validation set (R²)."""

    last: float
    """At the last token."""
    along: float
    """Along the text."""


@dataclass(frozen=True, kw_only=True)
class ValueTraining:
    """A trained value head."""

    head: Path
    """The head (.safetensors), for `Guidance(value=...)`. Its card is the file beside it whose name ends in .md."""
    epochs: list[Epoch]
    """All epochs."""
    best: int
    """The index of the epoch whose head was kept: that with the smallest validation error at the last token."""
    explained: Explained | None
    """None if all shaped rewards of the validation set are equal."""
    foresight: list[dict[str, Any]] = field(repr=False)
    """Records, one per distance from the end of the answers: `tokens` before the end, `samples`, `prompts`, the
    correlations `value` and `so_far` (the reward of the text read so far) with the final reward within prompts, the
    interval `low` to `high` of their difference, the calibration `slope` and `explained`. None: undefined or unknown."""
    conclusion: str
    """What the foresight means for decoding, in one sentence."""
    counts: dict[str, float]
    """Numbers of samples and prompts in the training and validation sets and of those from which nothing is learned; the
    `mean` training target and the `baseline` mean squared error of predicting it."""


@dataclass(frozen=True)
class Metric:
    """A metric of a reward head."""

    data: str
    """What it was measured on: a held-out file, or cross-validation."""
    name: str
    """pair accuracy and log-loss (nats), or Pearson r and R²."""
    value: float
    """Its value."""
    standard_error: float
    """Its standard error over conversations; NaN if there is only one."""


@dataclass(frozen=True, kw_only=True)
class RewardTraining:
    """A trained reward head."""

    head: Path
    """The head (.safetensors), a reference for `Guidance(reward=...)` and `Reward`. Its card is the file beside it whose
    name ends in .md."""
    metrics: list[Metric]
    """Metrics on each held-out file, and those of the cross-validation, which are slightly optimistic."""
    regularisation: float
    """The coefficient lambda that the cross-validation chose."""
    data: list[dict[str, Any]]
    """Records, one per file: `name`, `rows`, `groups` (conversations) and whether it was `held_out`."""


@dataclass(frozen=True)
class ValueAsked:
    """What the engine reads of `train_value`."""

    dataset: str
    out: str
    resume: bool
    coef: float | None
    width: int | None
    second_width: int | None
    lr: float | None
    batch_size: int | None
    epochs: int | None
    patience: int | None
    validation: float | None
    clip: float | None
    seed: int | None
    memory: int | None
    command: list[str]


@dataclass(frozen=True)
class RewardAsked:
    """What the engine reads of `train_reward`."""

    pairs: list[str]
    rated: list[str]
    held_out: list[str]
    out: str
    embedder: str | None
    text_format: str | None
    about: str
    folds: int
    seed: int
    command: list[str]


def train_value(
    dataset: Dataset | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    shaping: str | None = None,
    strength: float | None = None,
    beta: float | None = None,
    bound: float | None = None,
    alpha: float | None = None,
    cap: float | None = None,
    stretch: float | None = None,
    exponent_cap: float | None = None,
    ref_quantile: float | None = None,
    budget: str | None = None,
    coef: float | None = None,
    width: int | None = None,
    second_width: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    validation: float | None = None,
    clip: float | None = None,
    seed: int | None = None,
    memory_mb: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ValueTraining:
    """Train a value head on rollouts: it predicts the shaped reward of a finished answer from the answer so far.

    The head, its card and its plots are those of `stackelberg train value` with the same settings. Ctrl-C stops
    within a step; the same call with `resume=True` continues after the last finished epoch.

    Parameters
    ----------
    dataset
        A dataset with rewards and hidden states, or its folder.
    out
        The head to write (.safetensors). A card (.md) and two plots (.svg) are written beside it.
    resume
        Whether to continue a stopped run with the same settings.
    shaping, strength, beta, bound, alpha, cap, stretch, exponent_cap, ref_quantile, budget
        How the rewards of each prompt are shaped, as in `shape` (there, `shaping` is `rule`). The budget
        `reference` is `reference-offline`.
    coef
        Coefficient of the smoothness term of the loss; default 1.
    width, second_width
        Widths of the two layers; default: the width of the hidden states.
    lr
        Learning rate of Adam; default 1e-4.
    batch_size
        Samples per step; default 64.
    epochs
        Maximum number of epochs; default 15.
    patience
        Training ends after so many epochs without a better validation error; default 5.
    validation
        Share of the prompts in the validation set; default 0.05.
    clip
        Maximum gradient norm; default 1.
    seed
        Random seed of the initial weights, the split and the order of samples; default 0.
    memory_mb
        Megabytes of hidden states in memory; default 1024. A larger dataset is read from disk in every epoch.
    threads
        Compute threads of this process; default: all cores. The head does not depend on them.
    progress
        A function that is called with the number of finished epochs, and with the maximum.

    Returns
    -------
    ValueTraining
        The head's file, the errors of all epochs, and what it foresees.

    Raises
    ------
    ValueError, TypeError
        A setting is invalid, or the dataset is incomplete or lacks rewards or hidden states.
    OSError
        A file cannot be read or written.
    RuntimeError
        The training diverged.

    Examples
    --------
    >>> import stackelberg, tempfile
    >>> with stackelberg.Policy() as policy:
    ...     dataset = policy.rollout(
    ...         [f"What is {i} plus {i}?" for i in range(4)], out=tempfile.mkdtemp(), samples=4, max_tokens=8
    ...     )
    >>> head = tempfile.mkdtemp() + "/value.safetensors"
    >>> trained = stackelberg.train_value(dataset, head, width=8, second_width=8, epochs=2, validation=0.25)
    >>> len(trained.epochs), trained.head.name, trained.head.with_suffix(".md").exists()
    (2, 'value.safetensors', True)
    """
    folder = dataset.folder if isinstance(dataset, Dataset) else _prompts.reference("dataset", dataset)
    file = _prompts.reference("out", out)
    shaped = {"strength": strength, "beta": beta, "bound": bound, "alpha": alpha, "cap": cap, "stretch": stretch}
    shaped |= {"exponent_cap": exponent_cap, "ref_quantile": ref_quantile}
    shaped = {name: number(name, value) for name, value in shaped.items() if value is not None}
    threads = _whole("threads", threads, 1, _threads())
    asked = ValueAsked(
        dataset=folder,
        out=file,
        resume=bool(resume),
        coef=_number("coef", coef),
        width=_whole("width", width, 1, TRAINING),
        second_width=_whole("second_width", second_width, 1, TRAINING),
        lr=_number("lr", lr),
        batch_size=_whole("batch_size", batch_size, 1, TRAINING),
        epochs=_whole("epochs", epochs, 1, TRAINING),
        patience=_whole("patience", patience, 1, TRAINING),
        validation=_number("validation", validation),
        clip=_number("clip", clip),
        seed=_whole("seed", seed, 0, SEEDS - 1),
        memory=_whole("memory_mb", memory_mb, 0, MEGABYTES),
        command=["stackelberg", "train", "value", folder, "--out", file],
    )
    others = {"dataset", "out", "resume", "command"}
    learning = {field.name: getattr(asked, field.name) for field in fields(asked) if field.name not in others}
    asked.command.extend(_flags({"shaping": shaping, **shaped, "budget": budget, **learning, "threads": threads}))
    how = _lib.Settings(rule=shaping, budget="reference-offline" if budget == "reference" else budget, **shaped)
    found = _lib.train_value(asked, how, threads, progress)
    explained = found["explained"]
    return ValueTraining(
        head=Path(file),
        epochs=[Epoch(*losses) for losses in found["epochs"]],
        best=found["best"],
        explained=None if explained is None else Explained(*explained),
        foresight=found["foresight"],
        conclusion=found["sentence"],
        counts=found["counts"],
    )


def train_reward(
    *,
    pairs: Files = (),
    rated: Files = (),
    out: str | os.PathLike[str],
    held_out: Files = (),
    policy: Policy | None = None,
    embedder: Reference | None = None,
    text_format: str | None = None,
    about: str = "",
    folds: int = 5,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> RewardTraining:
    """Train a reward head on the hidden states of a policy, or on a sentence embedder.

    The head and its card are those of `stackelberg train reward` with the same settings.

    Parameters
    ----------
    pairs
        Files of preference pairs to train on: JSON lines with `chosen` and `rejected`.
    rated
        Files of rated texts to train on, instead of pairs: JSON lines with `text` and `score`, or with
        `prompt`, `response` and `score`.
    out
        The head to write (.safetensors), with a card (.md) beside it.
    held_out
        Files of the same kind on which the head is measured.
    policy
        The policy on whose hidden states the head is trained; default: the default model.
    embedder
        The sentence embedder on which it is trained, instead of a policy.
    text_format
        The format of the texts: chat (default; the policy's chat template) or raw.
    about
        What a high reward means, for the card.
    folds
        Folds of the cross-validation that chooses the regularisation, between 2 and 100.
    seed
        Random seed of the folds.
    threads
        Compute threads of this process; default: all cores. The head does not depend on them.
    progress
        A function that is called with what is done of reading a file's texts, or of the fit, and with all of it.

    Returns
    -------
    RewardTraining
        The head's file, and its metrics with standard errors.

    Raises
    ------
    ValueError, TypeError
        A setting or a line of a file is invalid, or there is nothing to learn.
    OSError
        A file cannot be read, fetched or written.

    Examples
    --------
    >>> import json, pathlib, stackelberg, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> rows = [{"text": f"It was {word} {i}.", "score": score}
    ...         for i in range(8) for word, score in [("good", 1), ("bad", -1), ("fine", 0.5)]]
    >>> _ = (folder / "rated.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    >>> trained = stackelberg.train_reward(rated=folder / "rated.jsonl", out=folder / "good.safetensors", folds=3)
    >>> [metric.name for metric in trained.metrics][0], trained.metrics[0].value > 0.5
    ('Pearson r', True)
    """
    training, ratings, checks = _files("pairs", pairs), _files("rated", rated), _files("held_out", held_out)
    if training and ratings:
        raise ValueError("pairs and rated exclude each other: give one")
    if policy is not None and embedder is not None:
        raise ValueError("policy and embedder exclude each other: give one")
    if embedder is not None and text_format is not None:
        raise ValueError("text_format has no effect with embedder: leave it out")
    if not isinstance(about, str):
        raise TypeError(f"about must be a text, not {type(about).__name__}")
    file = _prompts.reference("out", out)
    folds, seed = whole("folds", folds, 2, 100), whole("seed", seed, 0, SEEDS - 1)
    threads = _whole("threads", threads, 1, _threads())
    name = None if embedder is None else _prompts.reference("embedder", embedder)
    command = ["stackelberg", "train", "reward"]
    for flag, files in [("--pairs", training), ("--rated", ratings), ("--held-out", checks)]:
        command += [flag, *files] if files else []
    given: dict[str, Any] = {"embedder": name, "text_format": text_format, "about": about or None}
    given |= {"folds": folds if folds != 5 else None, "seed": seed or None, "threads": threads}
    given |= {} if policy is None else {"model": policy.reference, "dtype": policy.dtype}
    asked = RewardAsked(
        pairs=training,
        rated=ratings,
        held_out=checks,
        out=file,
        embedder=name,
        text_format=text_format,
        about=about,
        folds=folds,
        seed=seed,
        command=[*command, "--out", file, *_flags(given)],
    )
    found = _lib.train_reward(asked, None if policy is None else policy._policy, threads, progress)
    return RewardTraining(
        head=Path(file),
        metrics=[Metric(*metric) for metric in found["metrics"]],
        regularisation=found["regularisation"],
        data=[dict(zip(["name", "rows", "groups", "held_out"], source, strict=True)) for source in found["data"]],
    )


def _files(name: str, given: Files) -> list[str]:
    if isinstance(given, (str, os.PathLike)):
        return [_prompts.reference(name, given)]
    return [_prompts.reference(name, one) for one in given]


def _number(name: str, value: float | None) -> float | None:
    return None if value is None else number(name, value)


def _whole(name: str, value: int | None, least: int, most: int) -> int | None:
    return None if value is None else whole(name, value, least, most)


def _flags(given: dict[str, Any]) -> list[str]:
    """The settings that are given, as the command line has them."""
    pairs = [("--" + name.replace("_", "-"), value) for name, value in given.items() if value is not None]
    return [text for flag, value in pairs for text in (flag, str(value))]


def _threads() -> int:
    return max(1024, 4 * (os.cpu_count() or 1))
