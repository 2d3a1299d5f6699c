"""A recipe of real runs, with the worker killed in every state and a run killed in each that has one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.store.datasets.datasets import get_dataset
from feedback.store.models.policies import get_champion
from feedback.store.models.rounds import get_recipe, last_round
from feedback.store.models.runs import list_runs
from feedback.types import RecipeState, RoundState, RunState
from training.home import Home
from training.operations.seed import seed_home
from training.rounds.acts import start

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = {
    "rounds": 1,
    "pairs": 12,
    "annotator": "shorter",
    "methods": [{"method": "dpo", "settings": {"min_steps": 6, "epochs": 1, "save_every": 2}}],
    "prompts": 8,
    "promote": "auto",
}
WITH_A_RUN = (RoundState.filling, RoundState.labeling, RoundState.training, RoundState.evaluating)


def worker(home: Home) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "training.worker", "--home", str(home.path), "--no-standby"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def running_pid(db: Database) -> int | None:
    runs = list_runs(db, states=[RunState.running])
    return runs[0].pid if runs else None


def turn(home: Home, db: Database, *, kills: bool) -> set[RoundState]:
    """Let workers carry out the recipe to its end; returns the states in which something was killed."""
    recipe = start(db, "demo", SETTINGS)
    killed: set[RoundState] = set()
    process = worker(home)
    try:
        while get_recipe(db, recipe.id).state is RecipeState.active:
            state, pid = last_round(db, recipe.id).state, running_pid(db)
            if kills and state not in killed and not state.is_terminal and (pid or state not in WITH_A_RUN):
                kill(process)
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                killed.add(state)
                process = worker(home)
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        kill(process)
    return killed


def account(db: Database) -> dict[str, Any]:
    """What must not depend on kills: the states in order, what each run was for, the counts, who serves."""
    row = last_round(db, get_recipe(db, "demo").id)
    dataset, champion = get_dataset(db, "demo-1"), get_champion(db)
    return {
        "recipe": get_recipe(db, "demo").state,
        "history": [entry["state"] for entry in row.history][:-1],
        "runs": sorted(row.evidence["runs"]),
        "methods": sorted(run.method for run in list_runs(db)),
        "judged": row.evidence["judged"],
        "counts": dataset.counts,
        "compared": row.evidence["over_champion"]["n_prompts"],
        "serves": champion.name if champion and row.state is RoundState.promoted else "starter",
        "ended": row.state.is_terminal,
    }


def test_kills_in_every_state_leave_the_same_history(tmp_path: Path) -> None:
    found = {}
    for kills in (False, True):
        home = Home(tmp_path / f"kills-{kills}")
        db = home.open()
        seed_home(db)
        killed = turn(home, db, kills=kills)
        found[kills] = account(db)
        assert killed >= (set(WITH_A_RUN) if kills else set()), killed
        db.dispose()
    assert found[True] == found[False]
    assert found[True]["recipe"] is RecipeState.finished and found[True]["ended"]
