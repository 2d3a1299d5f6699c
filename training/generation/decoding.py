"""The decoding loop: one forward per token for a batch of replies, with a KV cache; PPO and ``sample`` both draw by it.

Prompts of like length share a batch, as many as the memory for keys and values allows. A prompt that is given several
times, for a reply each, is computed once. Keys and values are written into room set aside in advance. Rows that have
ended leave the batch once they are a quarter of it. Each row draws from uniform numbers of its own seed, so in fp32 a
reply does not depend on which others are drawn beside it, and torch's global generators are never touched.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from training.generation.stopping import check_stopped

if TYPE_CHECKING:
    from torch import Tensor

    from training.speedups.direct_forward import DirectForward

LEAVE_SHARE = 0.25  # ended rows are dropped when they are this share: each drop copies the cache
ROOM = 128  # tokens by which the room for keys and values grows: each growth copies the cache
CACHE_BYTES = 2 << 30  # keys and values of one batch at most; one row is drawn whatever it takes
STATE_CACHE = "cache_params"  # what a forward without attention, such as Mamba's, calls its cache
CACHE_NAMES = ("past_key_values", STATE_CACHE)
OWN_CACHES = {"minimax", "xlstm"}  # model types with a cache of their own kind: all tokens are computed at each step


OnToken = Callable[[float, int], None]  # replies drawn, those under way in part by their room; tokens drawn
OnDrawn = Callable[[Sequence[Sequence[int]]], None]  # the tokens of each reply of a batch so far


@dataclass(frozen=True)
class Decoded:
    """The tokens drawn for one prompt, its end token included where it ended by itself.

    ``stopped``: it ended by a stop string, which the tokens hold in the place of an end token.
    """

    tokens: tuple[int, ...]
    ended: bool
    stopped: bool = False


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    ends: Sequence[int],
    stops: Callable[[Sequence[int]], bool] | None = None,
    banned: Sequence[int] = (),
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    batch_size: int = 128,
    check: Callable[[], None] = lambda: None,
    on_batch: Callable[[int], None] = lambda drawn: None,
    on_token: OnToken = lambda drawn, tokens: None,
    on_drawn: OnDrawn = lambda drawn: None,
    direct_forward: DirectForward | None = None,
) -> list[Decoded]:
    """Draw one reply to each prompt (token ids), in the order of the prompts; see ``choose`` for how a token is drawn.

    A reply ends with the first of the ``ends``, which it keeps, or at ``max_new_tokens``, or once ``stops`` is true of
    its tokens, which is asked at each token. Tokens in ``banned`` are never drawn. ``model`` is a causal model without
    a wrapper around it. No pad token is needed: padding is masked.

    ``batch_size`` is the most that is drawn side by side. ``check`` is called before each batch and may raise to stop;
    so may the check of ``stoppable``, at each token. ``on_batch`` is told after each batch how many replies are drawn,
    ``on_token`` and ``on_drawn`` after each token. ``direct_forward`` of the model, if given, computes every token but
    the first.
    """
    drawn: list[Decoded] = [Decoded((), False)] * len(prompts)
    draw = partial(choose, temperature=temperature, top_k=top_k, top_p=top_p)
    if prompts and _rope_changes(model, prompts, max_new_tokens):
        batch_size = 1
    done = tokens = 0
    for places in _batches(model, prompts, max_new_tokens, batch_size):
        check()
        batch = _Batch(model, [prompts[i] for i in places], [seeds[i] for i in places], max_new_tokens, direct_forward)
        told = partial(_tell, on_token, done, tokens)
        batch.on_drawn = on_drawn
        for place, one in zip(places, batch.run(set(ends), stops, list(banned), draw, told), strict=True):
            drawn[place] = one
            tokens += len(one.tokens)
        done += len(places)
        on_batch(done)
    return drawn


def _tell(on_token: OnToken, done: int, tokens: int, more_done: float, more_tokens: int) -> None:
    on_token(done + more_done, tokens + more_tokens)


def _batches(model: Any, prompts: Sequence[Sequence[int]], steps: int, most: int) -> Iterator[list[int]]:
    """The places of the prompts batch by batch, longest first and equal ones together, ``most`` at a time or fewer.

    The longest prompt of a batch decides how many places the keys and values of each row take.
    """
    first: dict[tuple[int, ...], int] = {}
    groups = [first.setdefault(tuple(prompt), place) for place, prompt in enumerate(prompts)]
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), groups[i]))
    start = 0
    while start < len(order):
        row = (len(prompts[order[start]]) + steps) * bytes_per_token(model)
        size = max(1, min(most, CACHE_BYTES // row)) if row else most
        yield order[start : start + size]
        start += size


def bytes_per_token(model: Any) -> int:
    """What keys and values of one token take in all layers; 0 where the configuration does not say."""
    config = model.config.get_text_config()
    layers, heads = getattr(config, "num_hidden_layers", None), getattr(config, "num_attention_heads", None)
    if not isinstance(layers, int) or not isinstance(heads, int) or not heads:
        return 0
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * layers * (getattr(config, "num_key_value_heads", None) or heads) * size * model.dtype.itemsize)


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
        self.accepted: Container[str] = signature(model.forward).parameters
        named = [] if model.config.model_type in OWN_CACHES else [name for name in CACHE_NAMES if name in self.accepted]
        self.cache_name = named[0] if named and not _rope_changes(model, prompts, steps) else None
        self.steps, self.prompts = steps, [tuple(prompt) for prompt in prompts]
        self.width = max(map(len, prompts))
        device = next(model.parameters()).device
        # What stands in a masked place is read by nobody; 0 is a token in every vocabulary.
        self.ids = torch.tensor([[0] * (self.width - len(row)) + list(row) for row in prompts], device=device)
        self.mask = torch.ones(len(prompts), self.width + steps, dtype=torch.long, device=device)
        for place, row in enumerate(prompts):
            self.mask[place, : self.width - len(row)] = 0
        self.added: Tensor | None = None
        if direct_forward is not None:
            # What the padding adds to the attention of a new token, in the form that every layer wants it
            self.added = torch.zeros(len(prompts), 1, 1, self.width + steps, dtype=model.dtype, device=device)
            self.added.masked_fill_(self.mask[:, None, None] == 0, -torch.inf)
        self.positions = (self.mask[:, : self.width].cumsum(1) - 1).clamp(min=0)
        self.uniforms = torch.tensor(
            [[stream.random() for _ in range(steps)] for stream in map(random.Random, seeds)],
            dtype=torch.float32,
            device=device,
        )  # (row, step)
        self.rows = list(range(len(prompts)))
        self.drawn: list[list[int]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)
        self.stopped = [False] * len(prompts)
        self.on_drawn: OnDrawn = lambda drawn: None

    def run(
        self,
        ends: set[int],
        stops: Callable[[Sequence[int]], bool] | None,
        banned: list[int],
        draw: Callable[[Tensor, Tensor], Tensor],
        told: OnToken,
    ) -> list[Decoded]:
        """Decode until every row has ended; ``draw`` gives tokens (row,) for logits and uniform numbers (row, 1)."""
        import torch

        cache = None if self.cache_name is None else roomy_cache(self.model, self.width + self.steps)
        ids, positions = self.ids, self.positions
        never = torch.tensor(banned, dtype=torch.long, device=ids.device)
        with torch.inference_mode():
            for step in range(self.steps):
                check_stopped()
                logits = self._forward(ids, positions, cache, self.width + step) if step else self._first(cache)
                logits.index_fill_(1, never, -torch.inf)
                chosen = draw(logits, self.uniforms[:, step : step + 1])
                alive = self._take(chosen.tolist(), ends, stops)
                told(len(self.drawn) - len(alive) * (1 - (step + 1) / self.steps), sum(map(len, self.drawn)))
                self.on_drawn(self.drawn)
                if not alive:
                    break
                ids, positions = self._next(ids, chosen[:, None], positions)
                if len(alive) <= (1 - LEAVE_SHARE) * len(self.rows):
                    kept = torch.tensor(alive, device=ids.device)
                    if cache is not None:
                        cache.reorder_cache(kept)  # the one way to select rows that recurrent layers have too
                    ids, positions = ids[kept], positions[kept]
                    self.mask, self.uniforms = self.mask[kept], self.uniforms[kept]
                    self.added = None if self.added is None else self.added[kept]
                    self.rows = [self.rows[place] for place in alive]
        drawn = zip(self.drawn, self.ended, self.stopped, strict=True)
        return [Decoded(tuple(tokens), ended, stopped) for tokens, ended, stopped in drawn]

    def _first(self, cache: Any) -> Tensor:
        """Logits (row, vocabulary) after the prompts; each prompt is computed once, its cache then repeated."""
        import torch

        found: dict[tuple[int, ...], int] = {}
        numbers = [found.setdefault(prompt, len(found)) for prompt in self.prompts]
        if len(found) == len(numbers):
            return self._own_forward(self.ids, self.positions, self.mask[:, : self.width], cache)
        device = self.ids.device
        once = torch.tensor([numbers.index(number) for number in range(len(found))], device=device)
        logits = self._own_forward(self.ids[once], self.positions[once], self.mask[once, : self.width], cache)
        again = torch.tensor(numbers, device=device)
        if cache is not None:
            cache.reorder_cache(again)
        return logits[again]

    def _forward(self, ids: Tensor, positions: Tensor, cache: Any, length: int) -> Tensor:
        """Logits (row, vocabulary) after the last of so many positions, in fp32."""
        if self.direct_forward is not None and self.added is not None and cache is not None:
            states = self.direct_forward(ids, positions, self.added[..., :length], cache)
            return self.model.get_output_embeddings()(states[:, -1]).float()  # type: ignore[no-any-return]
        return self._own_forward(ids, positions, self.mask[:, :length], cache)

    def _own_forward(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: Any) -> Tensor:
        given: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "use_cache": self.cache_name is not None,
            "logits_to_keep": 1,
        }
        if self.cache_name is not None:
            given[self.cache_name] = cache
        if self.cache_name == STATE_CACHE and ids.shape[1] == 1:
            del given["attention_mask"]  # these layers have no attention: only the prompt's padding has to be masked
        # Some forwards have no positions, others no ``logits_to_keep``
        out = self.model(**{name: value for name, value in given.items() if name in self.accepted})
        return out.logits[:, -1].float()  # type: ignore[no-any-return]

    def _next(self, ids: Tensor, chosen: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and positions (row, token) of the next forward: the new ones, or all where the model has no cache."""
        import torch

        place = positions[:, -1:] + 1
        if self.cache_name is not None:
            return chosen, place
        return torch.cat([ids, chosen], 1), torch.cat([positions, place], 1)

    def _take(self, chosen: list[int], ends: set[int], stops: Callable[[Sequence[int]], bool] | None) -> list[int]:
        """Write down what was drawn; the places of the rows that go on."""
        alive = []
        for place, (row, token) in enumerate(zip(self.rows, chosen, strict=True)):
            if self.ended[row]:
                continue
            self.drawn[row].append(token)
            self.stopped[row] = token not in ends and stops is not None and stops(self.drawn[row])
            self.ended[row] = token in ends or self.stopped[row]
            if not self.ended[row]:
                alive.append(place)
        return alive


