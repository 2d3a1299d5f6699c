"""Making room: which checkpoints may lose their weights, and taking those away. Manifests are kept for ever.

Kept whatever the limits: every policy that was ever promoted with all its ancestors, the best few of each kind by
what was measured of them, and whatever a run that has not ended was told to use. What is left goes by age, or the
oldest first until the rest fits. States to resume an ended run from go by age alone.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.store.models.checkpoints import list_checkpoints, mark_removed
from feedback.store.models.policies import list_policies, list_promotions
from feedback.store.models.runs import list_runs
from feedback.store.models.scorecards import list_scorecards
from feedback.tables import CheckpointRow
from feedback.types import RunState, now
from training.checkpoints.manifest import ADAPTER_CONFIG, MANIFEST_FILE
from training.home import Home

KEPT_FILES = (MANIFEST_FILE, ADAPTER_CONFIG)
STATES = "trainer"  # where a run keeps what it can resume from


@dataclass(frozen=True)
class RetentionLimits:
    """How much may stay: the best ``keep_best`` of each kind always; beyond them by age in days, or by size."""

    keep_best: int = 3
    days: float | None = None
    gigabytes: float | None = None

    def check(self) -> None:
        """Refuse limits that mean nothing."""
        if self.keep_best < 0:
            raise InvalidInput(f"keep_best must be 0 or more, not {self.keep_best}.")
        for name, value in (("days", self.days), ("gigabytes", self.gigabytes)):
            if value is not None and value < 0:
                raise InvalidInput(f"{name} must be 0 or more, not {value:g}.")


@dataclass(frozen=True)
class Removal:
    """One thing that may go: the weights of a checkpoint, or the states of an ended run (then without a row)."""

    name: str
    directory: Path
    size: int
    days: float
    checkpoint: CheckpointRow | None = None


def plan_removals(db: Database, home: Home, limits: RetentionLimits) -> list[Removal]:
    """What the limits would take away, oldest first; nothing is touched."""
    limits.check()
    rows = [row for row in list_checkpoints(db) if row.removed_at is None]
    kept = protected(db) | best(db, rows, limits.keep_best)
    free = [_removal(home, row) for row in reversed(rows) if row.id not in kept]
    return [removal for removal in _beyond(home, rows, free, limits) if removal.size] + _old_states(db, home, limits)


def remove(db: Database, removals: list[Removal]) -> int:
    """Take away what was planned and give back how many bytes that freed; a manifest is never touched."""
    for removal in removals:
        if removal.checkpoint is None:
            shutil.rmtree(removal.directory, ignore_errors=True)
            continue
        mark_removed(db, removal.checkpoint.id, now())
        for path in _weights(removal.directory):
            path.unlink(missing_ok=True)
    return sum(removal.size for removal in removals)


def protected(db: Database) -> set[str]:
    """Checkpoints that no limit may touch: of promoted policies and their ancestors, and those a run still needs."""
    policies = {row.id: row for row in list_policies(db)}
    names = {row.name: row.id for row in policies.values()}
    wanted = [promotion.policy_id for promotion in list_promotions(db)]
    checkpoints: set[str] = set()
    by_name = {row.name: row.id for row in list_checkpoints(db)}
    for run in list_runs(db, states=[state for state in RunState if state is not RunState.succeeded]):
        if run.state.is_terminal and run.state is not RunState.interrupted:
            continue
        for value in _words(run.config):
            wanted.append(names.get(value, value))
            checkpoints.add(by_name.get(value, value))
    while wanted:
        policy = policies.pop(wanted.pop(), None)
        if policy is not None:
            checkpoints |= {policy.checkpoint_id} if policy.checkpoint_id else set()
            wanted += [policy.parent_id] if policy.parent_id else []
    return checkpoints


def best(db: Database, rows: list[CheckpointRow], count: int) -> set[str]:
    """The best ``count`` of each kind by the lower end of what was measured; then unmeasured ones, newest first."""
    cards: dict[str, float] = {}
    for card in list_scorecards(db):  # newest first
        low = card.figures.get("low", card.figures.get("accuracy_low"))
        if isinstance(low, int | float):
            cards.setdefault(card.subject_id, float(low))
    subjects = {row.checkpoint_id: row.id for row in list_policies(db) if row.checkpoint_id}
    kept: set[str] = set()
    for kind in {row.kind for row in rows}:
        own = [row for row in rows if row.kind == kind]
        own.sort(key=lambda row: -cards.get(subjects.get(row.id, row.id), float("-inf")))
        kept |= {row.id for row in own[:count]}
    return kept


def _beyond(home: Home, rows: list[CheckpointRow], free: list[Removal], limits: RetentionLimits) -> list[Removal]:
    """Of what may go (oldest first), what age and size say must; all of it where neither limit was given."""
    if limits.days is None and limits.gigabytes is None:
        return free
    gone = [one for one in free if limits.days is not None and one.days > limits.days]
    if limits.gigabytes is not None:
        left = sum(_removal(home, row).size for row in rows) - sum(one.size for one in gone)
        for one in free:
            if left <= limits.gigabytes * 1e9:
                break
            if one not in gone:
                gone.append(one)
                left -= one.size
    return gone


def _old_states(db: Database, home: Home, limits: RetentionLimits) -> list[Removal]:
    if limits.days is None:
        return []
    found = []
    for run in list_runs(db, states=[state for state in RunState if state.is_terminal]):
        directory = home.run_dir(run.id) / STATES
        days = (now() - (run.ended_at or run.created_at)) / timedelta(days=1)
        if directory.is_dir() and days > limits.days:
            size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
            found.append(Removal(f"states of {run.id}", directory, size, days))
    return found


def _removal(home: Home, row: CheckpointRow) -> Removal:
    directory = home.path / row.path
    size = sum(path.stat().st_size for path in _weights(directory))
    return Removal(row.name, directory, size, (now() - row.created_at) / timedelta(days=1), row)


def _weights(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and path.name not in KEPT_FILES]


def _words(config: dict[str, Any]) -> list[str]:
    """Everything in a run's settings that could name a policy or a checkpoint."""
    values = [str(value) for value in config.values() if isinstance(value, str)]
    return [word.strip() for value in values for word in value.removeprefix("reward:").split(",")]
