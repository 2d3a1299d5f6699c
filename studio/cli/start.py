"""Where the ``studio`` command begins: the signals are listened to before the libraries, which take seconds, load."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Load the command line and run it; Ctrl-C meanwhile ends the process without a traceback."""
    before = signal.signal(signal.SIGINT, _leave)
    from studio.cli.app import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.stderr.write("\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)  # nothing has begun yet that would have to be ended
