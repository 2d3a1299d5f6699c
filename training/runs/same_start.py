"""Does a run go on from what it began with? The hash of its base, and of its parent's adapter, from the first attempt.

A state holds an adapter and an optimizer, which mean something over the very weights they were trained on alone. A
base that was replaced since, in the same directory, would make a policy of two halves that do not fit.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from feedback.errors import CheckpointError, StudioError
from feedback.files import atomic_write
from feedback.store.models.policies import get_champion, get_policy
from training.checkpoints.hashing import describe_base
from training.checkpoints.manifest import ADAPTER_FILE
from training.checkpoints.opening import policy_directory
from training.reporting.reporter import RunContext
from training.settings.train import TrainSettings

RECORD = "start.json"
_STATES = ("trainer/**/checkpoint-*", "trainer/**/state*.pt", "trainer/**/adapter")


def check_same_start(context: RunContext) -> None:
    """Raise CheckpointError when there is a state to go on from and the weights under it have changed.

    The first attempt, and one that has nothing to go on from, write down what they begin with. A run of an earlier
    release has no record; what is there when it is resumed is written down then.
    """
    if not isinstance(context.settings, TrainSettings):
        return
    found = _hashes(context)
    path = context.run_dir / RECORD
    known = _read(path)
    if known and any(next(context.run_dir.glob(pattern), None) for pattern in _STATES):
        for name, value in found.items():
            if known.get(name, value) != value:
                raise CheckpointError(_changed(context, name, known[name], value))
    if known != found and found:
        with atomic_write(path) as file:
            file.write(f"{json.dumps(found, indent=2)}\n".encode())


def _hashes(context: RunContext) -> dict[str, str]:
    """What the run begins with; nothing where that cannot be found, which the method itself will say."""
    try:
        parent = (
            get_policy(context.db, context.settings.parent) if context.settings.parent else get_champion(context.db)
        )
        if parent is None or parent.is_endpoint:
            return {}
        found = {"base": describe_base(parent.base)}
        directory = policy_directory(context.db, context.home, parent)
        if directory is not None:
            with (directory / ADAPTER_FILE).open("rb") as file:
                found["parent"] = hashlib.file_digest(file, "sha256").hexdigest()
    except (StudioError, OSError):
        return {}
    return found


def _read(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in known.items()} if isinstance(known, dict) else {}


def _changed(context: RunContext, name: str, before: str, now: str) -> str:
    what = "base model" if name == "base" else "parent's adapter"
    return (
        f"The {what} is not the one this run began with: hash {before[:12]} then, {now[:12]} now. What was trained so "
        "far does not fit to it. Put the original weights back and resume, or begin a new run: `studio runs show "
        f"{context.run.id}` gives the command."
    )
