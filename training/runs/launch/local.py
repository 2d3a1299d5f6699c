"""Runs as detached processes of this machine, each the leader of its own session and process group.

Importing torch and the trainers takes about ten seconds, most of the time between pressing *Train* and the
first metric. So a *standby* may be kept: one process that has imported them already and waits on its standard
input for the id of the one run it will ever execute. Nobody depends on it; without one a run starts cold.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from feedback.database.engine import Database
from feedback.tables import RunRow
from training.home import Home
from training.runs.launch import Launched, Observation, Urgency

EXECUTE = (sys.executable, "-m", "training.execute")
# A standby holds half a gigabyte; below this much free memory the run itself needs it more.
STANDBY_MEMORY_BYTES = 3 * 1024**3
STANDBY_RETRY_SECONDS = 30.0
# A start is computed from the boot time, which moves when the clock is set. No pid is reused within seconds.
SAME_START_SECONDS = 5.0


def this_host() -> str:
    """The name under which this machine's processes are recorded; a pid means nothing elsewhere."""
    return socket.gethostname()


def is_here(db: Database, run: RunRow) -> bool:
    """Whether a run's process would be on this machine: always with SQLite, whatever the machine is called today."""
    return db.is_sqlite or run.host == this_host()


def is_alive(pid: int | None, pid_started: float | None) -> bool:
    """True while this very process runs: the pid exists, began at that moment, and is not a zombie."""
    if pid is None or pid_started is None:
        return False
    try:
        process = psutil.Process(pid)
        return _began_at(process, pid_started) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def started_at(pid: int) -> float:
    """When a process began, in seconds since the epoch; the present moment if it is gone already."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return time.time()


class LocalLauncher:
    """Launches runs of one home as processes of this machine, one at a time: they share its processor or its GPU."""

    at_once = 1

    def __init__(self, home: Home, *, standby: bool = True, command: Sequence[str] = EXECUTE) -> None:
        self.home = home
        self.host = this_host()
        self.command = tuple(command)
        self._keeps_standby = standby
        self._standby: subprocess.Popen[bytes] | None = None
        self._standby_retry_at = 0.0
        # Only so that they are reaped: a zombie child would look like a survivor.
        self._children: list[subprocess.Popen[bytes]] = []
        self._terminated: set[Launched] = set()

    def is_ready(self) -> bool:
        """This machine is always there."""
        return True

    def owns(self, db: Database, run: RunRow) -> bool:
        """Whatever would be a process of this machine."""
        return is_here(db, run)

    def launch(self, run: RunRow) -> Launched:
        """Hand the run to the standby, or start it in a cold process."""
        log = self.home.log_path(run.id)
        log.parent.mkdir(parents=True, exist_ok=True)
        process = self._hand_over(run.id) or self._start_cold(run.id, log)
        self._children.append(process)
        return Launched(process.pid, started_at(process.pid))

    def watch(self, run: RunRow) -> Observation | None:
        """Nothing: pid and start say all there is to know here, and anybody can look at them."""
        return None

    def end(self, run: RunRow, urgency: Urgency) -> bool:
        """Terminate the run once, then kill it; what a leader that is gone left behind is killed at once.

        Of a run that has no pid nothing lives: should a process begin yet, it finds the run cancelled and goes.
        """
        if run.pid is None or run.pid_started is None:
            return True
        launched = Launched(run.pid, run.pid_started)
        leader_lives = is_alive(*launched)
        if leader_lives and urgency >= Urgency.terminate and launched not in self._terminated:
            self._terminated.add(launched)
            self.signal(launched, signal.SIGTERM)
        if urgency is Urgency.kill or not leader_lives:
            self.signal(launched, signal.SIGKILL)
        if self.survivors(launched):
            return False
        self._terminated.discard(launched)
        return True

    def tend(self) -> None:
        """Reap ended children, and start the next standby when there is memory for it."""
        self._children = [child for child in self._children if child.poll() is None]
        if self._standby is not None and self._standby.poll() is not None:
            self._standby = None
            self._standby_retry_at = time.monotonic() + STANDBY_RETRY_SECONDS
        if self._keeps_standby and self._standby is None and time.monotonic() >= self._standby_retry_at:
            self._start_standby()

    def signal(self, launched: Launched, number: int) -> None:
        """Send a signal to the run's process group and to descendants that left it."""
        for process in _family(launched):
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def survivors(self, launched: Launched) -> list[int]:
        """The pids of the run's processes that still live."""
        for child in self._children:
            child.poll()
        return [process.pid for process in _family(launched)]

    def close(self) -> None:
        """Send the standby home; runs go on."""
        if self._standby is not None:
            _dismiss(self._standby)
            self._standby = None

    @property
    def standby_pid(self) -> int | None:
        """The process kept ready, if any."""
        return self._standby.pid if self._standby is not None else None

    def _start_cold(self, run_id: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [*self.command, "--home", str(self.home.path), "--run", run_id],
                env=self.home.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _start_standby(self) -> None:
        if psutil.virtual_memory().available < STANDBY_MEMORY_BYTES:
            self._standby_retry_at = time.monotonic() + STANDBY_RETRY_SECONDS
            return
        self._standby = subprocess.Popen(
            [*self.command, "--home", str(self.home.path), "--standby"],
            env=self.home.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _hand_over(self, run_id: str) -> subprocess.Popen[bytes] | None:
        standby, self._standby = self._standby, None
        if standby is None or standby.poll() is not None or standby.stdin is None:
            return None
        try:
            standby.stdin.write(f"{run_id}\n".encode())
            standby.stdin.close()
        except OSError:
            return None  # it died just now; the run starts cold
        return standby


def _dismiss(standby: subprocess.Popen[bytes]) -> None:
    """End of input tells a waiting standby to go; one still importing hears nothing, so it is killed."""
    with contextlib.suppress(OSError):
        if standby.stdin is not None:
            standby.stdin.close()
    standby.send_signal(signal.SIGKILL)
    standby.wait()


def _family(launched: Launched) -> list[psutil.Process]:
    """Living processes of the run: its group, its session, and descendants of its leader.

    The leader's pid names the group as long as one member lives, even after the leader is gone. If a process
    with that pid began at another moment, the group died out and the number belongs to a stranger: nobody.
    """
    try:
        leader: psutil.Process | None = psutil.Process(launched.pid)
    except psutil.Error:
        leader = None
    if leader is not None and not _began_at(leader, launched.pid_started):
        return []
    members = {process.pid: process for process in psutil.process_iter() if _belongs(process.pid, launched.pid)}
    if leader is not None:
        with contextlib.suppress(psutil.Error):
            members |= {process.pid: process for process in [leader, *leader.children(recursive=True)]}
    return [process for process in members.values() if _lives(process)]


def _began_at(process: psutil.Process, moment: float) -> bool:
    return abs(process.create_time() - moment) < SAME_START_SECONDS


def _belongs(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group or os.getsid(pid) == group
    except OSError:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
