"""The command line as a user meets it: in this process where that is enough, as a real command where it matters."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from feedback.database.engine import Database
from feedback.datasets.freeze import freeze
from feedback.errors import StudioError
from feedback.store.content.prompts import count_prompts
from feedback.store.models.checkpoints import save_checkpoint
from feedback.store.models.runs import get_run, list_runs, save_metrics, update_run
from feedback.store.people.audit import list_events
from feedback.types import Checkpoint, MetricPoint, RunState
from studio import doctor
from studio.cli.app import app, home_options_first
from studio.cli.commands.serve import bind, refuse_unknown_address, refuse_without_admin
from studio.cli.commands.train import TRAINERS, parse_assignments
from studio.security import accounts as users
from studio.web.guard.mount import Mount
from tests.factories import judge_by, longer, make_matchup, make_policy
from training.home import Home
from training.operations.seed import seed_home

ROOT = Path(__file__).parents[3]
Studio = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("STUDIO_HOME", raising=False)
    monkeypatch.delenv("STUDIO_DATABASE_URL", raising=False)
    return Home(tmp_path / "home")


@pytest.fixture
def studio(home: Home) -> Studio:
    """Runs a command in this process on the test's home."""

    def command(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, ["--home", str(home.path), *map(str, arguments)])

    return command


