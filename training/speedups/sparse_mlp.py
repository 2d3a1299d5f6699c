"""The last layer's MLP, evaluated only at the positions whose hidden states are read.

Attention mixes positions; an MLP does not, and nothing above the last layer does. The output of the last MLP is
therefore discarded at every position of the prompt and of the padding, and at all but one position where a single
score is wanted. Where few layers train, that MLP is a third of a step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class _Forward(threading.local):
    """The forward pass that a thread is in: which places of (row × position) will be read; None means all."""

    read: Tensor | None = None


class SparseMlp:
    """Replacement for the forward of the last layer's MLP; a layer without an ``mlp`` is left as it is.

    ``fits`` turns False once the MLP takes or returns more than the states; it then runs at every position.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._now = _Forward()
        self.fits = True
        mlp = getattr(layer, "mlp", None)
        if mlp is not None:
            mlp.forward = self._sparing(mlp.forward)

    @contextmanager
    def read_at(self, places: Tensor | None) -> Iterator[None]:
        """Evaluate the MLP only at ``places`` (place,), numbers of row × position; elsewhere it adds 0."""
        self._now.read = places
        try:
            yield
        finally:
            self._now.read = None

    def _sparing(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def sparing(states: Tensor, *args: Any, **kwargs: Any) -> Any:
            places = self._now.read
            self.fits = self.fits and not args and not kwargs  # another argument may be as wide as the states
            if places is None or not self.fits:
                return forward(states, *args, **kwargs)
            flat = states.flatten(0, 1)
            made = forward(flat[places][None])
            if isinstance(made, tuple):  # a mixture of experts that returns its routing too
                self.fits = False
                return forward(states)
            return flat.new_zeros(flat.shape).index_copy(0, places, made[0]).view_as(states)

        return sparing
