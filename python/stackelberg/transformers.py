"""Guidance for `generate` of Hugging Face transformers: logits processors for any causal language model.

`ArgsLogitsProcessor` adds shaped rewards to the logits of each step's likeliest tokens, `ValueLogitsProcessor` the values of a
value head. Both leave the choice to `generate`, greedy or sampled: every other token has the score minus infinity. They need
`pip install 'stackelberg[transformers]'`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from safetensors import safe_open
from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from ._branches import Branches, hidden_states
from ._guidance import RewardFunction, checked
from ._prompts import count
from ._sequences import RewardModel, Sequences, Texts
from ._step import fused, rule
from ._types import Rule

if TYPE_CHECKING:
    from typing_extensions import Unpack

Tokens: TypeAlias = int | Iterable[int] | None
"""A token, several, or none."""

MOST = 4096
"""The most candidates of a step."""


class ArgsLogitsProcessor(LogitsProcessor):
    """Token-level search (ARGS): the shaped rewards of the k likeliest tokens are added to their logits.

    The scores are f = l + lambda s for the k tokens with the largest logits l, where s are the rewards of the texts so far with
    each of these tokens, shaped over the k. A processor may be used for one generation after the other, not for two at once.

    Parameters
    ----------
    reward
        One of

        - a function of texts, with `tokenizer`: it takes a list of prompts and a list of answers, which may be unfinished, and
          returns one finite number for each answer. Prompts are decoded with their special tokens, answers without;
        - a function of tokens, without `tokenizer`: the same with lists of token ids;
        - a reward model, a `...ForSequenceClassification` over a decoder with the tokenizer of the policy. It has a cache of
          keys and values: a step costs one token for each candidate, all in one forward pass.

        A function is called once a step, with the candidates of all rows that are not finished.
    tokenizer
        The policy's tokenizer, for a reward of texts.
    candidates
        The number k of candidates of a step.
    label
        The label of a reward model whose logit is the reward, if it has several.
    temperature
        The temperature that `generate` draws at. A KL budget holds at this temperature; nothing else depends on it.
    eos_token_id
        Tokens that end an answer: no rewards are computed for rows that are finished. Default: those of the tokenizer or the
        reward model.
    pad_token_id
        Tokens like this at the start of a row are padding. Default: that of the tokenizer or the reward model; without one, no
        row is padded.
    settings
        The shaping rule with its settings, as in `stackelberg.shape`: `rule` (default `srs`), `strength` or `beta`, `bound`,
        `alpha`, `kl_budget` (nats per step) and so on. If neither a strength nor a bound is given: a KL budget of 0.3 nats.

    Raises
    ------
    ValueError, TypeError
        A setting is unknown or outside its range, or the reward is none of the above.

    References
    ----------
    Khanov et al. 2024 (ARGS, arXiv 2402.01694); arXiv 2602.02572 for the shaping of a step.

    Examples
    --------
    >>> import torch
    >>> from stackelberg.transformers import ArgsLogitsProcessor
    >>> guide = ArgsLogitsProcessor(lambda prompts, answers: [float(sum(ids)) for ids in answers], bound=2.0)
    >>> scores = guide(torch.tensor([[5]]), torch.tensor([[0.0, 0.5, 0.4]]))
    >>> scores.shape, int(scores.argmax())
    (torch.Size([1, 3]), 2)
    """

    def __init__(
        self,
        reward: RewardFunction | Callable[[list[list[int]], list[list[int]]], Sequence[float]] | PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        candidates: int = 10,
        label: int | str | None = None,
        temperature: float = 1.0,
        eos_token_id: Tokens = None,
        pad_token_id: int | None = None,
        **settings: Unpack[Rule],
    ) -> None:
        self.candidates = count("candidates", candidates, MOST)
        self.temperature = _positive("temperature", temperature)
        self.rule = rule(settings)
        self._score: Texts | RewardModel
        known: Any = tokenizer
        if isinstance(reward, PreTrainedModel):
            if tokenizer is not None:
                raise TypeError("a reward model reads tokens: give no tokenizer")
            self._score, known = RewardModel(reward, label), reward.config.get_text_config()
        elif callable(reward):
            if label is not None:
                raise TypeError("a function has no labels: give no label")
            function: Any = reward
            self._score = Texts(checked(str(getattr(reward, "__name__", type(reward).__name__)), function), tokenizer)
        else:
            raise TypeError(f"reward must be a function or a model, not {type(reward).__name__}")
        self._rows = Sequences(
            _tokens("eos_token_id", getattr(known, "eos_token_id", None) if eos_token_id is None else eos_token_id),
            getattr(known, "pad_token_id", None) if pad_token_id is None else pad_token_id,
        )

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores of the next tokens.

        Parameters
        ----------
        input_ids
            The texts so far, shape (B, T), padded on the left.
        scores
            Logits, shape (B, V).

        Returns
        -------
        Scores, shape (B, V): of the candidates f, of others minus infinity. Rows that are finished are returned as they are.

        Raises
        ------
        Exception
            What the reward function raises; ValueError if a reward is not finite.
        """
        rows = self._rows.read(input_ids)
        logits, candidates = scores.topk(min(self.candidates, scores.shape[1]))
        alive = rows.alive.nonzero().flatten()
        if not len(alive):
            return scores
        rewards = self._score(rows, candidates, alive)
        if not np.isfinite(rewards).all():
            raise ValueError("a reward of the model is not finite")
        found = fused(logits[alive].double().cpu().numpy(), rewards, self.rule, self.temperature)
        changed: torch.FloatTensor = _only(scores, alive, candidates[alive], torch.from_numpy(found))
        return changed


