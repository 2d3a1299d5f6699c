"""`studio prompts`: add, list, retire, restore."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from studio.cli.app import app
from training.home import Home

Studio = Callable[..., Result]


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """Runs a command in this process on a home that holds no prompts of its own in use."""
    home = Home(tmp_path / "home")

    def command(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, ["--home", str(home.path), *map(str, arguments)])

    bundled = {
        tag
        for tags in json.loads(command("prompts", "list", "--limit", "9999", "--json").stdout)
        for tag in tags["tags"]
    }
    for tag in sorted(bundled):
        command("prompts", "retire", "--tag", tag, "--yes")
    return command


def test_a_prompt_is_added_with_a_system_message_and_tags(studio: Studio, tmp_path: Path) -> None:
    added = studio("prompts", "add", "Why is it so?", "--system", "Be short.", "--tag", "mine", "--tag", "why")
    assert added.stdout.startswith("Added prm-")
    assert "was there already" in studio("prompts", "add", "Why is it so?", "--system", "Be short.").stdout
    (row,) = json.loads(studio("prompts", "list", "--json").stdout)
    assert [turn["role"] for turn in row["messages"]] == ["system", "user"]
    assert (row["tags"], row["split"]) == (["mine", "why"], "work")
    file = tmp_path / "more.jsonl"
    own = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Two?"}]
    file.write_text('{"prompt": "One?", "tags": ["file"]}\n' + json.dumps({"messages": own, "split": "work"}) + "\n")
    options = ("--file", file, "--system", "Be short.", "--tag", "mine", "--split", "evaluation")
    assert studio("prompts", "add", *options).stdout == "Added 2 prompts; 0 were there already and stay as they were.\n"
    (held_out,) = json.loads(studio("prompts", "list", "--split", "evaluation", "--json").stdout)
    assert (held_out["messages"][0]["content"], held_out["tags"]) == ("Be short.", ["file", "mine"])
    assert json.loads(studio("prompts", "list", "--tags", "--json").stdout) == {"mine": 3, "file": 1, "why": 1}
    listed = json.loads(studio("prompts", "list", "--tag", "mine", "--tag", "why", "--json").stdout)
    assert [each["id"] for each in listed] == [row["id"]]
    for wrong in ((), ("a", "--file", file)):
        refused = studio("prompts", "add", *wrong)
        assert refused.exit_code == 1 and "either a text or --file" in refused.stderr
    assert "messages.0.content" in studio("prompts", "add", " ").stderr


def test_prompts_are_retired_when_that_is_confirmed_and_restored(studio: Studio) -> None:
    ids = [json.loads(studio("prompts", "add", text, "--tag", "odd", "--json").stdout)["ids"][0] for text in "ab"]
    refused = studio("prompts", "retire", "--tag", "odd")
    assert refused.exit_code == 1
    assert refused.stderr == "2 prompts would be retired; nothing was changed. Say --yes to do it.\n"
    assert studio("prompts", "retire", ids[0], "--yes").stdout == "Retired 1 prompts; 0 open matchups left the pool.\n"
    done = json.loads(studio("prompts", "retire", "--tag", "odd", "--yes", "--json").stdout)
    assert done == {"retired": 1, "already": 1, "withdrawn": 0}
    assert studio("prompts", "list", "--tag", "odd").stdout.startswith("No such prompts")
    retired = json.loads(studio("prompts", "list", "--retired", "--tag", "odd", "--json").stdout)
    assert [row["id"] for row in retired] == ids
    assert "1 are retired, and stay so" in studio("prompts", "add", "a").stderr
    assert "There is no prompt 'prm-none'." in studio("prompts", "retire", "prm-none", "--yes").stderr
    restored = json.loads(studio("prompts", "restore", *ids, "--yes", "--json").stdout)
    assert restored == {"restored": 2, "already": 0, "reopened": 0}
    assert len(json.loads(studio("prompts", "list", "--tag", "odd", "--json").stdout)) == 2
