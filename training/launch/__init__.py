"""Where a run executes. One protocol; a local process is the launcher there is."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Launched(NamedTuple):
    """The process that works on a run: a pid and the moment it began name it for ever."""

    pid: int
    pid_started: float


class Launcher(Protocol):
    """What the worker asks of a place where runs execute."""

    def launch(self, run_id: str) -> Launched:
        """Begin the run in a fresh process that outlives the caller."""
        ...

    def tend(self) -> None:
        """Called on every turn of the worker: collect what ended, get ready for the next launch."""
        ...

    def signal(self, launched: Launched, number: int) -> None:
        """Send a signal to the process and all its descendants; nothing happens to those already gone."""
        ...

    def survivors(self, launched: Launched) -> list[int]:
        """The pids of the run that still live: empty once it is truly over."""
        ...

    def close(self) -> None:
        """The worker ends: let go of everything but the runs."""
        ...
