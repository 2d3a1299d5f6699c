"""Token by token, for many prompts at once: one forward per step and as little as possible beside it.

Prompts of like length share a batch, keys and values are written into room set aside at the start, and rows that
have ended leave the batch once they are a quarter of it. Each row draws from uniform numbers of its own seed, as in
``training.generation.sampling``, so that a reply does not depend on which others are drawn beside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from training.speedups.direct_forward import DirectForward

LEAVE_SHARE = 0.25  # ended rows are dropped when they are this share: each drop copies the cache


@dataclass(frozen=True)
class Decoded:
    """The tokens drawn for one prompt, its end token included where it ended by itself."""

    tokens: tuple[int, ...]
    ended: bool


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    ends: Sequence[int],
    banned: Sequence[int] = (),
    max_new_tokens: int,
    temperature: float = 1.0,
    batch_size: int = 128,
    check: Callable[[], None] = lambda: None,
    direct_forward: DirectForward | None = None,
) -> list[Decoded]:
    """Draw one reply to each prompt, in the order of the prompts; temperature 0 takes the likeliest token.

    ``check`` is called before each batch and may raise to stop. No pad token is needed: padding is masked.
    ``direct_forward`` of the model, if given, computes every token but the first.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    drawn: list[Decoded] = [Decoded((), False)] * len(prompts)
    for start in range(0, len(order), batch_size):
        check()
        places = order[start : start + batch_size]
        batch = _Batch(model, [prompts[i] for i in places], [seeds[i] for i in places], max_new_tokens, direct_forward)
        for place, one in zip(places, batch.run(set(ends), list(banned), temperature), strict=True):
            drawn[place] = one
    return drawn


class _Batch:
    """Rows of one batch while they grow; ``rows`` says which reply each living row is."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        steps: int,
        direct_forward: DirectForward | None,
    ) -> None:
        import torch

        self.model, self.direct_forward = model, direct_forward
        self.steps = steps
        self.width = max(map(len, prompts))
        device = next(model.parameters()).device
        # What stands in a masked place is read by nobody; 0 is a token in every vocabulary.
        self.ids = torch.tensor([[0] * (self.width - len(row)) + list(row) for row in prompts], device=device)
        self.mask = torch.ones(len(prompts), self.width + steps, dtype=torch.long, device=device)
        for place, row in enumerate(prompts):
            self.mask[place, : self.width - len(row)] = 0
        # What the padding adds to the attention of a new token, in the form that every layer wants it
        self.added = torch.zeros(len(prompts), 1, 1, self.width + steps, dtype=model.dtype, device=device)
        self.added.masked_fill_(self.mask[:, None, None] == 0, -torch.inf)
        self.positions = (self.mask[:, : self.width].cumsum(1) - 1).clamp(min=0)
        self.uniforms = torch.tensor(
            [[stream.random() for _ in range(steps)] for stream in map(random.Random, seeds)], device=device
        )
        self.rows = list(range(len(prompts)))
        self.drawn: list[list[int]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)

    def run(self, ends: set[int], banned: list[int], temperature: float) -> list[Decoded]:
        import torch

        cache = roomy_cache(self.model, self.width + self.steps)
        ids, positions = self.ids, self.positions
        never = torch.tensor(banned, dtype=torch.long, device=ids.device)
        with torch.inference_mode():
            for step in range(self.steps):
                logits = self._forward(ids, positions, cache, self.width + step)
                logits.index_fill_(1, never, -torch.inf)
                chosen = choose(logits, self.uniforms[:, step : step + 1], temperature)
                alive = self._take(chosen.tolist(), ends)
                if not alive:
                    break
                ids, positions = chosen[:, None], positions[:, -1:] + 1
                if len(alive) <= (1 - LEAVE_SHARE) * len(self.rows):
                    kept = torch.tensor(alive, device=ids.device)
                    cache.reorder_cache(kept)  # the one way to select rows that recurrent layers have too
                    ids, positions = ids[kept], positions[kept]
                    self.mask, self.added, self.uniforms = self.mask[kept], self.added[kept], self.uniforms[kept]
                    self.rows = [self.rows[place] for place in alive]
        return [Decoded(tuple(tokens), ended) for tokens, ended in zip(self.drawn, self.ended, strict=True)]

    def _forward(self, ids: Tensor, positions: Tensor, cache: Any, length: int) -> Tensor:
        """Logits (row, vocabulary) after the last of so many positions, in fp32."""
        if self.direct_forward is not None and ids.shape[1] == 1:
            states = self.direct_forward(ids, positions, self.added[..., :length], cache)
            return self.model.get_output_embeddings()(states[:, -1]).float()  # type: ignore[no-any-return]
        out = self.model(
            input_ids=ids,
            attention_mask=self.mask[:, :length],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()  # type: ignore[no-any-return]

    def _take(self, chosen: list[int], ends: set[int]) -> list[int]:
        """Write down what was drawn; the places of the rows that go on."""
        alive = []
        for place, (row, token) in enumerate(zip(self.rows, chosen, strict=True)):
            if self.ended[row]:
                continue
            self.drawn[row].append(token)
            self.ended[row] = token in ends
            if not self.ended[row]:
                alive.append(place)
        return alive


def choose(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """The token each row's uniform number points at: inverse-CDF sampling, exact, one number per token.

    ``logits`` (row, vocabulary), ``uniform`` (row, 1); temperature 0 takes the likeliest.
    """
    import torch

    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / temperature).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    point = uniform.to(cumulative.dtype) * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, point, right=True).clamp_(max=logits.shape[-1] - 1)
    # Rounding can land on a token of probability 0 at the very end of the sum
    impossible = probabilities.gather(1, chosen) == 0
    return torch.where(impossible, probabilities.argmax(-1, keepdim=True), chosen).squeeze(1)


def roomy_cache(model: Any, room: int) -> Any:
    """A cache of keys and values with room set aside; layers with a window of their own keep their own kind."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class RoomyLayer(DynamicLayer):  # type: ignore[misc]
        """Writes into one buffer instead of copying everything at every token."""

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                rows, heads, _length, size = key_states.shape
                self.key_room = key_states.new_empty(rows, heads, room, size)
                self.value_room = value_states.new_empty(rows, heads, room, value_states.shape[-1])
                self.used = 0
            end = self.used + key_states.shape[-2]
            self.key_room[..., self.used : end, :] = key_states
            self.value_room[..., self.used : end, :] = value_states
            self.used = end
            self.keys, self.values = self.key_room[..., :end, :], self.value_room[..., :end, :]
            return self.keys, self.values

        def reorder_cache(self, beam_idx: Tensor) -> None:
            self.key_room, self.value_room = self.key_room[beam_idx], self.value_room[beam_idx]
            self.keys, self.values = self.key_room[..., : self.used, :], self.value_room[..., : self.used, :]

    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
