"""Making room: limits take what they may, and nothing that somebody still needs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlmodel import col

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput
from feedback.store.models.checkpoints import get_checkpoint, save_checkpoint
from feedback.store.models.policies import promote_policy, save_policy
from feedback.store.models.runs import save_run
from feedback.store.models.scorecards import save_scorecard
from feedback.tables import CheckpointRow, PolicyRow
from feedback.types import Checkpoint, Policy, Run, RunState, Scorecard, now
from training.home import Home
from training.operations.retention import RetentionLimits, plan_removals, remove

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


class Shelf:
    """Checkpoints with files, oldest first: each with a policy, unless it is a reward model."""

    def __init__(self, db: Database, home: Home) -> None:
        self.db, self.home, self._age = db, home, 100

    def add(self, name: str, *, parent: PolicyRow | None = None, low: float | None = None, kind: str = "policy"):
        directory = self.home.checkpoints / name
        directory.mkdir()
        (directory / "manifest.json").write_text("{}")
        (directory / WEIGHTS).write_bytes(b"x" * 1000)
        value = Checkpoint(name=name, kind=kind, path=f"checkpoints/{name}", base="b")
        row = save_checkpoint(self.db, value)
        with self.db.write() as session:
            old = now() - timedelta(days=self._age)
            session.execute(update(CheckpointRow).where(col(CheckpointRow.id) == row.id).values(created_at=old))
        self._age -= 10
        if kind == "reward":
            subject = row.id
            policy = None
        else:
            parent_id = parent.id if parent else None
            policy = save_policy(self.db, Policy(name=name, base="b", checkpoint_id=row.id, parent_id=parent_id))
            subject = policy.id
        if low is not None:
            measured = "win_rate" if kind == "policy" else "reward_accuracy"
            figures = {"low" if kind == "policy" else "accuracy_low": low}
            save_scorecard(self.db, Scorecard(kind=measured, subject_id=subject, figures=figures))
        return policy


@pytest.fixture
def shelf(db: Database, home: Home) -> Shelf:
    return Shelf(db, home)


def names(db: Database, home: Home, **limits: float) -> list[str]:
    return [removal.name for removal in plan_removals(db, home, RetentionLimits(**limits))]  # type: ignore[arg-type]


def test_promoted_policies_and_their_ancestors_are_never_touched(db: Database, home: Home, shelf: Shelf) -> None:
    grandparent = shelf.add("grandparent")
    parent = shelf.add("parent", parent=grandparent)
    shelf.add("champion", parent=parent)
    shelf.add("stray", parent=parent)
    promote_policy(db, "champion")
    promote_policy(db, save_policy(db, Policy(name="base", base="b")).id)  # no longer champion, still promoted once
    assert names(db, home, keep_best=0) == ["stray"]


def test_the_best_stay_by_what_was_measured_of_them(db: Database, home: Home, shelf: Shelf) -> None:
    for name, low in (("good", 0.7), ("bad", 0.4), ("unmeasured-old", None), ("unmeasured-new", None)):
        shelf.add(name, low=low)
    for name, low in (("sharp", 0.9), ("dull", 0.5)):
        shelf.add(name, low=low, kind="reward")
    assert names(db, home, keep_best=1) == ["bad", "unmeasured-old", "unmeasured-new", "dull"]
    assert names(db, home, keep_best=3) == ["unmeasured-old"]


def test_age_and_size_take_the_oldest_first(db: Database, home: Home, shelf: Shelf) -> None:
    for name in ("first", "second", "third", "fourth"):  # 100, 90, 80 and 70 days old
        shelf.add(name)
    assert names(db, home, keep_best=0, days=85) == ["first", "second"]
    assert names(db, home, keep_best=0, gigabytes=2.5e-6) == ["first", "second"]
    assert names(db, home, keep_best=0, days=95, gigabytes=2.5e-6) == ["first", "second"]
    assert names(db, home, keep_best=0, gigabytes=1) == []


def test_what_a_run_still_needs_stays(db: Database, home: Home, shelf: Shelf) -> None:
    shelf.add("parent")
    shelf.add("judge", kind="reward")
    shelf.add("other")
    save_run(db, Run(method="dpo", config={"parent": "parent", "reward": "judge, another"}))
    save_run(db, Run(method="dpo", config={"parent": "other"}, state=RunState.failed))
    assert names(db, home, keep_best=0) == ["other"]


def test_weights_go_and_manifests_stay(db: Database, home: Home, shelf: Shelf) -> None:
    shelf.add("gone")
    assert remove(db, plan_removals(db, home, RetentionLimits(keep_best=0))) == 1000
    directory = home.checkpoints / "gone"
    assert (directory / "manifest.json").exists() and not (directory / WEIGHTS).exists()
    assert get_checkpoint(db, "gone").removed_at is not None
    assert names(db, home, keep_best=0) == []
    with pytest.raises(Conflict, match="weights of 'gone' were removed to save space; train it again"):
        promote_policy(db, "gone")


def test_states_of_ended_runs_go_by_age(db: Database, home: Home) -> None:
    old, young, live = (
        save_run(db, Run(method="dpo", state=state)) for state in (RunState.failed, RunState.failed, RunState.running)
    )
    for run, days in ((old, 30), (young, 1), (live, 30)):
        (home.run_dir(run.id) / "trainer").mkdir(parents=True)
        (home.run_dir(run.id) / "trainer" / "state").write_text("x")
        with db.write() as session:
            run.ended_at = now() - timedelta(days=days)
            session.add(run)
    removals = plan_removals(db, home, RetentionLimits(days=7))
    assert [removal.name for removal in removals] == [f"states of {old.id}"]
    remove(db, removals)
    assert not (home.run_dir(old.id) / "trainer").exists() and (home.run_dir(live.id) / "trainer").exists()


def test_limits_that_mean_nothing_are_refused(db: Database, home: Home) -> None:
    with pytest.raises(InvalidInput, match="keep_best must be 0 or more, not -1"):
        plan_removals(db, home, RetentionLimits(keep_best=-1))
    with pytest.raises(InvalidInput, match="days must be 0 or more"):
        plan_removals(db, home, RetentionLimits(days=-2))