def _rope_changes(model: Any, prompts: Sequence[Sequence[int]], steps: int) -> bool:
    """Whether rotary factors change between the shortest prompt and the longest reply of ``steps`` tokens.

    Models with factors for long texts (LongRoPE, dynamic NTK) take them for all positions once the longest row of a
    forward has passed a length: cached keys would be wrong from then on, and rows of other lengths beside it.
    """
    config = model.config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or {}
    lengths = [len(prompt) for prompt in prompts]
    for one in (parameters, *(own for own in parameters.values() if isinstance(own, dict))):  # or by kind of layer
        if one.get("rope_type") not in ("longrope", "dynamic"):
            continue
        most = one.get("original_max_position_embeddings") or config.max_position_embeddings
        if min(lengths) <= most < max(lengths) + steps:
            return True
    return False


def choose(logits: Tensor, uniform: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """The token each row's uniform number points at: inverse-CDF sampling, exact, one number per token.

    ``logits`` (row, vocabulary) in fp32, ``uniform`` (row, 1) in [0, 1], tokens (row,). Temperature 0 takes the
    likeliest. ``top_k`` (0 for all) leaves the likeliest tokens and those equal to the last of them, then ``top_p`` (1
    for all) the fewest that together reach this share of the probability.
    """
    import torch

    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits if temperature == 1 else logits / temperature
    probabilities = _filtered(scaled, top_k, top_p).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    point = uniform.to(cumulative.dtype) * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, point, right=True).clamp_(max=logits.shape[-1] - 1)
    # Rounding can land on a token of probability 0 at the very end of the sum
    impossible = probabilities.gather(1, chosen) == 0
    if impossible.any():
        chosen = torch.where(impossible, probabilities.argmax(-1, keepdim=True), chosen)
    return chosen.squeeze(1)


