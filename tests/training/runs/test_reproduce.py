from __future__ import annotations

import shlex

from feedback.types import Run
from training.runs.reproduce import command_of, spec_of
from training.settings.parsing import parse_settings


def test_a_training_run_is_one_line_that_says_all_of_it() -> None:
    config = {
        "dataset": "round 1", "parent": "starter", "name": "taken", "epochs": 2, "learning_rate": 0.001, "dry_run": True
    }  # fmt: skip
    line = command_of(Run(method="dpo", config=config))
    assert line == (
        "studio train dpo --dataset 'round 1' --parent starter --set epochs=2 --set learning_rate=0.001 "
        "--set dry_run=true"
    )
    said = [word.partition("=") for word in shlex.split(line) if "=" in word]
    again = {"dataset": "round 1", "parent": "starter", **{key: value for key, _, value in said}}
    asked = {key: value for key, value in config.items() if key != "name"}
    assert parse_settings("dpo", again) == parse_settings("dpo", asked)
    assert spec_of(Run(method="dpo", config=config)) == {"method": "dpo", "config": asked}


def test_other_runs_are_their_commands() -> None:
    assert command_of(Run(method="evaluate", config={"a": "x", "b": "y", "oracle": "shorter"})) == (
        "studio evaluate x y --oracle shorter"
    )
    assert command_of(Run(method="generate", config={"per_prompt": 4})) == "studio generate --per-prompt 4"
