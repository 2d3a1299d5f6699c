"""The top layer's MLP works where its result is read, and nowhere else.

Attention mixes positions; an MLP does not. Above the top layer nothing mixes them any more, so of a prompt, of the
padding, and where one score is wanted of all but one place, what the last MLP makes is thrown away. Where few layers
learn, that MLP is a third of a step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class _Forward(threading.local):
    """The forward that a thread is in: which places of (row × position) will be read; None means all."""

    read: Tensor | None = None


class TopLayer:
    """Takes the forward of the top layer's MLP over; a layer without a part of that name stays as it is.

    ``fits`` is off once an MLP was seen that takes or gives more than the states: it is left to work everywhere.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._now = _Forward()
        self.fits = True
        mlp = getattr(layer, "mlp", None)
        if mlp is not None:
            mlp.forward = self._sparing(mlp.forward)

    @contextmanager
    def read_at(self, places: Tensor | None) -> Iterator[None]:
        """Of forwards in the block only these places are read, numbered row by row; the MLP adds 0 to all others."""
        self._now.read = places
        try:
            yield
        finally:
            self._now.read = None

    def _sparing(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def sparing(states: Tensor, *args: Any, **kwargs: Any) -> Any:
            places = self._now.read
            self.fits = self.fits and not args and not kwargs  # what else it is given may be as wide as the states
            if places is None or not self.fits:
                return forward(states, *args, **kwargs)
            flat = states.flatten(0, 1)
            made = forward(flat[places][None])
            if isinstance(made, tuple):  # a mixture of experts that tells its choices too
                self.fits = False
                return forward(states)
            return flat.new_zeros(flat.shape).index_copy(0, places, made[0]).view_as(states)

        return sparing