class ValueLogitsProcessor(LogitsProcessor):
    """Controlled decoding (CD): the values of a value head are added to the log-probabilities of the k likeliest tokens.

    The scores are f = log p + lambda V(h) for the k tokens with the largest log p, with p at the policy temperature, and h the
    policy's hidden state of the candidate after the final norm. An end-of-text token has the value of the text before it.

    As a logits processor alone, it runs the model on the candidates with a cache of its own, so that the prompt and each token
    are run twice. With `custom_generate` they are run once, and the results are the same:

        model.generate(**inputs, logits_processor=[guide], custom_generate=guide.branch_and_commit)

    Parameters
    ----------
    head
        The file that `stackelberg train value` writes (.safetensors), or a function (a torch module) from hidden states (N, d)
        to values (N,) or (N, 1). It must have been trained on this model.
    model
        The policy: the model whose `generate` is called.
    strength
        Lambda, in nats per unit of the value.
    candidates
        The number k of candidates of a step.
    policy_temperature
        The temperature of p.
    eos_token_id, pad_token_id
        As in `ArgsLogitsProcessor`. Default: those of the model's generation config.

    Raises
    ------
    ValueError, TypeError, OSError
        A setting is outside its range; the head is not a value head or has another width than the model; the model is not a
        causal model with attention.

    References
    ----------
    Mudgal et al. 2024 (controlled decoding, arXiv 2310.17022); arXiv 2602.02572 for heads of shaped rewards.
    """

    def __init__(
        self,
        head: str | os.PathLike[str] | Callable[[torch.Tensor], torch.Tensor],
        model: PreTrainedModel,
        *,
        strength: float = 4.0,
        candidates: int = 10,
        policy_temperature: float = 0.7,
        eos_token_id: Tokens = None,
        pad_token_id: int | None = None,
    ) -> None:
        if not np.isfinite(strength) or strength < 0:
            raise ValueError(f"strength is {strength}: it must be a finite number, zero or more")
        width = model.config.get_text_config().hidden_size
        self.head = head if callable(head) else value_head(head, width, model.device)
        self.model, self.strength = model, float(strength)
        self.candidates = count("candidates", candidates, MOST)
        self.policy_temperature = _positive("policy_temperature", policy_temperature)
        config = model.generation_config
        self._rows = Sequences(
            _tokens("eos_token_id", config.eos_token_id if eos_token_id is None else eos_token_id),
            config.pad_token_id if pad_token_id is None else pad_token_id,
        )
        self._branches = Branches(getattr(model, model.base_model_prefix))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores of the next tokens; parameters and result as in `ArgsLogitsProcessor`."""
        rows = self._rows.read(input_ids)
        alive = rows.alive.nonzero().flatten()
        if not len(alive):
            return scores
        self._read()
        log_probs, candidates = (scores / self.policy_temperature).log_softmax(1).topk(min(self.candidates, scores.shape[1]))
        self._ahead = self._branches.branch(candidates)
        states = hidden_states(self._ahead)
        ends = torch.isin(candidates, rows.eos.to(candidates.device))
        states = torch.where(ends[:, :, None], self._last[:, None], states)
        with torch.no_grad():
            values = self.head(states.flatten(0, 1)).reshape(candidates.shape)
        if not bool(torch.isfinite(values[alive]).all()):
            raise ValueError("a value of the head is not finite")
        found = (log_probs.double() + self.strength * values.double())[alive]
        changed: torch.FloatTensor = _only(scores, alive, candidates[alive], found)
        return changed

    def branch_and_commit(
        self,
        model: PreTrainedModel,
        input_ids: torch.LongTensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> torch.LongTensor:
        """Decode with one forward pass of k tokens a step; for `generate(custom_generate=...)`.

        The pass that scores the candidates also has the logits after each of them: the chosen one's keys and values are kept,
        and nothing is run again. Its parameters are those that `generate` passes.

        Raises
        ------
        ValueError
            This processor is not among `logits_processor`; the model is another one; or beams, GPUs that wait for each other or
            a dictionary as result are asked for, which are not supported.
        """
        config = generation_config
        if model is not self.model:
            raise ValueError("generate was called on another model than the processor has")
        if not any(processor is self for processor in logits_processor):
            raise ValueError("pass the processor as logits_processor=[guide], too")
        if (config.num_beams or 1) > 1 or synced_gpus or config.return_dict_in_generate:
            raise ValueError("branch_and_commit does not support num_beams, synced_gpus and return_dict_in_generate")
        mask, rows, branches = model_kwargs.get("attention_mask"), self._rows, self._branches
        ends = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
        self._rows = Sequences(config._eos_token_tensor.tolist() if ends else [], None)
        self._rows.begin(input_ids, None if mask is None else mask.bool())
        self._branches = Branches(model, output_hidden_states=True)
        pad = config._pad_token_tensor if ends else None
        try:
            found: torch.LongTensor = self._decode(
                input_ids, logits_processor, stopping_criteria, config.do_sample, pad, streamer
            )
            return found
        finally:
            self._rows, self._branches = rows, branches

    def _decode(self, tokens: Any, processors: Any, criteria: Any, draws: bool, pad: Any, streamer: Any) -> Any:
        every = torch.arange(len(tokens), device=tokens.device)
        going = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        logits = self._read().logits[:, -1]
        while bool(going.any()):
            scores = processors(tokens, logits.float().clone())
            chosen = scores.softmax(1).multinomial(1).squeeze(1) if draws else scores.argmax(1)
            # The logits after the chosen candidate; of rows that are finished, any.
            index = (self._branches.candidates == chosen[:, None]).long().argmax(1)
            logits = self._ahead.logits[every, index]
            if pad is not None:
                chosen = torch.where(going, chosen, pad.to(chosen.device))
            tokens = torch.cat([tokens, chosen[:, None]], 1)
            if streamer is not None:
                streamer.put(chosen.cpu())
            going = going & ~criteria(tokens, None)
        if streamer is not None:
            streamer.end()
        return tokens

    def _read(self) -> Any:
        """Brings the cache to the rows, and keeps the hidden states of their last tokens, shape (B, d)."""
        rows, branches = self._rows, self._branches
        output = branches.follow(rows.tokens, rows.shown, rows.alive)
        if output is not None:
            self._last = hidden_states(output)[:, -1]
        elif branches.chosen is not None:
            self._last = hidden_states(self._ahead)[branches.rows, branches.chosen]
        return output


def value_head(path: str | os.PathLike[str], width: int, device: Any = None) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load a value head: V(h) = w4 tanh(W2 tanh(W0 h + b0) + b2) + b4, clamped to [0, B] if it was trained on bounded rewards.

    Parameters
    ----------
    path
        A file of `stackelberg train value`: safetensors with `0.weight` (h1, d), `0.bias` (h1,), `2.weight` (h2, h1), `2.bias`
        (h2,), `4.weight` (1, h2) and `4.bias` (1,).
    width
        The width d of the model's hidden states.
    device
        Where to put it.

    Returns
    -------
    A function from hidden states (N, d) to values (N,), in units of the shaped reward.

    Raises
    ------
    ValueError, OSError
        The file cannot be read, is not a value head, or has another width.
    """
    with safe_open(os.fspath(path), "pt", device=str(device or "cpu")) as file:
        about, names = file.metadata() or {}, set(file.keys())
        wanted = [f"{layer}.{part}" for layer in (0, 2, 4) for part in ("weight", "bias")]
        if about.get("format", "pt") not in ("stackelberg-value", "pt") or not names.issuperset(wanted):
            raise ValueError(f"{path} is not a value head: its tensors must be {', '.join(wanted)}")
        parts = [file.get_tensor(name).float() for name in wanted]
    if (found := parts[0].shape[-1]) != width:
        raise ValueError(f"{path} reads hidden states of width {found}, the model's have {width}")
    bound = float(about["bound"]) if "bound" in about else None

    def values(hidden: torch.Tensor) -> torch.Tensor:
        x = hidden.float()
        for weight, bias in ((parts[0], parts[1]), (parts[2], parts[3])):
            x = torch.nn.functional.linear(x, weight, bias).tanh()
        value = torch.nn.functional.linear(x, parts[4], parts[5]).squeeze(1)
        return value if bound is None else value.clamp(0.0, bound)

    return values


def _only(scores: Any, alive: Any, candidates: Any, found: Any) -> Any:
    """Scores in which these rows have no tokens but the candidates."""
    rows = torch.full_like(scores[alive], -torch.inf)
    rows.scatter_(1, candidates, found.to(scores))
    changed = scores.clone()
    changed[alive] = rows
    return changed


def _tokens(name: str, given: Any) -> list[int]:
    """One token, several or none, as a list."""
    if given is None:
        return []
    if isinstance(given, Mapping) or isinstance(given, (str, bytes)):
        raise TypeError(f"{name} must be a token id or several, not {type(given).__name__}")
    return [int(token) for token in np.atleast_1d(np.asarray(given))]


def _positive(name: str, value: float) -> float:
    if not np.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is {value}: it must be a finite number above 0")
    return float(value)