def started(home: Home, *arguments: str) -> subprocess.Popen[str]:
    """The same as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "studio.cli", "--home", str(home.path), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def judged_home(home: Home, pairs: int = 12) -> None:
    """A seeded home with a dataset ``d`` of made-up pairs."""
    db = home.open()
    seed_home(db)
    elsewhere = make_policy(db, "elsewhere")
    for number in range(pairs):
        make_matchup(db, policy=elsewhere, texts=[f"Yes {number}.", f"Yes of course, and gladly so, number {number}."])
    judge_by(db, longer)
    freeze(db, "d")
    db.dispose()


def test_the_home_may_stand_anywhere(home: Home) -> None:
    assert home_options_first(["runs", "list", "--home", "/a", "--json"]) == ["--home", "/a", "runs", "list", "--json"]
    assert home_options_first(["up", "--database-url=x"]) == ["--database-url=x", "up"]
    assert home_options_first(["a", "--", "--home", "/a"]) == ["a", "--", "--home", "/a"]
    for arguments in (["--home", str(home.path), "runs", "list"], ["runs", "list", "--home", str(home.path)]):
        assert CliRunner().invoke(app, arguments).stdout == "No runs yet.\n"
    assert home.database_file.exists()


def test_every_line_of_the_contract_has_its_command() -> None:
    for command in [
        ["up", "worker", "doctor", "generate", "judge", "export", "import", "train", "evaluate", "loop"],
        *[["prompts", each] for each in ("import", "list")],
        *[["dataset", each] for each in ("freeze", "list", "show")],
        *[["runs", each] for each in ("list", "show", "logs", "cancel", "resume")],
        *[["policies", each] for each in ("list", "show", "promote", "lineage")],
    ]:
        for words in [[word] for word in command] if len(command) > 2 else [command]:
            result = CliRunner().invoke(app, [*words, "--help"])
            assert result.exit_code == 0, words
            assert result.stdout.startswith("Usage:")
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == "0.1.0"


def test_a_users_mistake_is_one_sentence_and_a_status(studio: Studio, home: Home, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "Hello?"}\n{"prompt": \n')
    judged_home(home)
    db = home.open()
    save_checkpoint(db, Checkpoint(name="judge", kind="reward", path="checkpoints/judge", base="starter"))
    db.dispose()
    for arguments, said in [
        (["runs", "show", "run-nope"], "There is no run 'run-nope'. `studio runs list` shows all."),
        (["policies", "promote", "nobody"], "There is no policy 'nobody'. Known: elsewhere, starter."),
        (["train", "fly", "--dataset", "d"], f"There is no training method 'fly'. Valid: {', '.join(TRAINERS)}."),
        (["train", "generate", "--dataset", "d"], "There is no training method 'generate'. Valid: dpo, "),
        (["train", "sft"], "sft needs dataset: The frozen dataset to learn from."),
        (["train", "rft"], "rft: give either reward (a checkpoint) or reward_function, and not both."),
        (["train", "rft", "--set", "reward_function=sweet"], "There is no reward function 'sweet'. Reward functions: "),
        (["train", "rloo", "--set", "reward=r1,r2"], "There is no reward model 'r1'."),
        (["train", "dpo", "--dataset", "nope"], "There is no dataset 'nope'. Known: d."),
        (["train", "dpo", "--dataset", "d", "--set", "speed=3"], "dpo has no setting 'speed'. Valid settings: dataset"),
        (["train", "dpo", "--dataset", "d", "--set", "beta=99"], "beta='99' is not valid for dpo: float, 0.001 to 10."),
        (["train", "dpo", "--dataset", "d", "--set", "beta"], "--set 'beta' is not KEY=VALUE"),
        (["prompts", "import", str(broken)], "broken.jsonl, line 2: "),
        (["prompts", "import", str(tmp_path / "none.jsonl")], str(tmp_path / "none.jsonl")),
        (["dataset", "freeze", "a b"], "'a b' cannot name a dataset"),
        (
            ["dataset", "freeze", "x", "--annotator", "nobody"],
            "There is no judgment by 'nobody'. Known: ann. Leave the annotator out to take everybody's.",
        ),
        (["dataset", "freeze", "x", "--min-agreement", "2"], "min_agreement must be between 0.5 and 1, not 2.0"),
        (["export", "d", "--format", "xml", "--out", str(tmp_path / "x")], "'xml' is not a format; valid: raw"),
        (["judge", "--oracle", "sweeter", "--count", "1"], "There is no oracle 'sweeter'. Oracles: shorter"),
        (
            ["judge", "--oracle", "reward:nope", "--count", "1"],
            "There is no reward model 'nope'. Known: judge. Train one: `studio train reward --dataset D`.",
        ),
        (["loop", "--oracle", "shorter", "--method", "fly"], "A round cannot train by 'fly'. Valid: dpo, "),
        (["loop", "--oracle", "shorter", "--policy", "/nowhere/x"], "There is no model directory '/nowhere/x'"),
        (["up", "--host", "0.0.0.0"], "Refusing to bind 0.0.0.0"),
        (["up", "--policy", "/nowhere/x", "--port", "0"], "There is no model directory '/nowhere/x'"),
    ]:
        result = studio(*arguments)
        assert result.exit_code == 1, arguments
        assert said in result.stderr, (arguments, result.stderr)
        assert result.stdout == "" and "Traceback" not in result.stderr, arguments
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    db = home.open()
    assert count_prompts(db) > 600 and list_runs(db) == []
    db.dispose()


def test_a_usage_error_is_typers() -> None:
    result = CliRunner().invoke(app, ["generate", "--nope"])
    assert result.exit_code == 2 and "No such option: --nope" in result.stderr


@pytest.mark.slow_except("name")
@pytest.mark.parametrize(
    "arguments",
    [
        [b"policies", b"show", b"\xff"],
        [b"judge", b"--oracle", b"keyword:\xff", b"--count", b"1"],
        [b"prompts", b"import", b"\xff.jsonl"],
        [b"--database-url", b"\xff", b"doctor"],
    ],
    ids=["name", "rule", "file", "url"],
)
def test_arguments_that_are_not_utf_8_are_bad_usage(home: Home, arguments: list[bytes]) -> None:
    command = [sys.executable, "-m", "studio.cli", "--home", str(home.path), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    (told,) = done.stderr.decode().splitlines()
    assert told.startswith("'") and "\\xff" in told
    assert "is not UTF-8; write it in UTF-8, or rename the file" in told and not home.path.exists()


def test_a_database_that_is_no_url_is_refused_and_none_is_made(
    studio: Studio, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = "'nonsense' is not a database URL; valid: sqlite:///FILE or postgresql://USER@HOST/NAME.\n"
    for command in (["doctor"], ["runs", "list"], ["worker"], ["restore", "none.tar"]):
        result = studio("--database-url", "nonsense", *command)
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", told), command
    monkeypatch.setenv("STUDIO_DATABASE_URL", "nonsense")
    assert studio("runs", "list").stderr == told
    assert list(tmp_path.iterdir()) == []
    assert studio("--database-url", f"sqlite:///{tmp_path}/other.db", "runs", "list").stdout == "No runs yet.\n"
    assert (tmp_path / "other.db").exists() and not home.database_file.exists()


def test_json_is_all_there_is_on_stdout(studio: Studio, home: Home) -> None:
    judged_home(home)
    queued = json.loads(studio("train", "dpo", "--dataset", "d", "--set", "epochs=2", "--json").stdout)
    assert queued["state"] == "queued" and queued["config"] == {"dataset": "d", "epochs": 2, "parent": "starter"}
    named = ("--set", "name=mine", "--set", "parent=elsewhere", "--set", "priority=3")
    other = json.loads(studio("train", "dpo", "--dataset", "d", *named, "--json").stdout)
    assert (other["config"]["name"], other["config"]["parent"], other["priority"]) == ("mine", "elsewhere", 3)
    studio("runs", "cancel", other["run_id"])
    shown = json.loads(studio("runs", "show", queued["run_id"], "--json").stdout)
    assert shown["id"] == queued["run_id"] and shown["metrics"] == {} and shown["result"] == {}
    listed = [run["id"] for run in json.loads(studio("runs", "list", "--json").stdout)]
    assert sorted(listed) == sorted([queued["run_id"], other["run_id"]])
    assert json.loads(studio("runs", "logs", queued["run_id"], "--json").stdout)["log"] == ""
    assert json.loads(studio("runs", "cancel", queued["run_id"], "--json").stdout)["state"] == "cancelled"
    assert json.loads(studio("runs", "resume", queued["run_id"], "--json").stdout)["attempt"] == 2
    assert json.loads(studio("dataset", "list", "--json").stdout)[0]["name"] == "d"
    assert len(json.loads(studio("dataset", "show", "d", "--pairs", "2", "--json").stdout)["preview"]) == 2
    assert len(json.loads(studio("prompts", "list", "--limit", "3", "--json").stdout)) == 3
    assert json.loads(studio("policies", "list", "--json").stdout)[0]["champion"] is True
    assert json.loads(studio("policies", "show", "starter", "--json").stdout)["scorecards"] == []
    assert json.loads(studio("policies", "promote", "starter", "--json").stdout)["name"] == "starter"
    assert json.loads(studio("policies", "lineage", "starter", "--json").stdout)["parent"] is None
    assert json.loads(studio("doctor", "--json").stdout)["ok"] is False  # a run waits and no worker is alive


def test_a_promotion_fills_the_pool_where_a_worker_runs(studio: Studio, home: Home) -> None:
    judged_home(home)
    alone = studio("policies", "promote", "elsewhere")
    assert alone.stdout == "elsewhere is the champion now; fill the pool with its replies by `studio generate`.\n"
    assert json.loads(studio("runs", "list", "--json").stdout) == []
    with home.lock_worker():
        served = studio("policies", "promote", "starter")
    (run,) = json.loads(studio("runs", "list", "--json").stdout)
    assert run["method"] == "generate" and f"run {run['id']} fills the pool" in served.stdout
    acts = json.loads(studio("audit", "--json").stdout)
    assert [one["subject"] for one in acts if one["verb"] == "policy.promote"] == ["starter", "elsewhere"]


def test_train_refuses_a_name_whose_directory_exists(studio: Studio, home: Home) -> None:
    judged_home(home)
    (home.checkpoints / "left").mkdir()
    result = studio("train", "reward", "--dataset", "d", "--name", "left")
    assert result.exit_code == 1 and f"There is already a directory {home.checkpoints / 'left'}" in result.stderr


def test_a_shown_run_tells_when_its_process_began(studio: Studio, home: Home) -> None:
    judged_home(home)
    run_id = studio("train", "reward", "--dataset", "d").stdout.strip()
    db = home.open()
    update_run(db, run_id, pid=1, pid_started=1_795_000_000.0)
    db.dispose()
    shown = studio("runs", "show", run_id).stdout
    assert re.search(r"^pid_started +2026-11-1[789] \d\d:\d\d:40$", shown, re.MULTILINE), shown


def test_the_tables_say_what_there_is(studio: Studio, home: Home) -> None:
    judged_home(home)
    run_id = studio("train", "reward", "--dataset", "d").stdout.strip()
    assert run_id in studio("runs", "list").stdout and "queued" in studio("runs", "show", run_id).stdout
    assert "has written nothing yet" in studio("runs", "logs", run_id).stderr
    assert "Yes of course" in studio("dataset", "show", "d").stdout
    assert "champion" in studio("policies", "list").stdout and "starter" in studio("policies", "show", "starter").stdout
    assert studio("policies", "lineage", "starter").stdout.startswith("starter (over ")
    assert "No worker is alive" in studio("train", "reward", "--dataset", "d").stderr


def test_freezing_the_same_again_is_told_beside_the_result(studio: Studio, home: Home) -> None:
    judged_home(home)
    again = studio("dataset", "freeze", "again", "--json")
    assert json.loads(again.stdout)["same_as"] == "d"
    told = "again holds the same judgments and pairs as d: nothing new was judged for it.\n"
    assert again.stderr.startswith(told) and "kept for testing" in again.stderr
    assert json.loads(again.stdout)["notes"] == again.stderr.removeprefix(told).splitlines()
    other = studio("dataset", "freeze", "other", "--split-seed", "1", "--json")
    assert json.loads(other.stdout)["same_as"] is None and "holds the same" not in other.stderr


def test_data_goes_out_and_comes_back(studio: Studio, home: Home, tmp_path: Path) -> None:
    judged_home(home)
    out = tmp_path / "out" / "d.jsonl"
    out.parent.mkdir()
    assert "Wrote 12 rows" in studio("export", "d", "--format", "trl-preference", "--out", out).stdout
    assert len(out.read_text().splitlines()) == 12
    raw = tmp_path / "raw.jsonl"
    studio("export", "d", "--format", "raw", "--out", raw)
    other = CliRunner().invoke(app, ["import", str(raw), "--home", str(tmp_path / "other"), "--json"])
    assert other.exit_code == 0 and sum(json.loads(other.stdout).values()) > 12
    frozen = CliRunner().invoke(app, ["dataset", "freeze", "again", "--home", str(tmp_path / "other"), "--json"])
    assert json.loads(frozen.stdout)["counts"]["pairs"] == 12


def test_prompts_are_imported_once(studio: Studio, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Is this new?"}\n{"messages": [{"role": "user", "content": "And this?"}]}\n')
    assert studio("prompts", "import", file).stdout == "Added 2 prompts; 0 were there already.\n"
    assert json.loads(studio("prompts", "import", file, "--json").stdout) == {"added": 0, "duplicates": 2}


def test_prompts_that_are_held_out_later_are_told(studio: Studio, tmp_path: Path) -> None:
    votes, file = tmp_path / "votes.jsonl", tmp_path / "prompts.jsonl"
    votes.write_text(json.dumps({"prompt": "held out?", "chosen": "a", "rejected": "b"}))
    file.write_text(json.dumps({"prompt": "held out?"}))
    studio("import", votes, "--format", "trl-preference")
    studio("dataset", "freeze", "before")
    marked = studio("prompts", "import", file, "--split", "evaluation")
    assert marked.stdout == "Added 0 prompts; 1 were there already.\n"
    assert "1 were work prompts and are evaluation prompts now" in marked.stderr
    assert "Datasets frozen before hold judgments of them: before." in marked.stderr
    assert "left out: 1 evaluation_prompt" in studio("dataset", "freeze", "after").stdout
    assert "1 that are not marked here are evaluation prompts" in studio("prompts", "import", file).stderr


def test_an_oracle_says_when_the_pool_ran_out(studio: Studio, home: Home) -> None:
    db = home.open()
    for _ in range(3):
        make_matchup(db)
    db.dispose()
    result = studio("judge", "--oracle", "longer", "--count", 5)
    assert result.exit_code == 0 and "judged 3 matchups" in result.stdout and "studio generate" in result.stderr
    nothing = studio("judge", "--oracle", "longer", "--count", 5)
    assert nothing.exit_code == 1 and "studio generate" in nothing.stderr


def test_addresses_and_ports(db: Database) -> None:
    for host in ("127.0.0.1", "127.0.0.5", "localhost", "::1"):
        refuse_unknown_address(host)
        refuse_without_admin(db, host, Mount())
    with pytest.raises(ValueError, match="is not an address"):
        refuse_unknown_address("example.org")
    for host in ("0.0.0.0", "192.168.1.4", "::"):
        refuse_unknown_address(host)
        with pytest.raises(ValueError, match=f"Refusing to bind {host}.*users add NAME --role admin"):
            refuse_without_admin(db, host, Mount())
    with pytest.raises(ValueError, match=r"Refusing to be served at https://labs.example.org/rlhf"):
        refuse_without_admin(db, "127.0.0.1", Mount.parse("https://labs.example.org/rlhf"))
    refuse_without_admin(db, "127.0.0.1", Mount.parse("http://localhost:8000/rlhf"))
    users.add_user(db, "ann", "researcher", actor="test")
    with pytest.raises(ValueError, match="Refusing to bind"):
        refuse_without_admin(db, "0.0.0.0", Mount())
    users.add_user(db, "ada", "admin", actor="test")
    refuse_without_admin(db, "0.0.0.0", Mount())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=rf"Port {port} on 127.0.0.1 is taken.*--port"):
            bind("127.0.0.1", port)


def test_settings_are_split_at_the_first_equals_sign() -> None:
    assert parse_assignments(["a=b=c", " epochs = 3 "]) == {"a": "b=c", "epochs": "3"}


def test_doctor_finds_a_healthy_home_healthy_and_a_broken_one_broken(studio: Studio, home: Home) -> None:
    studio("prompts", "list")
    healthy = studio("doctor")
    assert healthy.exit_code == 0, healthy.stdout + healthy.stderr
    assert "integrity ok" in healthy.stdout and "champion starter" in healthy.stdout
    home.database_file.write_bytes(b"not a database at all" * 200)
    for name in ("studio.db-wal", "studio.db-shm"):
        (home.path / name).unlink(missing_ok=True)
    broken = studio("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(broken.stdout)["findings"]}
    assert broken.exit_code == 1 and not findings["database"]["ok"] and findings["disk"]["ok"]
    assert "database: " in broken.stderr


@pytest.mark.slow
def test_the_commands_turn_the_loop_by_hand(home: Home, tmp_path: Path) -> None:
    """Real processes, the real starter: generate, judge, freeze, train, evaluate, each with a temporary worker."""

    def said(*arguments: str) -> Any:
        process = started(home, *arguments, "--json")
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        return json.loads(out)

    drawn = said("generate", "--limit", "8", "--seed", "5", "--max-new-tokens", "24")
    assert drawn["generations"] == 16 and drawn["matchups"] + drawn["identical"] == 8
    assert said("judge", "--oracle", "shorter", "--count", str(drawn["matchups"]))["judged"] == drawn["matchups"]
    assert said("dataset", "freeze", "by-hand", "--test-share", "0")["counts"]["pairs"] >= 2
    trained = said("train", "dpo", "--dataset", "by-hand", "--set", "min_steps=2", "--set", "epochs=1", "--wait")
    assert trained["state"] == "succeeded" and trained["result"]["policy"]
    policy = trained["result"]["policy"]
    card = said("evaluate", policy, "starter", "--oracle", "shorter", "--prompts", "4")
    assert card["low"] <= card["win_rate"] <= card["high"]
    assert said("policies", "promote", policy)["champion"] is True
    votes = said("policies", "lineage", policy)["judgments"]["ids"]
    assert len(votes) == drawn["matchups"]
    assert [one["name"] for one in said("review", "lineage", votes[0])["policies"]] == [policy]
    assert home.worker_holder() is None  # the temporary workers are gone


@pytest.mark.slow
def test_ctrl_c_cancels_the_run_that_is_waited_for(home: Home) -> None:
    judged_home(home)
    process = started(home, "train", "dpo", "--dataset", "d", "--set", "min_steps=5000", "--wait")
    db = home.open()
    deadline = time.monotonic() + 120
    while not any(run.state is RunState.running for run in list_runs(db)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    (run,) = list_runs(db)
    assert process.returncode == 130 and get_run(db, run.id).state is RunState.cancelled
    assert f"Run {run.id} is cancelled." in error and "Traceback" not in error
    assert home.worker_holder() is None
    assert [event.verb for event in list_events(db)] == ["run.cancel", "run.submit"]
    db.dispose()


@pytest.mark.slow
def test_a_temporary_worker_ends_with_the_command_that_was_killed(home: Home) -> None:
    judged_home(home)
    process = started(home, "train", "dpo", "--dataset", "d", "--set", "min_steps=5000", "--wait")
    deadline = time.monotonic() + 60
    while home.worker_holder() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    while home.worker_holder() is not None:
        assert time.monotonic() < deadline + 30
        time.sleep(0.05)
    db = home.open()
    for run in list_runs(db):
        if run.pid is not None and run.state.is_active:
            os.kill(run.pid, signal.SIGKILL)
    db.dispose()


def test_a_run_tells_how_to_be_done_again_and_gives_its_curves(studio: Studio, home: Home, tmp_path: Path) -> None:
    judged_home(home)
    run_id = studio("train", "dpo", "--dataset", "d", "--set", "epochs=2", "--priority", 3, "--dry-run").stdout.strip()
    after = studio("train", "reward", "--dataset", "d", "--after", run_id).stdout.strip()
    shown = json.loads(studio("runs", "show", run_id, "--json").stdout)
    assert shown["reproduce"]["command"] == (
        "studio train dpo --dataset d --parent starter --set epochs=2 --set dry_run=true"
    )
    assert shown["priority"] == 3 and shown["config"]["dry_run"] is True
    assert json.loads(studio("runs", "show", after, "--json").stdout)["after"] == run_id
    assert "studio train dpo --dataset d" in studio("runs", "show", run_id).stdout
    db = home.open()
    save_metrics(db, run_id, [MetricPoint(step=1, name="loss", value=0.5)])
    db.dispose()
    assert studio("runs", "metrics", run_id).stdout == "step,loss\n1,0.5\n"
    out = tmp_path / "curves.jsonl"
    studio("runs", "metrics", run_id, "--format", "jsonl", "--out", out)
    assert out.read_text() == '{"step": 1, "loss": 0.5}\n'
    assert "Formats: csv, jsonl" in studio("runs", "metrics", run_id, "--format", "xml").stderr


def test_making_room_asks_first(studio: Studio, home: Home) -> None:
    db = home.open()
    save_checkpoint(db, Checkpoint(name="old", kind="reward", path="checkpoints/old", base="b"))
    db.dispose()
    directory = home.checkpoints / "old"
    directory.mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(b"x" * 100)
    (directory / "manifest.json").write_text("{}")
    refused = studio("checkpoints", "prune", "--keep-best", 0)
    assert refused.exit_code == 1 and "nothing was removed. Say --yes" in refused.stderr and "old" in refused.stdout
    assert (directory / "adapter_model.safetensors").exists()
    assert json.loads(studio("checkpoints", "list", "--json").stdout)[0]["removed_at"] is None
    assert "Freed" in studio("checkpoints", "prune", "--keep-best", 0, "--yes").stdout
    assert not (directory / "adapter_model.safetensors").exists() and (directory / "manifest.json").exists()
    assert "removed" in studio("checkpoints", "list").stdout
    assert "Nothing is beyond" in studio("checkpoints", "prune", "--keep-best", 0).stdout


def test_a_setting_that_is_wrong_lists_the_valid_ones_with_their_ranges(studio: Studio, home: Home) -> None:
    judged_home(home)
    for wrong, said in (
        ("speed=1", "dpo has no setting 'speed'"),
        ("reduction=0", "reduction='0' is not valid for dpo: int, 1 to 1024"),
        ("adapter=lara", "one of lora, rslora, dora"),
    ):
        told = studio("train", "dpo", "--dataset", "d", "--set", wrong)
        assert told.exit_code == 1 and said in told.stderr and "lora_rank (1 to 512)" in told.stderr
    told = studio("train", "dpo", "--dataset", "d", "--set", "adapter=pissa")  # valid, only not here
    assert told.exit_code == 1 and "the base's own weights" in told.stderr and "lora_rank" not in told.stderr


def test_doctor_says_of_a_url_that_cannot_be_read_what_a_url_is(tmp_path: Path) -> None:
    findings = doctor.examine(Home(tmp_path / "home", "postgresql://ann:secret@127.0.0.1:bad/x"))
    (found,) = (finding for finding in findings if finding.name == "database")
    assert not found.ok and "PORT is a number" in found.remedy
    assert not [finding for finding in findings if "secret" in f"{finding.seen} {finding.remedy}"]


def test_doctor_says_of_a_full_disk_to_free_space(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(home: Home) -> doctor.Finding:
        raise OSError(errno.ENOSPC, "No space left on device")

    def refused(home: Home) -> doctor.Finding:
        raise StudioError("Eat the soup.")

    monkeypatch.setattr(doctor, "CHECKS", {"home": full, "database": refused})
    assert [finding.remedy for finding in doctor.examine(home)] == [doctor.FREE_SPACE, "Eat the soup."]
