"""Runs as jobs of a Ray cluster. Ray finds them room; what becomes of them the studio knows by itself.

A run that works beats in the studio's own database, wherever it is, and that is believed before Ray: its list of jobs
does not survive every restart of its head, and may name a job as running whose machine is gone. Ray is asked
only about what cannot beat: a run that has not begun, and one that has fallen silent.

Three things are shared with the cluster's machines: the database, the home under one path, and the studio's own code.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from feedback.database.engine import Database
from feedback.tables import RunRow
from feedback.types import RunState
from training.home import Home
from training.runs.launch import Launched, Observation, Urgency
from training.runs.launch.cluster import RayCluster
from training.runs.launch.ray_jobs import ClusterAway, Job, JobRefused, RayJobs
from training.runs.launch.ticket import Ticket, withdraw_ticket, write_ticket

PLACE = RayCluster.NAME
POLL_SECONDS = 2.0
# After a request that failed, so long none is made: each may cost some seconds, and the worker has more to do.
AWAY_SECONDS = 5.0
# A run beats every second; so long a silence is believed to be its end once Ray says so too.
SILENT_SECONDS = 5.0


class RayLauncher:
    """Launches runs of one home as jobs of one cluster, as many at once as it was told to keep in flight."""

    def __init__(
        self,
        home: Home,
        cluster: RayCluster,
        *,
        say: Callable[[str], None],
        command: Sequence[str] = (),
        poll_seconds: float = POLL_SECONDS,
        away_seconds: float = AWAY_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self.home = home
        self.cluster = cluster.check(home)
        self.at_once = cluster.at_once
        self.host = f"{PLACE}:{cluster.head}"
        self._say = say
        # -P: a job begins where its machine's Ray was started, and that folder may hold a `training` of its own.
        self._command = tuple(command) or (cluster.python, "-P", "-m", "training.execute")
        self._poll, self._away, self._silent = poll_seconds, away_seconds, silent_seconds
        self._jobs = RayJobs(cluster.address)
        self._complaint = ""
        self._away_until = 0.0
        self._next_look: dict[tuple[str, str], float] = {}
        self._beats: dict[str, tuple[datetime | None, float]] = {}

    def is_ready(self) -> bool:
        """Whether the cluster answers, asked at most every few seconds."""
        if time.monotonic() < self._away_until:
            return False
        if not self._complaint and not self._is_due("cluster", "ready"):
            return True
        try:
            self._jobs.version()
        except ClusterAway as error:
            self._is_away(error)
            return False
        self._is_back()
        return True

    def owns(self, db: Database, run: RunRow) -> bool:
        """Whatever was handed to a cluster, waiting there or at work on one of its machines."""
        return (run.host or "").startswith(f"{PLACE}:")

    def launch(self, run: RunRow) -> Launched | None:
        """Hand the run to the cluster. Should it be gone this very moment, ``watch`` hands it over later."""
        try:
            self._submit(run)
        except ClusterAway as error:
            self._is_away(error)
        return None

    def watch(self, run: RunRow) -> Observation | None:
        """Speak for a run that waits for room, and find one whose process is gone."""
        if not self._is_due(_job_id(run), "watch"):
            return None
        has_begun = run.state is RunState.running
        if time.monotonic() >= self._away_until:
            try:
                job = self._jobs.look(_job_id(run))
                observation = self._observe_working(run, job) if has_begun else self._observe_waiting(run, job)
            except ClusterAway as error:
                self._is_away(error)
            else:
                self._is_back()
                return observation
        # It has nothing to lose by waiting, and there is no saying that it is lost.
        return None if has_begun else Observation(waits="waiting for the cluster, which does not answer")

    def end(self, run: RunRow, urgency: Urgency) -> bool:
        """Take the ticket of a run that waits, which ends it; ask Ray to stop one that works and does not heed."""
        if withdraw_ticket(self.home, run.id, run.attempt):
            self._clear_away(run)
            return True
        if time.monotonic() < self._away_until or not self._is_due(_job_id(run), "end"):
            return False
        try:
            job = self._jobs.look(_job_id(run))
            # One that waits without a ticket can do nothing any more.
            if job is None or job.is_over or job.waits:
                return True
            if urgency >= Urgency.terminate:
                self._jobs.stop(_job_id(run))
        except ClusterAway as error:
            self._is_away(error)
        return False

    def tend(self) -> None:
        """Nothing is kept ready in a cluster."""

    def close(self) -> None:
        """Let the connections go; jobs go on."""
        self._jobs.close()

    def _submit(self, run: RunRow) -> None:
        ticket = write_ticket(self.home, run.id, Ticket(self.home.database_url, run.attempt, PLACE))
        self.home.log_path(run.id).touch()  # so that there is one to read while the run waits
        arguments = [*self._command, "--home", str(self.home.path), "--run", run.id, "--ticket", str(ticket)]
        path = os.environ.get("PYTHONPATH")
        if path:
            arguments = ["env", f"PYTHONPATH={path}", *arguments]
        try:
            self._jobs.submit(
                _job_id(run),
                # Ray starts a shell; the run is to take its place, so that there is one process to signal.
                "exec " + shlex.join(arguments),
                cpus=self.cluster.cpus,
                gpus=self.cluster.gpus,
                metadata={"run": run.id, "method": run.method},
            )
        except JobRefused:
            withdraw_ticket(self.home, run.id, run.attempt)
            raise

    def _observe_waiting(self, run: RunRow, job: Job | None) -> Observation | None:
        """Of a run that has not begun nothing is lost as long as its job can be handed over again."""
        if job is None or job.waited_too_long:
            if job is not None:
                self._jobs.forget(_job_id(run))
            try:
                self._submit(run)
            except JobRefused as error:
                return Observation(gone=f"The run could not be launched: {str(error).rstrip('.')}.")
            return Observation(waits=self._room)
        if job.waits:
            return Observation(waits=self._room)
        if not job.is_over:
            return None  # Python is on its way, which it has the usual time for
        withdraw_ticket(self.home, run.id, run.attempt)
        words = self._jobs.last_words(_job_id(run), job)
        return Observation(gone=f"The job {_job_id(run)} ended before the run began: {words}")

    def _observe_working(self, run: RunRow, job: Job | None) -> Observation | None:
        silent = self._is_silent(run)
        if (job is not None and not job.is_over) or not silent:
            return None
        words = "it knows of no such job any more" if job is None else self._jobs.last_words(_job_id(run), job)
        node = (run.host or "").removeprefix(f"{PLACE}:")
        return Observation(
            gone=f"The process (pid {run.pid} on {node}) ended without a word of its own; Ray says: "
            f"{words.rstrip('.')}; its last lines are in `studio runs logs {run.id}`; resume it with "
            f"`studio runs resume {run.id}`."
        )

    @property
    def _room(self) -> str:
        return f"waiting for room in the cluster ({self.cluster.wanted})"

    def _clear_away(self, run: RunRow) -> None:
        """A job without a ticket is harmless, and yet it should not stand in Ray's queue."""
        if time.monotonic() < self._away_until:
            return
        try:
            self._jobs.stop(_job_id(run))
        except ClusterAway as error:
            self._is_away(error)

    def _is_due(self, subject: str, act: str) -> bool:
        at = time.monotonic()
        if at < self._next_look.get((subject, act), 0.0):
            return False
        # Keys of jobs long gone are dropped here, when their time has passed.
        self._next_look = {key: due for key, due in self._next_look.items() if due > at}
        self._next_look[subject, act] = at + self._poll
        return True

    def _is_silent(self, run: RunRow) -> bool:
        """Whether no beat came for a while, by this machine's clock: the others' may go wrong."""
        at = time.monotonic()
        beat, since = self._beats.get(run.id, (None, at))
        if beat != run.heartbeat_at:
            self._beats = {key: seen for key, seen in self._beats.items() if at - seen[1] < 10 * self._silent}
            since = at
        self._beats[run.id] = (run.heartbeat_at, since)
        return at - since >= self._silent

    def _is_away(self, error: ClusterAway) -> None:
        self._away_until = time.monotonic() + self._away
        kind = str(error).partition("(")[0]  # in brackets stand details, which may differ from one failure to the next
        if kind != self._complaint:
            self._complaint = kind
            self._say(f"{error} No run is begun meanwhile; those at work go on.")

    def _is_back(self) -> None:
        if self._complaint:
            self._complaint = ""
            self._say(f"the Ray cluster at {self.cluster.address} answers again")


def _job_id(run: RunRow) -> str:
    return f"{run.id}-{run.attempt}"
