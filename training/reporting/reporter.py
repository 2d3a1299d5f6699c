"""The protocol that methods report by, and the context they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from feedback.database.engine import Database
from feedback.errors import RunCancelled
from feedback.tables import RunRow
from feedback.types import MetricPoint
from training.home import Home

Samples = Sequence[tuple[str, str]]
"""What a model said at one look: prompt and reply."""


@dataclass(frozen=True)
class Watch:
    """What a run is asked to show beside its curves, whatever its method: sample replies, or two steps for trial.

    ``mirror`` is where a copy of the curves may be kept as files.
    """

    sample_every: int = 0
    prompts: tuple[list[dict[str, str]], ...] = ()
    dry_run: bool = False
    mirror: Path | None = None


class DryRunDone(Exception):
    """A dry run has taken its steps; ``figures`` are its result. Not an error: nothing is to be saved."""

    def __init__(self, figures: dict[str, Any]) -> None:
        super().__init__("the dry run is over")
        self.figures = figures


class Reporter(Protocol):
    """What a method may call, every step if it likes. ``told`` keeps what was found before the first step."""

    watch: Watch
    told: dict[str, Any]

    def report(self, fraction: float, text: str) -> None:
        """Say how much is done (0 to 1) and what is being done."""
        ...

    def metrics(self, step: int, **values: float) -> None:
        """Add one point to each named curve."""
        ...

    def samples(self, step: int, said: Samples) -> None:
        """Keep what the model replied to the fixed prompts at this step."""
        ...

    def check(self) -> None:
        """Raise RunCancelled when somebody asked the run to stop; call it where stopping is safe."""
        ...

    def log(self, line: str) -> None:
        """Write a line to the run's log."""
        ...


@dataclass(frozen=True)
class RunContext:
    """All a method is given: what to do, what with, and whom to tell."""

    run: RunRow
    settings: Any
    db: Database
    home: Home
    progress: Reporter

    @property
    def run_dir(self) -> Path:
        """The run's own directory, where a method may keep what it needs to go on after an interruption."""
        directory = self.home.run_dir(self.run.id)
        directory.mkdir(parents=True, exist_ok=True)
        return directory


class Relay:
    """A reporter that passes everything on to another; a part of a run overrides what it tells differently."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.watch = reporter.watch
        self.told = reporter.told

    def report(self, fraction: float, text: str) -> None:
        """Pass progress on."""
        self.reporter.report(fraction, text)

    def metrics(self, step: int, **values: float) -> None:
        """Pass metric points on."""
        self.reporter.metrics(step, **values)

    def samples(self, step: int, said: Samples) -> None:
        """Pass a look on."""
        self.reporter.samples(step, said)

    def check(self) -> None:
        """Ask whether to go on."""
        self.reporter.check()

    def log(self, line: str) -> None:
        """Pass a line on."""
        self.reporter.log(line)


class LocalProgress:
    """Progress kept in lists, for calling a method without a run: in tests and notebooks."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch or Watch()
        self.told: dict[str, Any] = {}
        self.looks: list[tuple[int, Samples]] = []
        self.reports: list[tuple[float, str]] = []
        self.points: list[MetricPoint] = []
        self.lines: list[str] = []
        self._stopped = False

    def report(self, fraction: float, text: str) -> None:
        """Remember how much is done."""
        self.reports.append((fraction, text))

    def metrics(self, step: int, **values: float) -> None:
        """Remember one point per curve."""
        self.points += [MetricPoint(step=step, name=name, value=float(value)) for name, value in values.items()]

    def samples(self, step: int, said: Samples) -> None:
        """Remember a look."""
        self.looks.append((step, said))

    def check(self) -> None:
        """Raise RunCancelled after ``stop``."""
        if self._stopped:
            raise RunCancelled("The run was cancelled.")

    def log(self, line: str) -> None:
        """Remember a line."""
        self.lines.append(line)

    def stop(self) -> None:
        """Ask the method to stop at its next ``check``."""
        self._stopped = True
