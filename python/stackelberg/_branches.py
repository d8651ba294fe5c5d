"""A causal model of transformers that looks ahead at candidates over one shared prefix per row.

`follow` brings the prefix to given tokens, `branch` runs k candidates of each row in one forward pass, and the next `follow`
keeps the keys and values of the candidate that was chosen. So a step runs k tokens, and nothing twice (arXiv 2602.02572,
decoding with a value function; the paper's code copies the whole cache k times).
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel


class Branches:
    """The prefixes of B rows in a model's cache, and the candidates that were looked at last.

    Parameters
    ----------
    model
        A decoder, with or without a head. Its layers must have attention, over all tokens or a window, as `sdpa` or `eager`.
    options
        Further arguments of each forward pass.

    Raises
    ------
    ValueError
        The model is not such a decoder.
    """

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        self.model, self.options = model, options
        config = model.config.get_text_config()
        window: Any = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
        name = type(model).__name__
        if config.is_encoder_decoder or "cache" not in inspect.signature(model.forward).parameters:
            raise ValueError(f"{name} is not a causal model with a cache of keys and values")
        if other := sorted(kinds - {"full_attention", "sliding_attention"}):
            raise ValueError(f"{name} has layers of the kind {other[0]}: only attention over all tokens or a window is supported")
        if (attention := config._attn_implementation) not in ("sdpa", "eager"):
            raise ValueError(f"{name} has the attention {attention!r}: load it with attn_implementation='sdpa' or 'eager'")
        self._kinds, self._window = kinds, window
        # Of a text that is read, the last token's logits are enough.
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        self.tokens: Any = None
        self.chosen: Any = None

    def follow(self, tokens: torch.Tensor, shown: torch.Tensor, alive: torch.Tensor) -> Any:
        """Bring the prefixes to these tokens.

        Parameters
        ----------
        tokens
            The tokens of each row, shape (B, T), padded on the left.
        shown
            False where a token is padding, shape (B, T).
        alive
            False for rows that are finished, shape (B,). What is kept of them does not matter.

        Returns
        -------
        The output of the forward pass, if one was needed. None if the last tokens are candidates that were looked at: then row b
        was row `rows[b]` when they were, and its candidate has the number `chosen[b]`. None, too, if the prefixes are these tokens
        already; then `chosen` is None.
        """
        self.chosen = None
        if self.tokens is not None and torch.equal(self.tokens, tokens):
            return None
        if not self._is_next(tokens):
            self.cache = DynamicCache()
            self.tokens, self.shown = tokens, shown[:, :0]
            return self._read(tokens, shown)
        self.tokens, chosen = tokens, tokens[:, -1:]
        hits = self.candidates == chosen
        if bool((hits.any(1) | ~alive).all()):
            self.chosen = hits.long().argmax(1)
            self._keep(self.chosen)
            self.shown = torch.cat([self.shown, shown[:, -1:]], 1)
            return None
        self._keep(None)
        return self._read(chosen, shown[:, -1:])

    def branch(self, candidates: torch.Tensor) -> Any:
        """Run each candidate as the next token of its row, all in one forward pass.

        Parameters
        ----------
        candidates
            Tokens, shape (B, k).

        Returns
        -------
        The output of the forward pass. Position j of row b is candidate j: hidden states (B, k, d).
        """
        self._keep(None)
        (rows, count), self.candidates = candidates.shape, candidates
        own = torch.eye(count, dtype=torch.bool, device=candidates.device).expand(rows, count, count)
        seen = torch.cat([self.shown[:, None].expand(rows, count, -1), own], 2)
        positions = self.shown.sum(1, keepdim=True)
        before = (self.shown.cumsum(1) - 1)[:, None].expand(rows, count, -1)
        keys = torch.cat([before, positions[:, None].expand(rows, count, count)], 2)
        return self._run(candidates, seen, positions.expand(rows, count), keys)

    def _is_next(self, tokens: torch.Tensor) -> bool:
        """Whether these tokens are the prefixes and one more each. Rows in another order, as beams have, are put in order."""
        known = self.tokens
        if known is None or known.shape != tokens[:, :-1].shape:
            return False
        before = tokens[:, :-1]
        self.rows = torch.arange(len(tokens), device=tokens.device)
        if torch.equal(before, known):
            return True
        same = (before[:, None] == known[None]).all(2)
        if not bool(same.any(1).all()):
            return False
        self.rows = same.long().argmax(1)
        self.cache.batch_select_indices(self.rows)
        self.shown, self.candidates = self.shown[self.rows], self.candidates[self.rows]
        return True

    def _read(self, tokens: torch.Tensor, shown: torch.Tensor) -> Any:
        length = self.shown.shape[1]
        self.shown = torch.cat([self.shown, shown], 1)
        rows, total = self.shown.shape
        places = (self.shown.cumsum(1) - 1).clamp(min=0)
        causal = torch.ones(total, total, dtype=torch.bool, device=tokens.device).tril()[length:]
        # A padding token sees itself, so that no row of the mask is empty.
        own = torch.eye(total, dtype=torch.bool, device=tokens.device)[length:]
        seen = causal & self.shown[:, None] | own
        keys = places[:, None].expand(rows, total - length, total)
        return self._run(tokens, seen, places[:, length:], keys, **self._last)

    def _run(self, tokens: torch.Tensor, seen: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, **more: Any) -> Any:
        """A forward pass. `seen` (B, n, T) says which keys each token sees, `keys` (B, n, T) are the positions of these."""
        def bias(seen: torch.Tensor) -> torch.Tensor:
            empty = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device)
            return empty.masked_fill(~seen, torch.finfo(self.model.dtype).min)[:, None]

        masks = {"full_attention": bias(seen)}
        if "sliding_attention" in self._kinds:
            masks["sliding_attention"] = bias(seen & (keys > positions[:, :, None] - self._window))
        mask = masks if len(self._kinds) > 1 else masks[next(iter(self._kinds))]
        with torch.no_grad():
            return self.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                cache=self.cache,
                use_cache=True,
                **self.options,
                **more,
            )

    def _keep(self, index: torch.Tensor | None) -> None:
        """Append the keys and values of one candidate per row to the prefix, shape (B,), and drop the others; None: drop all."""
        length = self.shown.shape[1]
        layers: Any = self.cache.layers
        for layer in layers:
            if not layer.is_initialized:
                continue
            for name in ("keys", "values"):
                states = getattr(layer, name)
                if index is not None:
                    rows = torch.arange(len(states), device=states.device)
                    states[:, :, length] = states[rows, :, length + index.to(states.device)]
                setattr(layer, name, states[:, :, : length + (index is not None)])


def hidden_states(output: Any) -> Any:
    """The hidden states after the final norm, shape (B, n, d)."""
    states = getattr(output, "last_hidden_state", None)
    return output.hidden_states[-1] if states is None else states
