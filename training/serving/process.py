"""One policy that replies on request: ``python -m training.serving.process --home DIR --policy ID``.

A process of its own, so that a model's libraries are never loaded where annotators are served, its memory is free
again when it ends, and a reply can be stopped. It reads requests on standard input and writes what is said on standard
output (``messages``); one request is served at a time. It ends when its input does: with the studio, whatever way that
ends.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from feedback.errors import StudioError
from training.generation.stopping import stoppable
from training.home import Home
from training.preloading import quiet_libraries, use_huge_pages
from training.private_files import keep_private
from training.serving.messages import Ask, Drawn, Event

TELL_SECONDS = 0.04
"""Shortest time between two events of a reply."""

Emit = Callable[[Event], None]


class Stopped(Exception):
    """Whoever asked for the reply wants no more of it."""


class Requests:
    """What is asked for, read in a thread of its own; ``stopped`` holds the ids that are wanted no more."""

    def __init__(self, source: TextIO) -> None:
        self.source = source
        self.waiting: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self.stopped: set[int] = set()
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def _read(self) -> None:
        for line in self.source:
            said = json.loads(line)
            if "stop" in said:
                self.stopped.add(said["stop"])
            else:
                self.waiting.put(Ask.model_validate(said))
        os._exit(0)  # nobody is left to hear a reply

    def check(self, key: int) -> None:
        """Raise Stopped once this request is wanted no more."""
        if key in self.stopped:
            raise Stopped


def main(arguments: list[str] | None = None) -> int:
    """Load the policy, then reply until the input ends."""
    parser = argparse.ArgumentParser(prog="training.serving.process")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--policy", required=True)
    options = parser.parse_args(arguments)
    emit, requests = emitter(), Requests(sys.stdin)
    keep_private()
    quiet_libraries()
    use_huge_pages()
    began = time.monotonic()
    try:
        policy = _open(options.home, options.policy)
    except Exception as error:
        emit({"failed": _words(error)})
        return 1
    emit({"ready": time.monotonic() - began})
    while True:
        serve(policy, requests.waiting.get(), requests, emit)


def serve(policy: Any, asked: Ask, requests: Requests, emit: Emit) -> None:
    """Draw one reply and emit its text while it is drawn."""
    from training.generation.sampling import sample_one

    said_last, told = Drawn("", "length", 0, 0.0, stopped=True), 0.0
    began = time.monotonic()

    def hear(said: Any) -> None:
        nonlocal said_last, told
        at = time.monotonic()
        said_last = Drawn(said.text, "length", said.tokens, at - began, said.reasoning, stopped=True)
        if at - told >= TELL_SECONDS:
            told = at
            emit({"id": asked.ask, "text": said.text, "reasoning": said.reasoning})

    try:
        with stoppable(lambda: requests.check(asked.ask)):
            reply = sample_one(policy, asked.messages, asked.sampling, asked.seed, hear)
    except Stopped:
        emit({"id": asked.ask, "reply": asdict(said_last)})
        return
    except Exception as error:  # this reply fails; the process goes on for the next
        emit({"id": asked.ask, "error": _words(error)})
        return
    seconds = time.monotonic() - began
    drawn = Drawn(reply.text, reply.finish_reason, reply.tokens, seconds, reply.reasoning, reply.unfinished)
    emit({"id": asked.ask, "reply": asdict(drawn)})


def _open(home: Path, key: str) -> Any:
    from training.checkpoints.opening import open_replier
    from training.generation.sampling import use_half

    located = Home.locate(home)
    db = located.open()
    try:
        policy = open_replier(db, located, key)
    finally:
        db.dispose()
    use_half(policy, lambda words: None)
    return policy


def emitter() -> Emit:
    """Writes events to what was standard output; what libraries print from now on goes to standard error."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock:
            output.write(json.dumps(event) + "\n")
            output.flush()

    return emit


def _words(error: Exception) -> str:
    if isinstance(error, StudioError):
        return str(error)
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
