"""What `Policy.generate` is asked for: settings that are no guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from ._guidance import RewardFunction


class Sampling(TypedDict, total=False):
    """Settings of `Policy.generate` that are no guidance; see there."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    min_tokens: int | None
    seed: int | None
    stop: str | Sequence[str] | None
    ignore_eos: bool | None
    system: str | None
    prompt_format: str | None


NAMES = {"max_tokens": "max_new_tokens", "ignore_eos": "no_eos"}
"""What the engine calls settings."""

KNOWN = frozenset(Sampling.__annotations__)


@dataclass(frozen=True)
class Asked:
    """What the engine reads of a call."""

    prompts: list[str]
    guidance: str
    function: tuple[str, RewardFunction] | None
    options: str
    n: int
    system: str | None
    prompt_format: str | None
    steps: bool
