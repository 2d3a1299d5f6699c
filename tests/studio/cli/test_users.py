"""`studio users` and `studio audit` as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from studio.cli.app import app
from tests.factories import judge_by, longer, make_matchup
from training.home import Home

Studio = Callable[..., Result]


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """The command over a home of its own."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, ["--home", str(tmp_path / "home"), *arguments], input=stdin)

    return run


def test_a_user_from_the_first_to_the_last_day(studio: Studio) -> None:
    assert "No users" in studio("users", "list").stdout
    made = json.loads(studio("users", "add", "ada", "--role", "admin", "--json").stdout)
    assert set(made) == {"id", "name", "role", "status", "created_at", "password", "token"}
    ann = studio("users", "add", "ann", "--role", "annotator")
    assert "token     studio_key-" in ann.stdout and "shown this once" in ann.stderr
    listed = json.loads(studio("users", "list", "--json").stdout)
    assert [(row["name"], row["role"], row["status"]) for row in listed] == [
        ("ada", "admin", "active"),
        ("ann", "annotator", "active"),
    ]
    assert not {"password_hash", "pseudonym"} & set(listed[0])
    assert json.loads(studio("users", "disable", "ann", "--json").stdout)["status"] == "disabled"
    refused = studio("users", "token", "ann")
    assert refused.exit_code == 1 and "studio users enable ann" in refused.stderr
    assert studio("users", "enable", "ann").exit_code == 0
    assert studio("users", "token", "ann").stdout.startswith("studio_key-")
    assert json.loads(studio("users", "role", "ann", "reviewer", "--json").stdout)["role"] == "reviewer"
    assert len(studio("users", "password", "ann").stdout.strip()) == 23
    piped = studio("users", "password", "ann", "--password-stdin", stdin="a few plain words\n")
    assert piped.exit_code == 0 and "a few plain words" not in piped.stdout + piped.stderr
    verbs = [event["verb"] for event in json.loads(studio("audit", "--json").stdout)]
    assert verbs == ["user.password", "user.password", "user.role", "user.token", "user.enable", "user.disable",
                     "user.token", "user.add", "user.token", "user.add"]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "ann", "--role", "king"], "'king' is not a role; valid: annotator, reviewer, researcher, admin."),
        (["add", "ada"], "There is already a user 'ada'"),
        (["add", "a b"], "cannot name a user"),
        (["disable", "nobody"], "There is no user 'nobody'. Known: ada."),
        (["disable", "ada"], "ada is the only admin"),
        (["role", "ada", "annotator"], "ada is the only admin"),
        (["password", "ada", "--password-stdin"], "found no password on standard input"),
    ],
)
def test_mistakes_are_told_in_one_sentence(studio: Studio, arguments: list[str], said: str) -> None:
    assert studio("users", "add", "ada", "--role", "admin").exit_code == 0
    result = studio("users", *arguments)
    assert result.exit_code == 1 and said in result.stderr, result.stderr
    assert result.stdout == "" and len(result.stderr.strip().splitlines()) == 1


def test_a_studio_without_an_admin_is_warned_of(studio: Studio) -> None:
    assert "there is no admin yet" in studio("users", "add", "ann").stderr
    assert "there is no admin yet" not in studio("users", "add", "ada", "--role", "admin").stderr


def test_commands_that_change_something_are_written_down(studio: Studio, tmp_path: Path) -> None:
    db = Home(tmp_path / "home").open()
    make_matchup(db)
    judge_by(db, longer)
    db.dispose()
    assert studio("dataset", "freeze", "votes").exit_code == 0
    assert studio("dataset", "freeze", "votes").exit_code == 1
    assert studio("dataset", "list").exit_code == 0
    events = json.loads(studio("audit", "--json").stdout)
    assert [(event["verb"], event["subject"]) for event in events] == [("dataset.freeze", "votes")]
    assert events[0]["actor"].startswith("shell")
    assert "dataset.freeze" in studio("audit", "--actor", events[0]["actor"]).stdout
