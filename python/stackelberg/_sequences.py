"""The rows of a generation of transformers, and the rewards of their candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ._branches import Branches, hidden_states
from ._guidance import RewardFunction


class Sequences:
    """The rows of a generation: their tokens, which of these are padding, where the answers begin, and which are finished."""

    def __init__(self, eos: list[int], pad: int | None) -> None:
        self.eos, self.pad = torch.tensor(eos, dtype=torch.long), pad
        self.tokens: Any = None

    def begin(self, tokens: torch.Tensor, shown: torch.Tensor | None) -> None:
        """A generation begins with these prompts. Without `shown`, what is padding is found in the tokens."""
        if shown is None:
            content = torch.ones_like(tokens, dtype=torch.bool) if self.pad is None else tokens != self.pad
            shown = content.cumsum(1) > 0
            # A prompt of padding alone is a prompt of its last token.
            shown[:, -1] = True
        self.tokens, self.prompts, self.shown = tokens, tokens, shown
        self.alive = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)

    def read(self, tokens: torch.Tensor) -> Sequences:
        """The rows as they are now: those of the last call with one token more each, or else new prompts."""
        if self.tokens is None or not self._goes_on(tokens):
            self.begin(tokens, None)
            return self
        start = self.prompts.shape[1]
        self.tokens = tokens
        answers = tokens[:, start:]
        self.shown = torch.cat([self.shown[:, :start], torch.ones_like(answers, dtype=torch.bool)], 1)
        self.alive = ~torch.isin(answers, self.eos.to(answers.device)).any(1)
        return self

    def _goes_on(self, tokens: torch.Tensor) -> bool:
        """Beams are put in another order within their prompt, so that only prompts can be compared."""
        if len(tokens) != len(self.tokens) or tokens.shape[1] - self.tokens.shape[1] not in (0, 1):
            return False
        start = self.prompts.shape[1]
        longer = tokens.shape[1] > self.tokens.shape[1] or start == tokens.shape[1]
        return bool(longer and torch.equal(tokens[:, :start], self.prompts))


class Texts:
    """A function of prompts and answers: of texts with a tokenizer, else of token ids."""

    def __init__(self, function: RewardFunction, tokenizer: Any) -> None:
        self.function, self.tokenizer = function, tokenizer

    def __call__(self, rows: Sequences, candidates: torch.Tensor, alive: torch.Tensor) -> Any:
        start, count = rows.prompts.shape[1], candidates.shape[1]
        prompts: list[Any] = [rows.prompts[row][rows.shown[row, :start]].tolist() for row in alive.tolist()]
        answers: list[Any] = []
        for row in alive.tolist():
            written = rows.tokens[row, start:].tolist()
            answers += [[*written, token] for token in candidates[row].tolist()]
        if self.tokenizer is not None:
            plain = {"clean_up_tokenization_spaces": False}
            prompts = self.tokenizer.batch_decode(prompts, skip_special_tokens=False, **plain)
            answers = self.tokenizer.batch_decode(answers, skip_special_tokens=True, **plain)
            # The bytes of a character that is not complete.
            answers = [answer.rstrip("\ufffd") for answer in answers]
        prompts = [prompt for prompt in prompts for _ in range(count)]
        return np.reshape(self.function(prompts, answers), (len(alive), count))


class RewardModel:
    """A classifier over a decoder, with its cache."""

    def __init__(self, model: PreTrainedModel, label: int | str | None) -> None:
        name = type(model).__name__
        head = getattr(model, "score", None)
        if not isinstance(head, torch.nn.Linear):
            raise ValueError(f"{name} has no linear layer `score`: give a ...ForSequenceClassification over a decoder, or a function")
        labels: Any = model.config.label2id or {}
        index: Any = labels.get(label, -1) if isinstance(label, str) else 0 if label is None else label
        if (label is None and head.out_features != 1) or not 0 <= index < head.out_features:
            known = ", ".join(map(str, labels))
            raise ValueError(f"label is {label!r}: {name} has {head.out_features} labels ({known}), choose one of them")
        self.words: Any = model.get_input_embeddings().num_embeddings
        self.weight = head.weight[index].detach().float()
        self.bias = 0.0 if head.bias is None else float(head.bias[index])
        self.branches = Branches(getattr(model, model.base_model_prefix))

    def __call__(self, rows: Sequences, candidates: torch.Tensor, alive: torch.Tensor) -> Any:
        if (most := int(max(candidates.max(), rows.tokens.max()))) >= self.words:
            raise ValueError(f"the reward model has {self.words} tokens, the policy has token {most}: they need the same tokenizer")
        device = self.weight.device
        self.branches.follow(rows.tokens.to(device), rows.shown.to(device), rows.alive.to(device))
        hidden = hidden_states(self.branches.branch(candidates.to(device)))
        rewards = hidden.float() @ self.weight + self.bias
        return rewards[alive.to(device)].double().cpu().numpy()
