"""Prompts and answers: from what users pass to what the engine reads."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Prompt: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A text, or messages: a list of dictionaries with role and content."""

Reference: TypeAlias = str | os.PathLike[str]
"""A name, an address or a path."""

Prompts: TypeAlias = list[str] | list[list[dict[str, str]]] | tuple[str, ...]
"""Several prompts."""


def is_one(prompts: object) -> bool:
    """Whether this is one prompt, not several."""
    if isinstance(prompts, str):
        return True
    return isinstance(prompts, Sequence) and len(prompts) > 0 and isinstance(prompts[0], Mapping)


def several(prompts: Any) -> list[Prompt]:
    """The prompts of a list or a column, or the one prompt."""
    if is_one(prompts):
        return [prompts]
    if isinstance(prompts, (Mapping, bytes)) or not isinstance(prompts, Iterable):
        raise TypeError(f"prompt must be a text, messages or a list of these, not {type(prompts).__name__}")
    return list(prompts)


def encoded(prompt: Prompt) -> str:
    """A prompt as JSON."""
    if not isinstance(prompt, (str, list, tuple)):
        raise TypeError(f"a prompt must be a text or a list of messages, not {type(prompt).__name__}")
    messages = prompt if isinstance(prompt, str) else [_message(message) for message in prompt]
    return json.dumps(messages)


def _message(message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TypeError(f"a message must be a dictionary with role and content, not {type(message).__name__}")
    for field in ("role", "content"):
        if field not in message:
            raise ValueError(f"a message must have role and content: {field} is missing")
    return dict(message)


def reference(what: str, given: object) -> str:
    """A reference: a text, or a path."""
    if isinstance(given, (str, os.PathLike)):
        return str(os.fspath(given))
    raise TypeError(f"{what} must be a text or a path, not {type(given).__name__}")


def settings(given: Mapping[str, Any]) -> str:
    """Settings as JSON. Those that are None are left out."""
    return json.dumps({name: _plain(name, value) for name, value in given.items() if value is not None})


def _plain(name: str, value: Any) -> Any:
    """A value without NumPy."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {'NaN' if math.isnan(value) else value}: it must be a finite number")
    return value


def count(name: str, value: Any, most: int | None = None) -> int:
    """A whole number of at least one."""
    try:
        number = value.__index__()
    except AttributeError:
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}") from None
    if number < 1 or (most is not None and number > most):
        must = "one or more" if most is None else f"a whole number between 1 and {most}"
        raise ValueError(f"{name} is {number}: it must be {must}")
    return int(number)
