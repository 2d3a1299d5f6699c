"""Questions about models, each answered by a process of its own (``training.serving.examine``); one at a time.

A model that is added or checked is fetched, opened and tried, which takes from seconds to minutes, and torch. A process
keeps all of that out of the studio, and can be ended whenever nobody waits for it any more. It is no run: those wait
for the worker, which may train for hours or not be there, and somebody sits before the page.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from feedback import errors
from feedback.errors import StudioError, Unavailable
from training.generation.stopping import check_stopped
from training.home import Home
from training.serving.examine import Question

MOST_SECONDS = 900.0
"""Of one answer, the time in which a model is fetched included."""
BEAT_SECONDS = 0.5
LOG = "models.log"


class ModelExaminer:
    """Asks for one home; whoever asks beside another is told to come back."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._busy = threading.Lock()
        self._closing = threading.Event()

    def ask(self, asked: Question, say: Callable[[str], None]) -> dict[str, Any]:
        """The answer to a question; ``say`` hears how far it is. The present check (``stoppable``) can end it.

        Raises:
            Unavailable: another question is being answered, or this one took too long.
            StudioError: what is wrong with the model, of the kind that it has in this process.
        """
        if not self._busy.acquire(blocking=False):
            raise Unavailable("Another model is being examined already; ask again when that is done.", 10)
        try:
            process = self._start()
            try:
                return self._answer(process, asked, say)
            finally:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
        finally:
            self._busy.release()

    def close(self) -> None:
        """End what is at work, and begin nothing more."""
        self._closing.set()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "training.serving.examine", "--home", str(self._home.path)]
        with (self._home.path / LOG).open("ab") as output:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, env=self._home.environment(),
                start_new_session=True,
            )  # fmt: skip

    def _answer(self, process: subprocess.Popen[bytes], asked: Question, say: Callable[[str], None]) -> dict[str, Any]:
        lines = _lines_of(process, asked)
        end = time.monotonic() + MOST_SECONDS
        while True:
            self._check(asked, end)
            try:
                line = lines.get(timeout=BEAT_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                raise _ended(process, asked.model)
            event: dict[str, Any] = json.loads(line)
            if "say" in event:
                say(str(event["say"]))
            elif "error" in event:
                raise _error_of(event)
            else:
                return dict(event["found"])

    def _check(self, asked: Question, end: float) -> None:
        check_stopped()
        if self._closing.is_set():
            raise Unavailable("The studio is stopping; ask again when it is back.")
        if time.monotonic() > end:
            raise Unavailable(
                f"{asked.model} was not examined within {MOST_SECONDS / 60:.0f} minutes. What was fetched of it is "
                "kept, so ask again; or fetch it on the studio's machine first, by `hf download`.",
                60,
            )


def _lines_of(process: subprocess.Popen[bytes], asked: Question) -> queue.SimpleQueue[bytes | None]:
    """What the process writes, line by line, None at its end; its input stays open, for it ends with that."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    assert process.stdin is not None and process.stdout is not None
    source = process.stdout

    def read() -> None:
        for line in source:
            lines.put(line)
        lines.put(None)

    try:
        process.stdin.write(asked.model_dump_json().encode() + b"\n")
        process.stdin.flush()
    except OSError:  # it has ended already, which reading tells
        pass
    threading.Thread(target=read, name="examiner", daemon=True).start()
    return lines


def _error_of(event: dict[str, Any]) -> StudioError:
    """The error that the process met: its kind, with its own words and nothing else."""
    kind = getattr(errors, event["error"])
    error: StudioError = kind.__new__(kind)
    Exception.__init__(error, str(event["words"]))
    if isinstance(error, Unavailable):
        error.retry_after = 5
    return error


def _ended(process: subprocess.Popen[bytes], model: str) -> StudioError:
    """Why a process ended without an answer."""
    status = process.wait()
    if status == -signal.SIGKILL:
        return StudioError(
            f"The process that examined {model} was killed, as happens when memory runs out. Try a smaller model, or "
            "end what else takes memory, and ask again."
        )
    return StudioError(f"The process that examined {model} ended (status {status}); {LOG} in the home says why.")
