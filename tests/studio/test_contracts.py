"""The public contracts as an outside checker meets them: a real server over HTTP, the real command in a process.

Paths, status codes and JSON shapes are written out here by hand and in full; they change only with a note in the
changelog.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from feedback.formats import FORMATS
from feedback.tables import LeaseRow
from tests.factories import make_generations, make_matchup, make_policy, make_prompt
from training.home import Home
from training.operations.seed import seed_home

ROOT = Path(__file__).parents[2]
TOLD = re.compile(r"at (http://\S+) ")


class Studio:
    """One served home: ``call`` speaks HTTP to it, ``command`` runs the command on it."""

    def __init__(self, home: Home, url: str) -> None:
        self.home = home
        self.http = httpx.Client(base_url=f"{url}/api", timeout=120)

    def call(self, method: str, path: str, status: int, json: Any = None, **more: Any) -> Any:
        answer = self.http.request(method, path, json=json, **more)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        if status >= 400:
            detail = answer.json()["detail"]
            assert isinstance(detail, str) and detail and "Traceback" not in detail and "\n" not in detail
            return detail
        is_json = answer.headers.get("content-type") == "application/json"
        return answer.json() if is_json else answer

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "studio.cli", "--home", str(self.home.path), *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env={name: value for name, value in os.environ.items() if not name.startswith("STUDIO_")},
        )

    def task(self) -> Any:
        return self.call("POST", "/tasks/next", 200, {})


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    home = Home(tmp_path_factory.mktemp("contracts") / "home").create()
    db = home.open()
    seed_home(db)
    policy = make_policy(db, "elsewhere")
    for number in range(40):
        make_matchup(db, policy=policy, texts=[f"Yes {number}.", f"Yes of course, and gladly, number {number}."])
    db.dispose()
    command = [sys.executable, "-m", "studio.cli", "--home", str(home.path), "up", "--port", "0", "--no-worker"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if match := TOLD.search(line):
            break
    else:
        pytest.fail(f"the studio did not start: {said}")
    try:
        yield Studio(home, match.group(1))
    finally:
        process.terminate()
        process.wait(60)


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# REST -----------------------------------------------------------------------------------------------------


def test_health(studio: Studio) -> None:
    told = studio.call("GET", "/health", 200)
    assert told.keys() == {"status", "version"} and told["status"] == "ok"


def test_prompts_are_added_once_and_listed_by_split(studio: Studio) -> None:
    body = {"prompts": [{"messages": asked("Once?"), "tags": ["mine"]}, {"messages": asked("Once?")}]}
    assert studio.call("POST", "/prompts", 200, body) == {"added": 1, "duplicates": 1}
    assert studio.call("POST", "/prompts", 200, body) == {"added": 0, "duplicates": 2}
    evaluation = studio.call("GET", "/prompts?split=evaluation&limit=3", 200)["prompts"]
    assert len(evaluation) == 3 and all({"id", "messages"} <= row.keys() for row in evaluation)
    work = studio.call("GET", "/prompts?split=work&limit=100000", 200)["prompts"]
    mine = next(row for row in work if row["messages"] == asked("Once?"))
    assert isinstance(mine["id"], str) and mine["tags"] == ["mine"]
    assert not {row["id"] for row in work} & {row["id"] for row in evaluation}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompts": []},
        {"prompts": [{"messages": []}]},
        {"prompts": [{"messages": asked(" ")}]},
        {"prompts": [{"messages": [{"role": "bot", "content": "x"}]}]},
        {"prompts": [{"messages": [{"role": "assistant", "content": "x"}]}]},
        {"prompts": [{"messages": asked("a\0b")}]},
        {"prompts": [{"messages": asked("good")}, {"messages": asked("x"), "colour": "red"}]},
        [1],
    ],
)
def test_prompts_that_cannot_be_used_are_refused_whole(body: Any, studio: Studio) -> None:
    studio.call("POST", "/prompts", 422, body)
    assert asked("good") not in [row["messages"] for row in studio.call("GET", "/prompts?limit=100000", 200)["prompts"]]


@pytest.mark.parametrize("query", ["split=dev", "limit=0", "limit=many"])
def test_a_bad_query_is_refused(query: str, studio: Studio) -> None:
    studio.call("GET", f"/prompts?{query}", 422)


def test_half_a_character_is_refused_and_not_a_crash(studio: Studio) -> None:
    broken = b'{"prompts":[{"messages":[{"role":"user","content":"\\ud83d"}]}]}'
    studio.call("POST", "/prompts", 422, content=broken, headers={"Content-Type": "application/json"})
    lease = studio.task()["lease"]
    for remark in (
        b'"rationale":"\\ud83d"',
        b'"flag":"\\ud83d"',
        b'"criteria":{"\\ud83d":[1,2]}',
        b'"spans":[{"index":0,"start":0,"end":1,"mark":"bad","reason":"\\ud83d"}]',
    ):
        broken = b'{"lease":"%s","verdict":"left",%s}' % (lease.encode(), remark)
        studio.call("POST", "/judgments", 422, content=broken, headers={"Content-Type": "application/json"})
    studio.call("POST", "/judgments", 201, {"lease": lease, "verdict": "left"})
    studio.call("POST", "/datasets", 201, {"name": "whole-characters"})
    assert studio.call("GET", "/datasets/whole-characters/export?format=raw", 200).text, "what is stored can be written"


def test_a_run_is_queued_shown_cancelled_and_resumed(studio: Studio) -> None:
    body = {"method": "generate", "config": {"policy": "starter", "per_prompt": 2, "limit": 3, "seed": 1}}
    told = studio.call("POST", "/runs", 202, body)
    assert told.keys() == {"run_id"} and isinstance(told["run_id"], str)
    path = f"/runs/{told['run_id']}"
    run = studio.call("GET", path, 200)
    assert {"id", "method", "state", "progress", "metrics", "error", "result"} <= run.keys()
    assert (run["id"], run["method"], run["state"], run["metrics"], run["error"]) == (
        told["run_id"],
        "generate",
        "queued",
        {},
        None,
    )
    assert studio.call("GET", f"{path}/metrics", 200) == []
    assert studio.call("POST", f"{path}/cancel", 200)["state"] == "cancelled"
    studio.call("POST", f"{path}/cancel", 409)
    assert studio.call("POST", f"{path}/resume", 202)["state"] == "queued"
    studio.call("POST", f"{path}/resume", 409)
    assert studio.call("POST", f"{path}/cancel", 200)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"method": "magic", "config": {}}, 422),
        ({"config": {}}, 422),
        ({"method": "generate", "config": {"per_promt": 2}}, 422),
        ({"method": "generate", "config": {"limit": 0}}, 422),
        ({"method": "generate", "config": {"policy": "nobody"}}, 404),
        ({"method": "dpo", "config": {}}, 422),
        ({"method": "dpo", "config": {"dataset": "none"}}, 404),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_waits(body: Any, status: int, studio: Studio) -> None:
    studio.call("POST", "/runs", status, body)


@pytest.mark.parametrize("path", ["/runs/none", "/runs/none/metrics", "/datasets/none", "/policies/none/lineage"])
def test_what_is_not_there_is_404(path: str, studio: Studio) -> None:
    assert "none" in studio.call("GET", path, 404)
    studio.call("POST", "/runs/none/cancel", 404)
    studio.call("POST", "/policies/none/promote", 404)


def test_a_task_shows_replies_and_nothing_that_names_a_policy(studio: Studio) -> None:
    task = studio.task()
    assert task.keys() == {"lease", "kind", "prompt", "responses", "guidelines", "expires_at"}
    assert task["kind"] == "pair" and len(task["responses"]) == 2 and task["guidelines"]
    assert [set(turn) for turn in task["prompt"]] == [{"role", "content"}]
    assert datetime.fromisoformat(task["expires_at"]) > datetime.now(UTC)
    assert "elsewhere" not in json.dumps(task) and "gen-" not in json.dumps(task)


def test_every_verdict_is_of_what_was_shown_and_counts_once(studio: Studio) -> None:
    """Judges six pairs as a person would, and finds in the frozen dataset what was on the screen."""
    preferred: dict[str, str] = {}
    for verdict, place in (("left", 0), ("right", 1), ("left", 0), ("right", 1)):
        task = studio.task()
        said = {"lease": task["lease"], "verdict": verdict, "strength": 2, "rationale": "shown"}
        told = studio.call("POST", "/judgments", 201, said)
        assert told.keys() == {"judgment_id"}
        assert studio.call("POST", "/judgments", 200, {**said, "verdict": "tie", "strength": None}) == told
        preferred[task["prompt"][0]["content"]] = task["responses"][place]
    edited = studio.task()
    studio.call(
        "POST",
        "/judgments",
        201,
        {"lease": edited["lease"], "verdict": "left", "edited": {"index": 1, "text": "Better said."}},
    )
    both_bad = studio.task()
    studio.call("POST", "/judgments", 201, {"lease": both_bad["lease"], "verdict": "both_bad"})
    for said in ({"verdict": "tie"}, {"skip_reason": "not my field"}):
        studio.call("POST", "/judgments", 201, {"lease": studio.task()["lease"], **said})
    told = studio.call("POST", "/datasets", 201, {"name": "judged"})
    assert {"dataset_id", "hash", "counts", "dropped"} <= told.keys() and len(told["hash"]) == 64
    assert told["dropped"]["tie"] == told["dropped"]["both_bad"] == told["dropped"]["skip"] == 1
    lines = studio.call("GET", "/datasets/judged/export?format=trl-preference", 200).text.splitlines()
    exported = {row["prompt"]: row["chosen"] for row in map(json.loads, lines)}
    assert preferred.items() <= exported.items()
    kto = studio.call("GET", f"/datasets/{told['dataset_id']}/export?format=trl-kto", 200).text.splitlines()
    bad = {row["completion"][0]["content"] for row in map(json.loads, kto) if not row["label"]}
    assert set(both_bad["responses"]) <= bad
    sft = studio.call("GET", "/datasets/judged/export?format=trl-sft", 200).text
    assert [*edited["prompt"], {"role": "assistant", "content": "Better said."}] in [
        json.loads(line)["messages"] for line in sft.splitlines()
    ]


def test_a_ranking_is_of_what_was_shown(studio: Studio) -> None:
    db = studio.home.open()
    policy = make_policy(db, "third")
    prompt = make_prompt(db, "Rank three.")
    from feedback.store.labeling.matchups import save_matchups
    from feedback.types import Matchup, MatchupKind

    rows = make_generations(db, prompt, policy, ["a bad one", "a fair one", "a good one"])
    keys = [row.id for row in rows]
    value = Matchup(prompt_id=prompt.id, generation_ids=keys, kind=MatchupKind.rank, priority=9)
    save_matchups(db, [value])
    db.dispose()
    task = studio.task()
    assert task["kind"] == "rank" and sorted(task["responses"]) == ["a bad one", "a fair one", "a good one"]
    studio.call("POST", "/judgments", 422, {"lease": task["lease"], "verdict": "left"})
    for bad in ([1, 2], [0, 1, 2], [1, 2, 4]):
        studio.call("POST", "/judgments", 422, {"lease": task["lease"], "ranking": bad})
    ranks = {"a good one": 1, "a fair one": 2, "a bad one": 2}
    ranking = [ranks[text] for text in task["responses"]]
    studio.call("POST", "/judgments", 201, {"lease": task["lease"], "ranking": ranking})
    studio.call("POST", "/datasets", 201, {"name": "ranked", "filters": {"policies": ["third"]}})
    lines = studio.call("GET", "/datasets/ranked/export?format=trl-preference", 200).text.splitlines()
    assert {(row["chosen"], row["rejected"]) for row in map(json.loads, lines)} == {
        ("a good one", "a fair one"),
        ("a good one", "a bad one"),
    }


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"verdict": "first"},
        {"verdict": "left", "ranking": [1, 2]},
        {"verdict": "left", "strength": 4},
        {"verdict": "tie", "strength": 1},
        {"verdict": "left", "edited": {"index": 2, "text": "x"}},
        {"verdict": "left", "rationale": "a\0b"},
        {"verdict": "left", "mood": "good"},
        {"verdict": "left", "strength": True},
        {"verdict": "left", "edited": {"index": True, "text": "x"}},
        {"verdict": "left", "criteria": {"clear": [True, 2]}},
        {"verdict": "left", "spans": [{"index": 0, "start": False, "end": True, "mark": "good"}]},
        {"ranking": [True, 2]},
        {"ranking": ["1", "2"]},
        {"skip_reason": " "},
        {"verdict": "left", "flag": "a\0b"},
        {"verdict": "left", "criteria": {"a\0b": [1, 2]}},
        {"verdict": "left", "spans": [{"index": 0, "start": 0, "end": 1, "mark": "good", "reason": "a\0b"}]},
    ],
)
def test_a_judgment_that_says_nothing_clear_is_refused_and_the_lease_stays(said: Any, studio: Studio) -> None:
    lease = studio.task()["lease"]
    studio.call("POST", "/judgments", 422, {"lease": lease, **said})
    studio.call("POST", "/judgments", 201, {"lease": lease, "verdict": "left"})


def test_a_lease_that_is_foreign_or_expired_is_409(studio: Studio) -> None:
    foreign = studio.call("POST", "/tasks/next", 200, {"annotator": "ann"})["lease"]
    studio.call("POST", "/judgments", 409, {"lease": foreign, "verdict": "left"})
    expired = studio.task()["lease"]
    db = studio.home.open()
    with db.write() as session:
        session.get_one(LeaseRow, expired).expires_at = datetime.now(UTC) - timedelta(seconds=1)
    db.dispose()
    studio.call("POST", "/judgments", 409, {"lease": expired, "verdict": "left"})
    studio.call("POST", "/judgments", 404, {"lease": "lea-none", "verdict": "left"})
    studio.call("POST", "/tasks/next", 422, {"annotator": "a\0b"})


def test_an_empty_pool_is_204(studio: Studio) -> None:
    while True:
        answer = studio.http.post("/tasks/next", json={"annotator": "greedy"})
        if answer.status_code != 200:
            break
    assert answer.status_code == 204 and answer.content == b""
    db = studio.home.open()  # for the tests that come after
    policy = make_policy(db)
    for number in range(20):
        make_matchup(db, policy=policy, texts=[f"No {number}.", f"No, really not, number {number}."])
    db.dispose()


def test_datasets_are_frozen_once_and_found_by_id_and_name(studio: Studio) -> None:
    told = studio.call("POST", "/datasets", 201, {"name": "frozen", "filters": {"test_share": 0.5, "split_seed": 3}})
    studio.call("POST", "/datasets", 409, {"name": "frozen"})
    for body in ({"name": "a b"}, {"name": ""}, {}, {"name": "x", "filters": {"colour": "red"}}):
        studio.call("POST", "/datasets", 422, body)
    studio.call("POST", "/datasets", 404, {"name": "x", "filters": {"policies": ["nobody"]}})
    assert studio.call("GET", "/datasets/frozen", 200) == studio.call("GET", f"/datasets/{told['dataset_id']}", 200)
    assert "frozen" in [row["name"] for row in studio.call("GET", "/datasets", 200)["datasets"]]


@pytest.mark.parametrize("format", list(FORMATS))
def test_every_format_is_streamed(format: str, studio: Studio) -> None:
    if "exported" not in [row["name"] for row in studio.call("GET", "/datasets", 200)["datasets"]]:
        studio.call("POST", "/judgments", 201, {"lease": studio.task()["lease"], "verdict": "left"})
        studio.call("POST", "/datasets", 201, {"name": "exported"})
    with studio.http.stream("GET", "/datasets/exported/export", params={"format": format}) as answer:
        assert answer.status_code == 200 and "content-length" not in answer.headers
        name = re.search(r'filename="(.+)"', answer.headers["content-disposition"])
        assert name and name.group(1).endswith(".csv" if format == "csv" else f"{format}.jsonl")
        text = answer.read().decode()
    if format == "csv":
        assert answer.headers["content-type"].startswith("text/csv")
        assert list(csv.DictReader(io.StringIO(text)))
        return
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows and all(isinstance(row, dict) for row in rows)
    assert not any("chosen" in row and row["chosen"] == row["rejected"] for row in rows)
    sides = [
        studio.call("GET", f"/datasets/exported/export?format={format}&split={side}", 200).text.splitlines()
        for side in ("train", "test")
    ]
    assert len(sides[0]) + len(sides[1]) == len(rows)


def test_an_export_that_cannot_be_is_refused(studio: Studio) -> None:
    studio.call("POST", "/datasets", 201, {"name": "refused"})
    detail = studio.call("GET", "/datasets/refused/export?format=xml", 422)
    assert all(name in detail for name in FORMATS)
    studio.call("GET", "/datasets/refused/export?format=raw&split=dev", 422)
    studio.call("GET", "/datasets/none/export?format=raw", 404)


def test_policies_are_promoted_and_walked_by_id_and_name(studio: Studio) -> None:
    listed = studio.call("GET", "/policies", 200)["policies"]
    starter = next(row for row in listed if row["name"] == "starter")
    assert starter["champion"] is True and isinstance(starter["id"], str)
    for key in ("starter", starter["id"]):
        assert studio.call("POST", f"/policies/{key}/promote", 200)["name"] == "starter"
        assert studio.call("GET", f"/policies/{key}/lineage", 200)["policy"]["id"] == starter["id"]


@pytest.mark.slow
def test_generations_are_drawn_at_once_and_again_by_their_seed(studio: Studio) -> None:
    body = {"policy": "starter", "messages": asked("Write a story about a cat."), "n": 3}
    body |= {"temperature": 0.9, "max_new_tokens": 12, "seed": 7}  # type: ignore[dict-item]
    drawn = [studio.call("POST", "/generations", 200, body)["generations"] for _ in range(2)]
    assert all(row.keys() == {"id", "text"} and isinstance(row["id"], str) for row in drawn[0])
    assert [row["text"] for row in drawn[0]] == [row["text"] for row in drawn[1]] and len(drawn[0]) == 3
    assert len({row["id"] for row in drawn[0] + drawn[1]}) == 6
    other = studio.call("POST", "/generations", 200, {**body, "seed": 8})["generations"]
    assert [row["text"] for row in other] != [row["text"] for row in drawn[0]]
    greedy = studio.call("POST", "/generations", 200, {**body, "temperature": 0, "n": 2})["generations"]
    assert greedy[0]["text"] == greedy[1]["text"]
    studio.call("POST", "/generations", 404, {**body, "policy": "nobody"})
    for wrong in ({"n": 0}, {"temperature": -1}, {"max_new_tokens": 0}, {"messages": []}, {"seed": -1}, {"top": 1}):
        studio.call("POST", "/generations", 422, {**body, **wrong})
    studio.call("POST", "/generations", 422, {**body, "messages": asked("word " * 3000)})


def test_an_unknown_path_is_404_in_json(studio: Studio) -> None:
    studio.call("GET", "/nothing", 404)


# Command --------------------------------------------------------------------------------------------------


LISTS = [
    ("prompts", "list"),
    ("dataset", "list"),
    ("dataset", "show", "by-command"),
    ("runs", "list"),
    ("policies", "list"),
    ("policies", "show", "starter"),
    ("policies", "show", "pol-starter"),
    ("policies", "lineage", "starter"),
    ("doctor",),
]


@pytest.mark.slow_except("prompts list")
@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_every_list_and_show_prints_json_and_nothing_else(words: tuple[str, ...], studio: Studio) -> None:
    if "by-command" in words:
        assert studio.command("dataset", "freeze", "by-command", "--json").returncode == 0
    done = studio.command(*words, "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


WRONG = [
    ("nonsense", 2),
    ("--nonsense", 2),
    ("runs list --nonsense", 2),
    ("runs show", 2),
    ("runs show none", 1),
    ("runs logs none", 1),
    ("runs cancel none", 1),
    ("runs resume none", 1),
    ("runs list --state asleep", 2),
    ("prompts import /none.jsonl", 1),
    ("prompts list --split dev", 2),
    ("generate --per-prompt 1", 1),
    ("generate --per-prompt many", 2),
    ("generate --policy nobody", 1),
    ("judge --oracle nonsense --count 3", 1),
    ("judge --oracle shorter --count 0", 1),
    ("judge --oracle shorter --count 3 --noise 2", 1),
    ("dataset freeze a/b", 1),
    ("dataset show none", 1),
    ("export none --format raw --out x.jsonl", 1),
    ("import /none.jsonl --format raw", 1),
    ("import /none.jsonl --format csv", 1),
    ("import /none.jsonl --format xml", 1),
    ("train magic --dataset d", 1),
    ("train dpo --dataset none", 1),
    ("train dpo --dataset none --set nonsense", 1),
    ("policies promote nobody", 1),
    ("policies lineage nobody", 1),
    ("evaluate nobody starter --oracle shorter", 1),
    ("evaluate starter starter", 1),
    ("loop --oracle nonsense", 1),
    ("up --port 99999", 2),
    ("up --port 0", 1),
    ("backup /proc/none/b.tar", 1),
    ("restore /none.tar", 1),
    ("restore /none.tar --home /dev/null", 1),
    ("runs list --home /dev/null", 1),
    ("runs list --database-url mysql://x", 1),
    ("runs list --database-url postgresql://ann:secret@127.0.0.1:1/x", 1),
    ("runs list --database-url postgresql://ann:secret@127.0.0.1:bad/x", 1),
]


@pytest.mark.slow_except("runs show none", "up --port 99999", "train magic --dataset d", "runs list --home /dev/null")
@pytest.mark.parametrize(("line", "status"), WRONG, ids=[line for line, _ in WRONG])
def test_a_mistake_is_told_in_one_line_that_helps(line: str, status: int, studio: Studio) -> None:
    done = studio.command(*line.split())
    assert (done.returncode, done.stdout) == (status, "")
    (told,) = done.stderr.splitlines()
    assert len(told.split()) > 3 and "Traceback" not in told and "secret" not in told


@pytest.mark.slow
def test_files_come_and_go_by_command(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": asked("From a file?")}))
    done = studio.command("prompts", "import", tmp_path / "p.jsonl", "--json")
    assert json.loads(done.stdout) == {"added": 1, "duplicates": 0}
    done = studio.command("judge", "--oracle", "longer", "--count", "3", "--json")
    assert json.loads(done.stdout)["judged"] == 3
    frozen = studio.command("dataset", "freeze", "files", "--source", "simulated", "--json")
    assert json.loads(frozen.stdout)["counts"]["judgments"] >= 3
    key = json.loads(frozen.stdout)["id"]
    done = studio.command("export", key, "--format", "trl-conversational", "--out", tmp_path / "o.jsonl", "--json")
    told = json.loads(done.stdout)
    assert told["rows"] == len((tmp_path / "o.jsonl").read_text().splitlines()) and Path(told["report"]).exists()
    other = Home(tmp_path / "other")
    studio.command("export", "files", "--format", "raw", "--out", tmp_path / "raw.jsonl")
    done = studio.command("--home", other.path, "import", tmp_path / "raw.jsonl", "--format", "raw", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["judgments"] >= 3


@pytest.mark.slow
def test_a_backup_is_taken_while_the_studio_serves(studio: Studio, tmp_path: Path) -> None:
    done = studio.command("backup", tmp_path / "b.tar", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] >= 1
    done = studio.command("--home", tmp_path / "copy", "restore", tmp_path / "b.tar", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept_aside"] is None
    listed = [studio.command(*home, "dataset", "list", "--json").stdout for home in ([], ["--home", tmp_path / "copy"])]
    assert listed[0] == listed[1]
    done = studio.command("--home", tmp_path / "copy", "restore", tmp_path / "b.tar")
    assert done.returncode == 1 and "--force" in done.stderr
    done = studio.command("restore", tmp_path / "b.tar", "--force")
    assert done.returncode == 1 and "stop it first" in done.stderr


@pytest.mark.parametrize("words", ["runs list", "prompts list", "--help"])
def test_a_light_command_loads_nothing_heavy(words: str, studio: Studio) -> None:
    heavy = "torch transformers trl gradio fastapi uvicorn numpy pandas scipy alembic"
    code = (
        f"import sys; sys.argv = ['studio', '--home', {str(studio.home.path)!r}, *{words.split()!r}]\n"
        "from studio.cli import main\n"
        "try: main()\n"
        f"except SystemExit: print([m for m in '{heavy}'.split() if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
