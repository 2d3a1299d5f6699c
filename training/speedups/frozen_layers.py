"""The lower layers keep still while the upper ones learn: what they make of a reply is worked out once and kept.

Going over the same replies again, only the layers from ``first`` on are run, forward and backward, which is about half
the work where ``first`` is the middle. Exact: a lower layer that does not change gives the same every time. After
Hydra-RLHF (arXiv 2309.00754), whose roles share a trunk; here roles share one where their lower layers are alike.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class Kept:
    """What the lower layers made of each reply, in one role, by the reply's place in the rollout."""

    def __init__(self) -> None:
        self._states: dict[int, Tensor] = {}

    def of(self, rows: Sequence[int], width: int) -> Tensor | None:
        """The states (row, position, size) of replies, as wide as a batch; None where one was not worked out yet."""
        from torch.nn.functional import pad
        from torch.nn.utils.rnn import pad_sequence

        if any(row not in self._states for row in rows):
            return None
        states = pad_sequence([self._states[row][:width] for row in rows], batch_first=True)
        return pad(states, (0, 0, 0, width - states.shape[1]))

    def keep(self, rows: Sequence[int], states: Tensor) -> None:
        """Keep the states of a batch; what stands beyond a reply's end is read by nobody."""
        self._states |= {row: own.clone() for row, own in zip(rows, states.detach(), strict=True)}


class _Forward(threading.local):
    """The forward that a thread is in: what enters the first layer that learns, and whether it was given."""

    given: Tensor | None = None
    entering: Tensor | None = None


class Trunk:
    """The layers of a model below ``first``, which can be left out where their result is known."""

    def __init__(self, layers: nn.ModuleList, first: int) -> None:
        lower = list(layers)[:first]
        self.still = {id(value) for layer in lower for value in layer.parameters()}
        self._now = _Forward()
        for layer in lower:
            layer.forward = self._skipping(layer.forward)
        layers[first].forward = self._entered(layers[first].forward)

    @contextmanager
    def known(self, kept: Kept | None, rows: Sequence[int], width: int) -> Iterator[None]:
        """Forwards in the block are of these rows: from what was kept of them, or from below, and then it is kept."""
        now = self._now
        now.given = kept.of(rows, width) if kept is not None else None
        try:
            yield
            if kept is not None and now.given is None and now.entering is not None:
                kept.keep(rows, now.entering)
        finally:
            now.given = now.entering = None

    def _skipping(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        beside: tuple[None, ...] | None = None  # where a layer gives more than states: as much of nothing

        def skipped(states: Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal beside
            if self._now.given is not None:
                return states if beside is None else (states, *beside)
            out = forward(states, *args, **kwargs)
            beside = (None,) * (len(out) - 1) if isinstance(out, tuple) else None
            return out

        return skipped

    def _entered(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def entered(states: Tensor, *args: Any, **kwargs: Any) -> Any:
            now = self._now
            now.entering = states if now.given is None else now.given
            return forward(now.entering, *args, **kwargs)

        return entered
