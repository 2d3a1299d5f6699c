"""Where a run executes: a process of this machine, or a job of a Ray cluster. One small protocol for both."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, Protocol

from feedback.database.engine import Database
from feedback.tables import RunRow


class Launched(NamedTuple):
    """The process that works on a run: a pid and the moment it began name it for ever."""

    pid: int
    pid_started: float


class Urgency(IntEnum):
    """How hard to press a run that was asked to stop: it hears of that by itself, and is then helped to end."""

    asked = 0
    terminate = 1
    kill = 2


class Observation(NamedTuple):
    """Facts about a run that the run cannot report itself: what it waits for, or how it ended without a word."""

    waits: str = ""
    gone: str = ""


class Launcher(Protocol):
    """What the worker asks of a place where runs execute."""

    at_once: int
    """How many of its runs may be at work at a time."""

    host: str
    """What a run is recorded under from the moment it is claimed until its process says where it is."""

    def is_ready(self) -> bool:
        """Whether a run could begin at this moment; while none can, none is claimed."""
        ...

    def owns(self, db: Database, run: RunRow) -> bool:
        """Return whether this launcher is responsible for the run, whoever launched it: it ends it, and counts it."""
        ...

    def launch(self, run: RunRow) -> Launched | None:
        """Begin the run in a fresh process that outlives the caller; None where its pid is not known yet."""
        ...

    def watch(self, run: RunRow) -> Observation | None:
        """Look after a run that is starting or running; None when there is nothing to tell."""
        ...

    def end(self, run: RunRow, urgency: Urgency) -> bool:
        """Press on with ending a run; True once nothing of it lives."""
        ...

    def tend(self) -> None:
        """Called on every turn of the worker: collect what ended, get ready for the next launch."""
        ...

    def close(self) -> None:
        """The worker ends: let go of everything but the runs."""
        ...
