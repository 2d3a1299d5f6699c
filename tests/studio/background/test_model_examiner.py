"""Models are examined in a process of their own, which ends whatever way the question does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from feedback.errors import NotFound, StudioError, Unavailable
from studio.background import model_examiner
from studio.background.model_examiner import ModelExaminer
from training.generation.stopping import stoppable
from training.home import Home
from training.serving.examine import Question, told
from training.smollm2.wheel import ModelUnavailable

pytestmark = pytest.mark.timeout(120)
CHECK = Question(act="check", model="starter")


class Left(Exception):
    """Whoever asked has left."""


def processes() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "training.serving.examine" in one.cmdline()]


def while_it_works(act: Callable[[], None]) -> Callable[[str], None]:
    def hear(said: str) -> None:
        assert said and len(processes()) == 1
        act()

    return hear


def test_who_leaves_ends_the_process_and_makes_room(home: Home) -> None:
    examiner, gone = ModelExaminer(home), []

    def check() -> None:
        if gone:
            raise Left

    with pytest.raises(Left), stoppable(check):
        examiner.ask(CHECK, while_it_works(lambda: gone.append(True)))
    assert processes() == []
    with pytest.raises(Unavailable, match="stopping"):
        examiner.ask(CHECK, while_it_works(examiner.close))
    assert processes() == []


def test_a_process_that_is_killed_says_what_that_means(home: Home) -> None:
    with pytest.raises(StudioError, match="killed, as happens when memory runs out"):
        ModelExaminer(home).ask(CHECK, while_it_works(lambda: processes()[0].kill()))


def test_an_examination_has_an_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_examiner, "MOST_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="starter was not examined within 0 minutes"):
        ModelExaminer(home).ask(CHECK, lambda said: None)
    assert processes() == []


def test_errors_keep_their_kind_and_their_words() -> None:
    for error, kind in (
        (NotFound("model", "x", ["y"], "Choose y."), "NotFound"),
        (ModelUnavailable("No network."), "StudioError"),
        (ZeroDivisionError("oh"), "StudioError"),
    ):
        event = told(error)
        back = model_examiner._error_of(event)
        assert type(back).__name__ == kind
        assert str(back) == (str(error) if isinstance(error, StudioError) else "ZeroDivisionError: oh")


def test_the_process_ends_with_the_studio(home: Home) -> None:
    """Its input ends when the studio does, however that was: here, by a script that is gone after its first line."""
    code = (
        "import os, subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'training.serving.examine', '--home', sys.argv[1]],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        f"p.stdin.write({CHECK.model_dump_json()!r}.encode() + b'\\n'); p.stdin.flush(); p.stdout.readline()\n"
        "print(p.pid, flush=True); os._exit(0)"
    )
    asked = subprocess.run([sys.executable, "-c", code, str(home.path)], capture_output=True, text=True, check=True)
    pid = int(asked.stdout)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it goes on alone"
        time.sleep(0.05)