def _filtered(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits (row, vocabulary) at minus infinity for every token that ``top_k`` or ``top_p`` leaves out."""
    import torch

    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        left_out = (before >= top_p).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(left_out, -torch.inf)
    return logits


def roomy_cache(model: Any, most: int) -> Any:
    """A cache with room set aside for keys and values, ``most`` tokens in the end; other kinds of layers stay."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class RoomyLayer(DynamicLayer):  # type: ignore[misc]
        """Writes into a buffer (row, head, token, size) that grows by ``ROOM`` tokens, and copies only then."""

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self.key_room, self.value_room = key_states[..., :0, :], value_states[..., :0, :]
                self.used = 0
            end = self.used + key_states.shape[-2]
            if end > self.key_room.shape[-2]:
                room = max(end, min(most, end + ROOM))  # some models put tokens of their own before the first
                self.key_room, self.value_room = self._grown(self.key_room, room), self._grown(self.value_room, room)
            self.key_room[..., self.used : end, :] = key_states
            self.value_room[..., self.used : end, :] = value_states
            self.used = end
            self.keys, self.values = self.key_room[..., :end, :], self.value_room[..., :end, :]
            return self.keys, self.values

        def _grown(self, states: Tensor, room: int) -> Tensor:
            rows, heads, _length, size = states.shape
            grown = states.new_empty(rows, heads, room, size)
            grown[..., : self.used, :] = states[..., : self.used, :]
            return grown

        def reorder_cache(self, beam_idx: Tensor) -> None:
            if not self.is_initialized:  # a layer that reads another one's keys
                return
            self.key_room, self.value_room = self.key_room[beam_idx], self.value_room[beam_idx]
            self.keys, self.values = self.key_room[..., : self.used, :], self.value_room[..., : self.used, :]

    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
