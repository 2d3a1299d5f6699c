"""Cache of the hidden states of frozen lower layers.

When only the layers from ``first`` on train, the output of the layers below is constant, so each reply is encoded by
them once per rollout. Later passes over the same replies run the upper layers alone, forward and backward, which is
about half the work where ``first`` is the middle. Exact: a frozen layer returns the same states every time. After
Hydra-RLHF (arXiv 2309.00754), whose roles share a trunk; here roles share one where their lower layers are equal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class HiddenStateCache:
    """The hidden states that enter the first trainable layer in one role, by the reply's row in the rollout."""

    def __init__(self) -> None:
        self._states: dict[int, Tensor] = {}

    def get(self, rows: Sequence[int], width: int) -> Tensor | None:
        """Return the states (row, position, hidden) of replies, padded to ``width``; None if a row is missing."""
        from torch.nn.functional import pad
        from torch.nn.utils.rnn import pad_sequence

        if any(row not in self._states for row in rows):
            return None
        states = pad_sequence([self._states[row][:width] for row in rows], batch_first=True)
        return pad(states, (0, 0, 0, width - states.shape[1]))

    def put(self, rows: Sequence[int], states: Tensor) -> None:
        """Store the states (row, position, hidden) of a batch; positions beyond a reply's end are never read."""
        self._states |= {row: own.clone() for row, own in zip(rows, states.detach(), strict=True)}


class _Forward(threading.local):
    """The forward pass that a thread is in: cached states to use, and the states that entered ``first``."""

    cached: Tensor | None = None
    entering: Tensor | None = None


class FrozenLayers:
    """The layers of a model below ``first``, which are skipped where their output is cached.

    ``frozen`` holds the ``id`` of every parameter in them.
    """

    def __init__(self, layers: nn.ModuleList, first: int) -> None:
        lower = list(layers)[:first]
        self.frozen = {id(value) for layer in lower for value in layer.parameters()}
        self._now = _Forward()
        for layer in lower:
            layer.forward = self._skipping(layer.forward)
        layers[first].forward = self._recording(layers[first].forward)

    @contextmanager
    def cached(self, cache: HiddenStateCache | None, rows: Sequence[int], width: int) -> Iterator[None]:
        """Read forwards of these rows in the block from ``cache``, or run the frozen layers and fill it."""
        now = self._now
        now.cached = cache.get(rows, width) if cache is not None else None
        try:
            yield
            if cache is not None and now.cached is None and now.entering is not None:
                cache.put(rows, now.entering)
        finally:
            now.cached = now.entering = None

    def _skipping(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        extra: tuple[None, ...] | None = None  # placeholders for what a layer returns in addition to its states

        def skipped(states: Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal extra
            if self._now.cached is not None:
                return states if extra is None else (states, *extra)
            out = forward(states, *args, **kwargs)
            extra = (None,) * (len(out) - 1) if isinstance(out, tuple) else None
            return out

        return skipped

    def _recording(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(states: Tensor, *args: Any, **kwargs: Any) -> Any:
            now = self._now
            now.entering = states if now.cached is None else now.cached
            return forward(now.entering, *args, **kwargs)

        return recorded
