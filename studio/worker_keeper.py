"""Seeing to it that a home has a worker: started when none lives, left alone when one does.

``studio up`` keeps one for as long as it serves; a command that waits for a run keeps one until the run has
ended. Both adopt a worker that is already there, whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from feedback.database.engine import Database
from feedback.errors import StudioError
from feedback.store.models.runs import get_run
from feedback.tables import RunRow
from training.home import Home
from training.runs import queue
from training.runs.launch.local import is_alive
from training.runs.launch.registry import naming_options, target_named_in
from training.runs.launch.target import Target

TEND_SECONDS = 1.0
# A worker that dies this often in a row before it got to work will not live the next time either.
MAX_EARLY_DEATHS = 3
STOP_SECONDS = 10.0


class WorkerKeeper:
    """Keeps one worker alive for one home; ``owner`` is what its lock says of who started it.

    ``target`` is where the worker's runs go, if not to this machine.
    """

    def __init__(
        self, home: Home, *, owner: str, standby: bool, dies_with_me: bool, target: Target | None = None
    ) -> None:
        self.home = home
        self.owner = owner
        self.target = target
        self._standby = standby
        self._dies_with_me = dies_with_me
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._early_deaths = 0

    def tend(self) -> None:
        """Start a worker if none lives. StudioError when it keeps dying, with its last words."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._early_deaths = self._early_deaths + 1 if time.monotonic() - self._started < 5 else 0
            self._process = None
        if self.home.worker_holder() is not None:
            return
        if self._early_deaths >= MAX_EARLY_DEATHS:
            self._early_deaths = 0
            raise StudioError(f"The worker does not stay alive: {self._last_words()} (see {self.log_path}).")
        self._process = self._start()
        self._started = time.monotonic()

    def keep(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Tend until told to stop: the body of a thread."""
        pause = TEND_SECONDS
        while not stop.is_set():
            try:
                self.tend()
                pause = TEND_SECONDS
            except (StudioError, OSError) as error:
                say(str(error))
                pause = 30.0
            stop.wait(pause)

    def stop(self) -> None:
        """Stop the worker this keeper started, or one that an earlier keeper of the same owner left; runs go on."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            return
        holder = self.home.worker_holder()
        if holder is not None and holder.get("owner") == self.owner != "temporary":
            with contextlib.suppress(OSError, KeyError):
                if is_alive(holder["pid"], holder["pid_started"]):
                    os.kill(holder["pid"], signal.SIGTERM)

    @property
    def log_path(self) -> str:
        """Where the worker writes."""
        return str(self.home.path / "worker.log")

    def _start(self) -> subprocess.Popen[bytes]:
        if self.target is not None:
            self.target.check(self.home)
        command = [sys.executable, "-m", "training.worker", "--home", str(self.home.path), "--owner", self.owner]
        if not self._standby:
            command.append("--no-standby")
        if self._dies_with_me:
            command += ["--parent-pid", str(os.getpid())]
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        """The worker goes by this keeper's target, and not by one that a variable names in addition."""
        naming = {option.variable for option in naming_options()}
        own = {name: value for name, value in self.home.environment().items() if name not in naming}
        return own | (self.target.environment() if self.target else {})

    def _last_words(self) -> str:
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                lines = log.read()[-4000:].strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "it says nothing"


@contextmanager
def worker_for(home: Home, *, standby: bool) -> Iterator[WorkerKeeper]:
    """A worker for the time of the block: the one that lives, else a temporary one of our own.

    A temporary one sends runs to the target that the environment names, as the studio's own worker would.
    """
    target = target_named_in()
    keeper = WorkerKeeper(home, owner="temporary", standby=standby, dies_with_me=True, target=target)
    keeper.tend()
    try:
        yield keeper
    finally:
        keeper.stop()


def wait_for_run(
    db: Database,
    run: RunRow,
    keeper: WorkerKeeper,
    *,
    cancel: Callable[[], object],
    on_change: Callable[[RunRow], None] | None = None,
) -> RunRow:
    """Wait for a run, seeing to its worker; Ctrl-C calls ``cancel``, waits for the end and is raised again."""
    with _ctrl_c_at_polls() as check:

        def on_poll() -> None:
            check()
            keeper.tend()

        try:
            return queue.wait(db, run.id, on_change=on_change, on_poll=on_poll)
        except KeyboardInterrupt:
            if not get_run(db, run.id).state.is_terminal:
                cancel()
                with contextlib.suppress(KeyboardInterrupt):
                    queue.wait(db, run.id, on_change=on_change, on_poll=on_poll, timeout=20)
            raise


@contextmanager
def _ctrl_c_at_polls() -> Iterator[Callable[[], None]]:
    """Ctrl-C is noted, and raised by the function given, once for each time it was pressed.

    Raised wherever the program happens to be, it can end in a callback of a library that ignores what is raised there,
    and nobody would have heard it.
    """
    pressed: list[int] = []

    def check() -> None:
        if pressed:
            pressed.pop()
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
