"""Runs and the metrics that they report."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlmodel import SQLModel


class RunState(StrEnum):
    """The life of a run; the allowed steps between states are in ``training.runs.queue``."""

    queued = "queued"
    starting = "starting"
    running = "running"
    stopping = "stopping"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    interrupted = "interrupted"

    @property
    def is_terminal(self) -> bool:
        """True when nothing more happens by itself; an interrupted run waits for *resume*."""
        return self in {RunState.succeeded, RunState.failed, RunState.cancelled, RunState.interrupted}

    @property
    def is_active(self) -> bool:
        """True while a process is, or should be, working on the run."""
        return self in {RunState.starting, RunState.running, RunState.stopping}


class Run(SQLModel):
    """One background job. ``config`` is what was asked for; ``result`` what came of it.

    ``pid`` with ``pid_started`` (seconds since the epoch) names one process for ever; a pid alone is reused.
    ``after`` is the run that must have succeeded before this one begins; higher ``priority`` begins first.
    """

    method: str
    config: dict[str, Any] = {}
    state: RunState = RunState.queued
    priority: int = 0
    after: str | None = None
    attempt: int = 1
    progress: float = 0.0
    progress_text: str = ""
    error: str | None = None
    result: dict[str, Any] = {}
    pid: int | None = None
    pid_started: float | None = None
    host: str | None = None


class MetricPoint(BaseModel):
    """One point of one curve: the value of ``name`` at optimiser step ``step``."""

    model_config = ConfigDict(frozen=True)

    step: int
    name: str
    value: float
