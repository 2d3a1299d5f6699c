"""What serves when a studio starts: SmolLM2 in a new home, the starter in its place, or what was asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from feedback.database.engine import Database
from feedback.store.content.prompts import list_prompts
from feedback.store.models.policies import get_champion, list_policies, save_policy
from feedback.store.models.runs import claim_next_run, list_runs, transition_run
from feedback.types import Policy, RunState
from studio.cli.commands import serve
from studio.cli.commands.serve import choose_first_policy
from training.runs.launch.local import this_host
from training.smollm2.wheel import ModelUnavailable


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDIO_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def champion_of(db: Database) -> str | None:
    champion = get_champion(db)
    return None if champion is None else champion.name


def test_a_new_home_without_the_model_says_why_the_starter_serves(
    db: Database, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choose_first_policy(db, None)
    assert champion_of(db) == "starter"
    assert "studio policies add smollm2" in capsys.readouterr().err
    choose_first_policy(db, None)
    assert capsys.readouterr().err == ""  # once


def test_a_new_home_with_the_model_begins_with_it(
    db: Database, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "SmolLM2-135M-Instruct.Q4_1.gguf").touch()
    choose_first_policy(db, None)
    assert champion_of(db) == "smollm2"
    assert capsys.readouterr().err == ""


def test_the_starter_serves_where_it_is_asked_for(db: Database, models: Path) -> None:
    (models / "SmolLM2-135M-Instruct.Q4_1.gguf").touch()
    choose_first_policy(db, "starter")
    assert [policy.name for policy in list_policies(db)] == ["starter"]
    assert not any("assistant" in prompt.tags for prompt in list_prompts(db))


def test_an_older_home_is_given_the_starter_beside_its_own(db: Database, models: Path) -> None:
    save_policy(db, Policy(name="mine", base="me/model"))
    choose_first_policy(db, "starter")
    assert champion_of(db) == "starter"
    assert {policy.name: policy.id for policy in list_policies(db)}["starter"] == "pol-starter"


def test_a_model_that_cannot_be_brought_leaves_the_home_empty(
    db: Database, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline() -> Path:
        raise ModelUnavailable("no network")

    monkeypatch.setattr(serve, "fetch_gguf", offline)
    with pytest.raises(ModelUnavailable):
        choose_first_policy(db, "smollm2")
    assert list_policies(db) == []


def test_pairs_are_drawn_again_after_the_run_that_drew_them_was_killed(db: Database) -> None:
    choose_first_policy(db, "starter")
    serve.fill_first_pool(db)
    (first,) = list_runs(db)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(dead.pid).create_time()
    dead.wait()
    claim_next_run(db, host=this_host())
    transition_run(db, first.id, expected=[RunState.starting], to=RunState.running, pid=dead.pid, pid_started=started)
    serve.fill_first_pool(db)
    states = {run.id: run.state for run in list_runs(db)}
    assert states.pop(first.id) is RunState.interrupted and list(states.values()) == [RunState.queued]
    serve.fill_first_pool(db)
    assert len(list_runs(db)) == 2, "one that waits is enough"
