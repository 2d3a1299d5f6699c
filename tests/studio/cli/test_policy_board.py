"""`studio policies board` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from studio.cli.app import app
from tests.factories import compare_policies, make_policy, make_win_rate
from training.home import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("STUDIO_DATABASE_URL", raising=False)
    return Home(tmp_path / "home")


def board(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--home", str(home.path), "policies", "board", *arguments])


def test_an_empty_board_says_how_to_fill_it(home: Home) -> None:
    done = board(home)
    assert done.exit_code == 0 and "studio evaluate A B --people" in done.stdout


def test_policies_stand_in_order_with_their_intervals(home: Home) -> None:
    db = home.open()
    start, better, new = (make_policy(db, name) for name in ("start", "better", "new"))
    compare_policies(db, better, start, wins=15, losses=5)
    compare_policies(db, new, start, wins=1, losses=1)
    db.dispose()
    done = board(home, "--reference", "start")
    assert done.exit_code == 0, done.output
    header, first, second, third = done.stdout.splitlines()
    assert header.split("  ")[0] == "policy" and "log-odds over start" in header
    assert first.startswith("better") and "+1.10 [" in first and first.split()[-3:] == ["20", "20", "10"]
    assert second.startswith("start") and "+0.00 [+0.00, +0.00]" in second
    assert third.startswith("new") and "compared on 2 prompts, 10 are needed" in third
    assert [row["policy"] for row in json.loads(board(home, "--json").stdout)["standings"]][-1] == "new"


def test_an_unknown_reference_is_one_sentence(home: Home) -> None:
    done = board(home, "--reference", "nobody")
    assert done.exit_code == 1 and "nobody" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_each_judge_has_a_board_and_the_others_are_named(home: Home) -> None:
    db = home.open()
    start, better = make_policy(db, "start"), make_policy(db, "better")
    make_win_rate(db, better, start, 0.7, oracle="shorter")
    db.dispose()
    by_people = board(home)
    assert "studio evaluate A B --people" in by_people.stdout and "--by oracle:shorter" in by_people.stderr
    by_rule = board(home, "--by", "oracle:shorter", "--reference", "start")
    first, second = by_rule.stdout.splitlines()[1:]
    assert first.startswith("better") and "+0.85 [+0.62, +1.10]" in first and second.startswith("start")
    assert json.loads(board(home, "--by", "oracle:shorter", "--json").stdout)["judges"] == ["people", "oracle:shorter"]
    unknown = board(home, "--by", "oracle:longer")
    assert unknown.exit_code == 1 and "Known: people, oracle:shorter." in unknown.stderr
