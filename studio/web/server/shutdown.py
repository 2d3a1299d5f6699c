"""Ends `studio up` at the first SIGINT or SIGTERM, from its first moment on and within seconds.

Before the server runs, the signal unwinds what was begun; while it runs, the server is asked to stop. Whatever hangs
after that, in a thread that nothing can stop, a watchdog ends the process: all that is saved was saved before.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LONGEST_END = 25.0
"""Seconds from the signal to the end of the process, whatever happens; the worker alone may take ten."""


class Server(Protocol):
    """What runs until it is told to stop; uvicorn's server is one."""

    should_exit: bool


class Ending:
    """A context in which SIGINT and SIGTERM end the program once and cleanly."""

    def __init__(self, longest: float = LONGEST_END) -> None:
        self.asked = False
        self.server: Server | None = None
        self._longest = longest
        self._watched = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Ending:
        if threading.current_thread() is threading.main_thread():  # nobody else may listen
            threading.Thread(target=self._watch, name="ending", daemon=True).start()
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # Once it was asked to end, a further signal must not interrupt what is left to do.
            signal.signal(number, signal.SIG_IGN if self.asked else handler)

    def serve(self, server: Server, run: Callable[[], None]) -> None:
        """Run a server, unless the end was asked for before."""
        self.server = server
        if not self.asked:
            run()

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        self._watched.set()
        if self.server is not None:
            self.server.should_exit = True
        elif first:
            raise SystemExit(0)

    def _watch(self) -> None:
        self._watched.wait()
        time.sleep(self._longest)
        sys.stderr.write("The studio did not end by itself and is ended; what was saved is saved.\n")
        sys.stderr.flush()
        os._exit(0)
