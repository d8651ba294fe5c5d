"""Answers, and the pieces in which they are streamed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from ._prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer of a policy, and how it came about."""

    prompt: Prompt
    """The prompt, as it was given."""
    text: str
    """The text, without what ended it."""
    token_ids: list[int]
    """Its tokens, without the one that ended it."""
    finish_reason: str
    """Why it ended: stop, or length."""
    stop_reason: str | int | None
    """The stop text or stop token that ended it, if one did."""
    reward: float | None
    """Its reward, if there is a reward."""
    rewards: dict[str, float]
    """What the reward is made of, if it is a combination."""
    mean_log_prob: float
    """Mean of the base policy's log-probability per token, in nats."""
    kl: float | None
    """KL from the base policy in nats; None if the answer is greedy and guided, or not guided."""
    kl_bound: float | None
    """Upper bound of the KL in nats, the restriction to candidates included."""
    steered: int
    """Number of steps in which the choice was not the base policy's."""
    reward_calls: int
    """Number of steps in which rewards were computed; of methods that choose among samples, the texts that were scored."""
    skipped: int
    """Number of steps in which rewards were provably not needed."""
    tokens_run: int
    """Number of tokens that were run through the policy, without the prompt."""
    tokens_scored: int
    """Number of tokens that the reward or the value head read in order to guide."""
    elapsed: float = field(compare=False)
    """Seconds spent on prompt and answer; of what several answers share, the share."""
    settings: dict[str, Any]
    """The settings in force, with the names of the reward and the value head."""
    trace: list[dict[str, Any]] | None = None
    """The decoding steps, if they were asked for."""

    def to_dict(self) -> dict[str, Any]:
        """The answer as a record: a dictionary with all fields. A list of records makes a pandas DataFrame."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A token of an answer that is streamed."""

    text: str
    """The text that it adds, which may be empty. All texts of an answer together are its text."""
    token_id: int
    """The token. The one that ends an answer is streamed, too, if there is one."""
    steered: bool
    """Whether the choice was not the base policy's."""
    step: dict[str, Any] | None = None
    """The decoding step, if a trace was asked for."""


def answer(prompt: Prompt, found: dict[str, Any], trace: list[dict[str, Any]] | None) -> Answer:
    """An answer, as the engine describes it."""
    found = {**found, "rewards": dict(found["rewards"]), "settings": json.loads(found["settings"])}
    return Answer(prompt=prompt, trace=trace, **found)


def chunk(found: dict[str, Any]) -> Chunk:
    """A piece, as the engine describes it."""
    step = None if found["step"] is None else json.loads(found["step"])
    return Chunk(text=found["text"], token_id=found["token"], steered=found["steered"], step=step)
