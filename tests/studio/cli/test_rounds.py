"""`studio rounds`: start, list, show, pause, resume, skip, decide, fork, cancel; and the same over REST."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from feedback.database.engine import Database
from feedback.store.models.rounds import last_round
from feedback.types import RoundState
from studio.cli.app import app
from training.home import Home
from training.operations.seed import seed_home
from training.rounds.advance import advance

Studio = Callable[..., Result]


@pytest.fixture
def own_home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "own-home")
    db = home.open()
    seed_home(db)
    db.dispose()
    return home


@pytest.fixture
def studio(own_home: Home) -> Studio:
    home = own_home
    return lambda *arguments: CliRunner().invoke(app, ["--home", str(home.path), *map(str, arguments)])


def test_a_recipe_from_its_start_to_its_end(studio: Studio, own_home: Home) -> None:
    assert studio("rounds", "list").stdout == "No rounds yet; `studio rounds start NAME` begins some.\n"
    started = studio(
        "rounds", "start", "tone", "--pairs", 30, "--rounds", 2, "--method", "sft", "--method", "dpo",
        "--set", "beta=0.2", "--set", "sft.epochs=2", "--limit", "kl=20", "--json",
    )  # fmt: skip
    assert started.exit_code == 0, started.stderr
    settings = json.loads(started.stdout)["settings"]
    assert settings["methods"] == [
        {"method": "sft", "settings": {"epochs": "2"}},
        {"method": "dpo", "settings": {"beta": "0.2"}},
    ]
    assert (settings["policy"], settings["pairs"], settings["limits"]) == ("starter", 30, {"kl": 20.0})

    db = own_home.open()
    advance(db, own_home, "tone")
    db.dispose()
    shown = studio("rounds", "show", "tone").stdout
    assert "filling" in shown and "Round 1 waits for replies by starter" in shown
    assert "tone  active  1 of 2  filling" in studio("rounds", "list").stdout

    assert studio("rounds", "pause", "tone").stdout == "tone is paused; `studio rounds resume tone` goes on.\n"
    assert studio("rounds", "pause", "tone").exit_code == 1
    assert studio("rounds", "resume", "tone").stdout == "tone goes on.\n"
    assert "labeling begins with the pairs that are there" in studio("rounds", "skip", "tone").stdout
    assert "nothing is to be decided" in studio("rounds", "decide", "tone", "hold").stderr
    assert "Valid: promote, hold" in studio("rounds", "decide", "tone", "maybe").stderr
    forked = json.loads(studio("rounds", "fork", "tone", "tone-b", "--pairs", 40, "--json").stdout)
    assert forked["settings"]["pairs"] == 40
    assert "tone is cancelled" in studio("rounds", "cancel", "tone", "--yes").stdout
    states = {row["name"]: row["state"] for row in json.loads(studio("rounds", "list", "--json").stdout)}
    assert states == {"tone": "cancelled", "tone-b": "active"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "rloo.epochs=1"), "no method 'rloo' in this recipe, which has dpo"),
        (("--method", "reward"), "A round cannot train by 'reward'. Valid: dpo, kto"),
        (("--limit", "kl=much"), "--limit needs a number"),
        (("--promote", "perhaps"), "promote: Input should be 'ask' or 'auto'"),
        (("--annotator", "sweeter"), "sweeter"),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence_and_starts_nothing(studio: Studio, options: tuple[str, ...], words: str) -> None:
    refused = studio("rounds", "start", "tone", *options)
    assert refused.exit_code == 1 and words in refused.stderr and "Traceback" not in refused.stderr
    assert json.loads(studio("rounds", "list", "--json").stdout) == []


def test_rest_shows_and_does_the_same(client: TestClient, db: Database, home: Home) -> None:
    seed_home(db)
    answer = client.post("/api/rounds", json={"name": "tone", "settings": {"pairs": 30, "promote": "auto"}})
    assert answer.status_code == 201 and answer.json()["round_state"] == "filling"
    assert client.post("/api/rounds", json={"name": "tone"}).status_code == 409
    assert client.post("/api/rounds", json={"name": "x", "settings": {"pairs": 0}}).status_code == 422
    advance(db, home, "tone")
    recipe = client.get("/api/rounds/tone").json()
    (row,) = recipe["rounds"]
    assert (row["state"], row["champion"], row["runs"][0]["method"]) == ("filling", "starter", "generate")
    assert recipe["guidance"] and [entry["state"] for entry in row["history"]] == ["filling"]
    assert client.post("/api/rounds/tone/pause").json()["state"] == "paused"
    assert client.post("/api/rounds/tone/resume").json()["state"] == "active"
    assert client.post("/api/rounds/tone/decide", json={"choice": "promote"}).status_code == 409
    assert client.post("/api/rounds/tone/decide", json={"choice": "maybe"}).status_code == 422
    forked = client.post("/api/rounds/tone/fork", json={"name": "tone-b", "settings": {"pairs": 40}})
    assert forked.status_code == 201 and forked.json()["settings"]["pairs"] == 40
    assert client.post("/api/rounds/tone/cancel").json()["state"] == "cancelled"
    assert last_round(db, recipe["id"]).state is RoundState.cancelled
    assert [one["name"] for one in client.get("/api/rounds").json()["recipes"]] == ["tone-b", "tone"]
    assert client.get("/api/rounds/none").status_code == 404
