"""Training the upper layers alone, with the hidden states that enter them cached.

Nothing changes below the first trained layer, adapters included, so the hidden states of a row of tokens are computed
there once; the reference pass and every epoch read them again. Each row is computed by itself, so that its states do
not depend on the rows beside it and a resumed run gets the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from feedback.errors import InvalidInput
from training.forward.layout import Layout, lay_out

SHARES = {"upper half": 1 / 2, "upper third": 1 / 3}  # of the layers that are trained
CACHE_SHARE = 0.25  # of the memory that is free when training begins
AGREES = 1e-3  # times the largest hidden state


def decoder_layers(decoder: Any) -> nn.ModuleList:
    """The transformer layers of a decoder, lowest first; InvalidInput where it has no list of them.

    Some families, as OPT, hold the decoder with its layers one module deeper than others.
    """
    stacks = [part for part in decoder.children() if isinstance(part, nn.ModuleList)]
    inner = list(decoder.children())
    if stacks:
        return max(stacks, key=len)
    if len(inner) == 1:
        return decoder_layers(inner[0])
    raise InvalidInput(
        f"A {type(decoder).__name__} has no list of layers: leave train_layers at all, and train it by dpo or "
        "kto instead of ppo."
    )


def first_trained(train_layers: str, layers: int) -> int:
    """The index of the lowest layer that is trained, of so many."""
    share = SHARES.get(train_layers, 1.0)
    return layers - max(1, round(share * layers))


def freeze_below(decoder: Any, first: int) -> int:
    """Take the layers below ``first`` out of training, adapters included; returns how many weights that were."""
    frozen = 0
    for layer in list(decoder_layers(decoder))[:first]:
        for parameter in layer.parameters():
            frozen += parameter.numel() * parameter.requires_grad
            parameter.requires_grad_(False)
    return frozen


class LowerLayers:
    """The hidden states that enter layer ``first`` of a decoder, by the tokens of a row.

    ``usual`` is the decoder's forward; ``limit`` bounds the bytes that are kept, beyond which rows are computed again.
    """

    def __init__(self, decoder: Any, usual: Any, first: int, limit: int) -> None:
        self._usual = usual
        self._layers = list(decoder_layers(decoder))
        self._first = first
        self._limit = limit
        self._states: dict[bytes, Tensor] = {}
        self.computed = self.bytes = 0  # rows that were computed, and what is kept

    def entering(self, ids: Tensor, layout: Layout) -> Tensor:
        """The states (N, hidden) of the packed tokens of a batch of ids (B, T) where they enter the first layer."""
        width = ids.shape[1]
        places = layout.places < len(layout.source)
        rows = [self._row(row[real]) for row, real in zip(ids, places, strict=True)]
        starts = torch.tensor([0, *map(len, rows[:-1])], device=ids.device).cumsum(0)
        return torch.cat(rows).index_select(0, starts[layout.source // width] + layout.positions)

    def _row(self, tokens: Tensor) -> Tensor:
        """The states (T, hidden) of one row of tokens (T,)."""
        key = self._key(tokens)
        found = self._states.get(key)
        if found is not None:
            return found.to(tokens.device)
        states = self._compute(tokens)
        self.computed += 1
        if self.bytes + states.nbytes <= self._limit:
            self._states[key] = states.cpu()
            self.bytes += states.nbytes
        return states

    def _key(self, tokens: Tensor) -> bytes:
        half = torch.is_autocast_enabled(tokens.device.type)
        return hashlib.blake2b(tokens.cpu().numpy().tobytes() + bytes([half]), digest_size=16).digest()

    def _compute(self, tokens: Tensor) -> Tensor:
        entered: list[Tensor] = []

        def record(states: Tensor, *_: Any, **__: Any) -> Tensor:
            entered.append(states[0])
            return states

        first, *above = self._layers[self._first :]
        with torch.no_grad(), _replaced([first], record), _replaced(above, _identity):
            packed_forward(self._usual, lay_out(tokens[None], torch.ones_like(tokens[None])), input_ids=tokens[None])
        return entered[0].detach()

    @contextmanager
    def replaced_by(self, entering: Tensor) -> Iterator[None]:
        """The lower layers give the states (N, hidden) ``entering`` during the block, whatever they are given."""

        def give(*_: Any, **__: Any) -> Tensor:
            return entering[None]

        *below, last = self._layers[: self._first]
        with _replaced(below, _identity), _replaced([last], give):
            yield


def packed_forward(usual: Any, layout: Layout, **given: Any) -> Any:
    """A decoder's forward over one packed row."""
    from training.forward.attention import LAYOUT

    return usual(
        **given,
        # Four dimensions are taken for a finished mask and handed on unread: the layout has its own
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=layout.source.device),
        position_ids=layout.positions[None],
        use_cache=False,
        **{LAYOUT: layout},
    )


def _identity(states: Tensor, *_: Any, **__: Any) -> Tensor:
    return states


@contextmanager
def _replaced(layers: Sequence[nn.Module], forward: Any) -> Iterator[None]:
    """The layers' forward is another during the block."""
    own = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = forward
    try:
        yield
    finally:
        for layer, before in zip(layers, own, strict=True):
            del layer.forward
            if before is not None:
                layer.forward = before
