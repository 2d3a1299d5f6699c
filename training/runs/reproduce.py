"""How to do a run again: one line for a shell, and the JSON that ``POST /api/runs`` takes. Pure."""

from __future__ import annotations

import shlex
from typing import Any

from feedback.types import Run
from training.methods import METHODS

# Settings that are options of `studio train` by themselves.
OPTIONS = ("dataset", "parent", "name")


def spec_of(run: Run) -> dict[str, Any]:
    """What a run was asked to do, as the REST route takes it; its name is left out, for it is taken."""
    return {"method": run.method, "config": {key: value for key, value in run.config.items() if key != "name"}}


def command_of(run: Run) -> str:
    """The command that queues the same run again; a run that is no training is given by its flags alike."""
    config = spec_of(run)["config"]
    method = METHODS.get(run.method)
    if method is None or method.kind != "train":
        return _plain(run.method, config)
    words = ["studio", "train", run.method]
    for key in OPTIONS:
        if config.get(key) is not None:
            words += [f"--{key}", str(config[key])]
    for key, value in config.items():
        if key not in OPTIONS:
            words += ["--set", f"{key}={_spelled(value)}"]
    return shlex.join(words)


def _plain(method: str, config: dict[str, Any]) -> str:
    positional = [str(config[key]) for key in ("a", "b") if config.get(key) is not None]
    named = {key: value for key, value in config.items() if key not in ("a", "b")}
    flags = [word for key, value in named.items() for word in (f"--{key.replace('_', '-')}", _spelled(value))]
    return shlex.join(["studio", method, *positional, *flags])


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
