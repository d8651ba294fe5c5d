"""Answers that are read while they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _lib
from ._answer import Answer, Chunk, answer, chunk
from ._prompts import Prompt

if TYPE_CHECKING:
    from typing_extensions import Self


class Stream(Iterator[Chunk]):
    """The tokens of an answer while they are decoded."""

    def __init__(self, prompt: Prompt, under_way: _lib.Answers, traces: bool) -> None:
        self._prompt = prompt
        self._under_way = under_way
        self._trace: list[dict[str, Any]] | None = [] if traces else None
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """The whole answer, once all of its tokens have been read."""
        if self._answer is None:
            raise ValueError("the answer is not finished: read all chunks first")
        return self._answer

    def close(self) -> None:
        """Cancel the answer."""
        self._under_way.cancel()

    def __next__(self) -> Chunk:
        while (news := self._under_way.next()) is not None:
            if (found := news["answer"]) is not None:
                self._answer = answer(self._prompt, found, self._trace)
            if (piece := news["piece"]) is not None:
                new = chunk(piece)
                if self._trace is not None and new.step is not None:
                    self._trace.append(new.step)
                return new
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
