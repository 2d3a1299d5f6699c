"""Policies that reply while somebody watches, each in a process of its own (``training.serving.process``).

Two are kept at most: one may be compared with another. Which was used longest ago makes room for the next, and one that
nobody has asked for some minutes ends. Where the memory for a second one is not free, the request is refused in words.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from typing import Any

import psutil

from feedback.database.engine import Database
from feedback.errors import Unavailable
from feedback.store.models.policies import check_can_reply, get_policy
from feedback.tables import PolicyRow
from feedback.types import SamplingSettings
from training.home import Home
from training.serving.messages import Ask, Event

MOST = 2
IDLE_SECONDS = 600.0
WAITING_MOST = 4
"""Requests that may wait for a reply of the same process."""
BEAT_SECONDS = 0.5
"""Longest time between two events, so that a client that has left is noticed."""
LIBRARIES_BYTES = 450 << 20
"""What a process takes beside the weights, as measured with SmolLM2-135M."""
NUMBER_BYTES = 4
"""Of a weight in memory; on a GPU fewer, which is not counted on."""
LOG = "playground.log"


class ReplyProcess:
    """One process; each of its events goes to the request that it names."""

    def __init__(self, home: Home, policy: PolicyRow) -> None:
        command = [sys.executable, "-m", "training.serving.process", "--home", str(home.path), "--policy", policy.id]
        with (home.path / LOG).open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True,
                encoding="utf-8", env=home.environment(), start_new_session=True,
            )  # fmt: skip
        self.policy, self.used_at = policy, time.monotonic()
        self.is_ready, self.failure = False, ""
        self._waiting: dict[int, queue.SimpleQueue[Event]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        threading.Thread(target=self._read, name="replies", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether the process can be asked."""
        return self._process.poll() is None and not self.failure

    @property
    def at_work(self) -> int:
        """How many requests it has before it."""
        return len(self._waiting)

    def ask(self, messages: list[dict[str, str]], sampling: SamplingSettings, seed: int) -> Replying:
        """Ask for a reply; Unavailable where too many wait already, or the process has ended."""
        with self._lock:
            if len(self._waiting) >= WAITING_MOST:
                raise Unavailable(f"{len(self._waiting)} replies of {self.policy.name} are awaited already.", 10)
            number, events = next(self._numbers), queue.SimpleQueue[Event]()
            self._waiting[number] = events
        self.used_at = time.monotonic()
        replying = Replying(self, number, events)
        try:
            self._send(Ask(ask=number, messages=messages, sampling=sampling, seed=seed).model_dump(mode="json"))
        except Unavailable:
            replying.close()
            raise
        return replying

    def stop(self, number: int) -> None:
        """End a reply; the last event holds the text so far."""
        with contextlib.suppress(Unavailable):
            self._send({"stop": number})

    def forget(self, number: int) -> None:
        """Nobody listens to this request any more."""
        with self._lock:
            self._waiting.pop(number, None)
        self.used_at = time.monotonic()

    def close(self) -> None:
        """End the process: it leaves when its input ends, and is ended when it does not."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, said: dict[str, Any]) -> None:
        try:
            with self._lock:
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps(said) + "\n")
                self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.policy.name} is not loaded any more; ask again.", 1) from error

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event: Event = json.loads(line)
            if "ready" in event:
                self.is_ready = True
            elif "failed" in event:
                self.failure = str(event["failed"])
            elif waiting := self._waiting.get(event["id"]):
                waiting.put(event)
        self.failure = self.failure or f"The process of {self.policy.name} ended; its log is {LOG}."
        with self._lock:
            for waiting in self._waiting.values():
                waiting.put({"error": self.failure})


class Replying:
    """A reply under way. ``events`` tells of it; ``stop`` ends it; ``close`` forgets it."""

    def __init__(self, process: ReplyProcess, number: int, events: queue.SimpleQueue[Event]) -> None:
        self._process, self._number, self._events = process, number, events
        self._is_over = False

    def events(self) -> Iterator[Event]:
        """What is said, as it is said: ``loading`` and ``beat`` while there is nothing, at the end reply or error."""
        while not self._is_over:
            try:
                event = self._events.get(timeout=BEAT_SECONDS)
            except queue.Empty:
                if not self._process.is_alive:
                    self._is_over = True
                    yield {"error": self._process.failure or f"{self._process.policy.name} is not loaded any more."}
                    return
                yield {"loading": True} if not self._process.is_ready else {"beat": True}
                continue
            self._is_over = "reply" in event or "error" in event
            yield event

    def stop(self) -> None:
        """End it; the last event still tells what it said until then."""
        self._process.stop(self._number)

    def close(self) -> None:
        """Nobody listens any more: end it if it is not over."""
        if not self._is_over:
            self.stop()
        self._process.forget(self._number)


class ReplyProcesses:
    """The processes of one studio, by policy."""

    def __init__(self, home: Home, db: Database) -> None:
        self._home, self._db = home, db
        self._processes: dict[str, ReplyProcess] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reaper: threading.Thread | None = None

    def load(self, key: str, beside: Collection[str] = ()) -> ReplyProcess:
        """The process of a policy, started if there is none; those of the policies ``beside`` are kept.

        Raises:
            NotFound: no such policy.
            Conflict: a policy that cannot reply here.
            Unavailable: the memory for it is not free beside the others.
        """
        policy = get_policy(self._db, key)
        check_can_reply(policy)
        with self._lock:
            self._drop_ended()
            process = self._processes.get(policy.id)
            if process is None:
                self._make_room(policy, {get_policy(self._db, other).id for other in beside})
                process = self._processes[policy.id] = ReplyProcess(self._home, policy)
                self._start_reaper()
            process.used_at = time.monotonic()
            return process

    def forget(self, policy_id: str) -> None:
        """End the process of a policy, if there is one."""
        with self._lock:
            process = self._processes.pop(policy_id, None)
        if process is not None:
            process.close()

    def close(self) -> None:
        """End all of them."""
        self._closed.set()
        with self._lock:
            processes, self._processes = list(self._processes.values()), {}
        for process in processes:
            process.close()

    def _make_room(self, policy: PolicyRow, kept: set[str]) -> None:
        """End processes until there is room for one more; called under the lock."""
        idle = sorted(
            (one for key, one in self._processes.items() if key not in kept and not one.at_work),
            key=lambda one: one.used_at,
        )
        needed = needed_bytes(policy)
        while idle and (len(self._processes) >= MOST or needed > _free_bytes()):
            oldest = idle.pop(0)
            self._processes.pop(oldest.policy.id).close()
        others = [one.policy.name for one in self._processes.values()]
        if len(self._processes) >= MOST:
            raise Unavailable(f"{' and '.join(others)} are replying to somebody; ask again when they are done.", 10)
        if needed > (free := _free_bytes()):
            beside = f" beside {' and '.join(others)}" if others else ""
            raise Unavailable(
                f"{policy.name} needs about {_gigabytes(needed)} of memory{beside}, and {_gigabytes(free)} are free. "
                + ("Try one policy at a time, or a smaller one." if others else "Try a smaller one."),
                60,
            )

    def _drop_ended(self) -> None:
        for key, process in list(self._processes.items()):
            if not process.is_alive:
                self._processes.pop(key).close()

    def _start_reaper(self) -> None:
        if self._reaper is None:
            self._reaper = threading.Thread(target=self._end_idle, name="reaper", daemon=True)
            self._reaper.start()

    def _end_idle(self) -> None:
        while not self._closed.wait(IDLE_SECONDS / 20):
            with self._lock:
                for key, process in list(self._processes.items()):
                    if not process.at_work and time.monotonic() - process.used_at > IDLE_SECONDS:
                        self._processes.pop(key).close()


def needed_bytes(policy: PolicyRow) -> int:
    """About what a policy takes in memory: its base in fp32, and the libraries."""
    if policy.is_endpoint:
        return LIBRARIES_BYTES
    from training.models.base_files import parameters_on_disk

    return LIBRARIES_BYTES + NUMBER_BYTES * (parameters_on_disk(policy.base) or 0)


def _free_bytes() -> int:
    return int(psutil.virtual_memory().available)


def _gigabytes(number: int) -> str:
    return f"{number / 2**30:.1f} GB"
