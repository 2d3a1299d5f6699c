"""A home of the first release goes on: it opens, its runs resume, its checkpoints load, its exports stay the same.

``fixtures/old_home.tar.xz`` was made by commit a5bdb1c on a random Llama of two layers: a policy of every adapter kind,
three reward models, and one run of each method that was killed half-way, with the states that TRL pickled.
``expected.json`` holds what the checkpoints computed then, ``exports`` what the dataset gave.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback import formats
from feedback.database.engine import Database
from feedback.store.models.checkpoints import list_checkpoints
from feedback.store.models.policies import list_policies
from feedback.store.models.runs import claim_next_run, get_run, list_metrics, list_runs
from feedback.types import RunState
from training.checkpoints.opening import open_policy, open_reward
from training.home import Home
from training.operations.rebase import rebase
from training.runs import queue
from training.runs.launch.local import this_host

ARCHIVE = Path(__file__).parent / "fixtures" / "old_home.tar.xz"
OLD_BASE = "/tmp/old-home/base"
METHODS = ("sft", "dpo", "kto", "reward", "rft", "rloo", "ppo")
CHANGED = {
    "raw.jsonl": "each judgment has gained the field `origin`, each prompt `retired`, each generation `reasoning`",
    "label-studio.jsonl": "`judges` names the judges whose ids Label Studio would not take",
}
"""Exports that say more than they did, and why."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    return directory


@pytest.fixture
def old(unpacked: Path, tmp_path: Path) -> Iterator[tuple[Home, Database]]:
    """A copy of the home whose base lies beside it."""
    shutil.copytree(unpacked / "home", tmp_path / "home")
    home = Home(tmp_path / "home")
    db = home.open()
    rebase(db, home, OLD_BASE, str(unpacked / "base"))
    yield home, db
    db.dispose()


def test_every_checkpoint_computes_what_it_did(old: tuple[Home, Database], unpacked: Path) -> None:
    import torch

    home, db = old
    ids = torch.arange(5, 37).reshape(2, 16)
    found = {}
    policies = {row.name: open_policy(db, home, row.name) for row in list_policies(db)}
    rewards = {row.name: open_reward(db, home, row.name) for row in list_checkpoints(db, kind="reward")}
    for name, loaded in {**policies, **rewards}.items():
        with torch.no_grad():
            found[name] = float(loaded.model.eval()(input_ids=ids).logits.double().abs().sum())
    assert found == pytest.approx(json.loads((unpacked / "expected.json").read_text()), rel=1e-5)
    assert len(set(found.values())) == len(found), "each adapter is in force"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_killed_half_way_goes_on(old: tuple[Home, Database], method: str) -> None:
    home, db = old
    run = next(row for row in list_runs(db, method=method) if row.config["name"] == f"half-{method}")
    before = list_metrics(db, run.id)
    assert run.state is RunState.interrupted and before
    queue.resume(db, home, run.id)
    claimed = claim_next_run(db, host=this_host())
    assert claimed is not None and claimed.id == run.id
    command = [sys.executable, "-m", "training.execute", "--home", str(home.path), "--run", run.id]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    row = get_run(db, run.id)
    assert row.state is RunState.succeeded, row.error or done.stderr
    later = list_metrics(db, run.id, after_id=max(point.id or 0 for point in before))
    if method == "reward":  # a reward head reads the end of the turn since then
        assert "left by an earlier version, whose head read otherwise: it begins again" in done.stdout + done.stderr
    else:
        assert min(point.step for point in later) > 1, "it went on from its state"
    assert max(point.step for point in later) > max(point.step for point in before)


def test_exports_stay_the_same_to_the_byte(old: tuple[Home, Database], unpacked: Path) -> None:
    _, db = old
    kept = sorted((unpacked / "exports").iterdir())
    assert len(kept) > 8
    for path in kept:
        if path.name in CHANGED:
            continue
        export, chosen = formats.open_export(db, "old", path.name.partition(".")[0], None)
        assert "".join(chosen.lines(chosen.rows(export))) == path.read_text(), path.name
