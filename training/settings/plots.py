"""Plots that a method asks for: a title, and the curves that belong in it."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Plot:
    """A plot of some curves of a run.

    ``curves`` holds names or shell patterns; a curve named in ``without`` never belongs, whatever the patterns say.
    """

    title: str
    curves: tuple[str, ...]
    without: tuple[str, ...] = ()

    def holds(self, curve: str) -> bool:
        """Return whether a curve of this name is drawn here."""
        return curve not in self.without and any(fnmatchcase(curve, pattern) for pattern in self.curves)


LOSS = Plot("Loss", ("*loss*",))
ACCURACY = Plot("Accuracy", ("*accuracy*", "*_rate"), without=("learning_rate",))
