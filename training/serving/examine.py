"""One question about a model, answered: ``python -m training.serving.examine --home DIR``.

A process of its own, for a web studio: torch is never loaded where annotators are served, the memory of a model is
free again at the end, and a model that brings its process down brings nothing else down. It reads one ``Question`` on
standard input and writes JSON objects, one a line, on standard output: any number of ``{"say": WORDS}``, then
``{"found": …}`` or ``{"error": KIND, "words": …}``. It ends at once when its input does: with the studio.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from feedback import errors
from feedback.database.engine import Database
from feedback.errors import StudioError
from training.checkpoints.registration import Added, add_examined, check_base
from training.conversion.prepare import prepare_base
from training.home import Home
from training.model_check.report import ModelReport
from training.preloading import quiet_libraries
from training.private_files import keep_private
from training.serving.process import emitter
from training.smollm2.convert import ensure_base

Say = Callable[[str], None]
NICENESS = 10
"""A model is tried behind all else: votes are answered and runs go on meanwhile."""


class Question(BaseModel):
    """What is asked of a model. ``name`` is that of the policy to add."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    act: Literal["add", "check"]
    model: str
    name: str | None = None
    chat_template: str | None = None


def add_model(db: Database, model: str, name: str | None, chat_template: str | None, say: Say) -> Added:
    """The policy over a model, examined where it is on this machine; SmolLM2 and GGUF files are converted first."""
    ensure_base(model, lambda _, text: say(text))
    return add_examined(db, prepare_base(model, chat_template, lambda _, text: say(text)), name)


def check_base_model(base: str, chat_template: str | None, say: Say) -> ModelReport:
    """What a base can be used for on this machine; it is fetched where it is not at hand, and loaded where it fits."""
    from training.model_check.check import check_model

    ensure_base(base, lambda _, text: say(text))
    return check_model(check_base(prepare_base(base, chat_template, lambda _, text: say(text))), say=say)


def main(arguments: list[str] | None = None) -> int:
    """Answer the question on standard input."""
    parser = argparse.ArgumentParser(prog="training.serving.examine")
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args(arguments)
    emit = emitter()
    asked = Question.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_leave_with_the_studio, name="leave", daemon=True).start()
    os.nice(NICENESS)
    keep_private()
    quiet_libraries()
    try:
        found = _answer(asked, Home.locate(options.home), lambda text: emit({"say": text}))
    except Exception as error:
        if not isinstance(error, StudioError):
            traceback.print_exc()  # into the log, which the studio names
        emit(told(error))
        return 1
    emit({"found": found})
    return 0


def told(error: Exception) -> dict[str, Any]:
    """An error as it crosses to the studio: the nearest kind that the product has, and its words."""
    kinds = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    words = str(error) if isinstance(error, StudioError) else f"{type(error).__name__}: {error}"
    return {"error": next(kinds, StudioError.__name__), "words": words}


def _answer(asked: Question, home: Home, say: Say) -> dict[str, Any]:
    say("Opening the model")
    if asked.act == "check":
        return check_base_model(asked.model, asked.chat_template, say).as_json()
    db = home.open()
    try:
        added = add_model(db, asked.model, asked.name, asked.chat_template, say)
    finally:
        db.dispose()
    seen = added.examination
    return {"policy": added.policy.id, "seen": None if seen is None else [seen.base, seen.examined, seen.not_examined]}


def _leave_with_the_studio() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
