"""Shell, REST and page act through the same services: the audit log tells an act the same way but for who acted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import studio.page.tabs
from feedback.database.engine import Database
from feedback.store.content.generations import save_generations
from feedback.store.models.rounds import change_round, last_round
from feedback.store.models.runs import get_run, save_run, transition_run
from feedback.store.people.audit import list_events
from feedback.tables import AuditRow, RunRow
from feedback.types import Generation, RoundState, Run, RunState
from studio.cli.app import app
from studio.cli.session.context import whoami
from studio.security import accounts
from studio.services.access import Acts
from studio.services.facade import Services
from studio.services.policies import Rebased
from studio.web.app import create_app
from tests import factories
from training.home import Home
from training.operations.seed import seed_home
from training.rounds.acts import start
from training.runs import queue

RUN = "THE-RUN"
"""Stands for the id of a run that a case queued itself: each door draws another."""


@dataclass(frozen=True)
class Case:
    """One act by the shell and by REST; ``page`` is the call by which the page does the same, where it does it.

    ``verbs`` is what the audit log must have gained, so that nothing is written down twice or not at all.
    """

    shell: tuple[str, ...]
    rest: tuple[str, str, dict[str, Any] | None]
    verbs: tuple[str, ...]
    page: str | None = None


@dataclass
class Door:
    """A copy of the home, and how its acts are done."""

    home: Home
    db: Database
    actor: str
    named: dict[str, str] = field(default_factory=dict)

    def lines(self, act: Callable[[], object]) -> list[AuditRow]:
        """The lines of the audit log that an act added, oldest first."""
        last = next((row.number for row in list_events(self.db, limit=1)), 0)
        act()
        return [row for row in list_events(self.db, limit=50)[::-1] if row.number > last]


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[tuple[Door, Door, str]]:
    """The same home twice, for the shell and for REST, and the token of an admin."""
    first = Home(tmp_path / "shell")
    db = first.open()
    seed_home(db)
    policy = factories.make_policy(db, "elsewhere")
    factories.make_policy(db, "other")
    prompt = factories.make_prompt(db, "What is it?")
    for number in range(30):
        factories.make_matchup(db, policy=policy, texts=[f"Yes {number}.", f"Yes, and gladly so, number {number}."])
    factories.judge_by(db, factories.longer)
    for number in range(4):
        factories.make_matchup(db, policy=policy, texts=[f"No {number}.", f"No, and gladly so, number {number}."])
    run = save_run(db, Run(method="generate", config={"policy": policy.id}))
    queue.cancel(db, run.id)
    replies = [
        Generation(prompt_id=prompt.id, policy_id=policy.id, text=text, seed=1, tokens=2, run_id=run.id)
        for text in ("It is one thing.", "It is quite another thing.")
    ]
    save_generations(db, replies)
    gate = start(db, "at-gate", {"promote": "ask"})
    change_round(db, last_round(db, gate.id), state=RoundState.gate, evidence={"policy": "other"})
    token = accounts.add_user(db, "root", "admin", actor="test").token
    accounts.add_user(db, "ann", "annotator", actor="test")
    db.dispose()
    second = Home(Path(shutil.copytree(first.path, tmp_path / "rest")))
    opened = [home.open() for home in (first, second)]
    yield Door(first, opened[0], whoami()), Door(second, opened[1], "root"), token
    for one in opened:
        one.dispose()


def post(path: str, body: dict[str, Any] | None = None) -> tuple[str, str, dict[str, Any] | None]:
    return "POST", path, body


def cases(db: Database, tmp_path: Path) -> list[Case]:
    """Every act that both doors offer, in an order in which each can be done."""
    services = Services(Home(tmp_path), db)
    judgments = [found.judgment for found in services.review.list_evidence(limit=3)]
    first, second = judgments[0], judgments[1]
    ended_run = services.runs.list_runs()[0].id
    asked_of = services.prompts.list_prompts(limit=1)[0].id
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "A new one?"}\n')
    out = tmp_path / "out.jsonl"
    evaluation = {"a": "elsewhere", "b": "other", "oracle": "longer", "prompts": 150}
    asked = {"policy": "elsewhere", "against": "other", "split": "evaluation", "limit": 150}
    body = {"prompts": [{"messages": [{"role": "user", "content": "A new one?"}]}]}
    return [
        Case(
            ("users", "add", "ada"), post("/api/users", {"name": "ada"}), ("user.add", "user.token"), "users.add_user"
        ),
        Case(
            ("users", "role", "ada", "reviewer"),
            post("/api/users/ada/role", {"role": "reviewer"}),
            ("user.role",),
            "users.set_user_role",
        ),
        Case(("users", "token", "ada"), post("/api/users/ada/token"), ("user.token",), "users.new_token"),
        Case(("users", "password", "ada"), post("/api/users/ada/password"), ("user.password",), "users.reset_password"),
        Case(("users", "disable", "ada"), post("/api/users/ada/disable"), ("user.disable",), "users.disable_user"),
        Case(("users", "enable", "ada"), post("/api/users/ada/enable"), ("user.enable",), "users.enable_user"),
        Case(("prompts", "import", str(prompts)), post("/api/prompts", body), ("prompts.add",)),
        Case(
            ("prompts", "retire", asked_of, "--yes"),
            post("/api/prompts/retire", {"ids": [asked_of]}),
            ("prompts.retire",),
        ),
        Case(
            ("prompts", "restore", asked_of, "--yes"),
            post("/api/prompts/restore", {"ids": [asked_of]}),
            ("prompts.restore",),
        ),
        Case(("dataset", "freeze", "d"), post("/api/datasets", {"name": "d"}), ("dataset.freeze",), "datasets.freeze"),
        Case(("export", "d", "--out", str(out)), ("GET", "/api/datasets/d/export", None), ("dataset.export",)),
        Case(
            ("export", "d", "--out", str(out), "--format", "raw", "--split", "test"),
            ("GET", "/api/datasets/d/export?format=raw&split=test", None),
            ("dataset.export",),
        ),
        Case(
            ("train", "reward", "--dataset", "d"),
            post("/api/runs", {"method": "reward", "config": {"dataset": "d"}}),
            ("run.submit",),
            "runs.submit_run",
        ),
        Case(("runs", "cancel", RUN), post(f"/api/runs/{RUN}/cancel"), ("run.cancel",), "runs.cancel_run"),
        Case(("runs", "resume", RUN), post(f"/api/runs/{RUN}/resume"), ("run.resume",), "runs.resume_run"),
        Case(
            ("train", "reward", "--dataset", "d", "--name", "waited", "--wait"),
            post("/api/runs", {"method": "reward", "config": {"dataset": "d", "name": "waited"}}),
            ("run.submit",),
        ),
        Case(
            ("generate", "--policy", "elsewhere"),
            post("/api/runs", {"method": "generate", "config": {}}),
            ("run.submit",),
        ),
        Case(
            ("evaluate", "elsewhere", "other", "--oracle", "longer"),
            post("/api/runs", {"method": "evaluate", "config": evaluation}),
            ("run.submit",),
        ),
        Case(
            ("evaluate", "elsewhere", "other", "--people"),
            post("/api/runs", {"method": "generate", "config": asked}),
            ("run.submit",),
        ),
        Case(
            ("runs", "annotate", ended_run),
            post(f"/api/runs/{ended_run}/annotate"),
            ("run.annotate",),
            "runs.annotate_run",
        ),
        Case(
            ("policies", "add", "nobody/none", "--name", "far"),
            post("/api/policies", {"model": "nobody/none", "name": "far"}),
            ("policy.add",),
            "policies.add",
        ),
        Case(
            ("policies", "rebase", "elsewhere", "/new"),
            post("/api/policies/elsewhere/rebase", {"base": "/new"}),
            ("policy.rebase",),
        ),
        Case(
            ("policies", "promote", "other"),
            post("/api/policies/other/promote"),
            ("policy.promote",),
            "policies.promote",
        ),
        Case(
            ("review", "exclude", first.id, "--reason", "odd"),
            post(f"/api/review/judgments/{first.id}/exclude", {"reason": "odd"}),
            ("judgment.exclude",),
            "review.exclude",
        ),
        Case(
            ("review", "restore", first.id, "--reason", "fine"),
            post(f"/api/review/judgments/{first.id}/restore", {"reason": "fine"}),
            ("judgment.restore",),
            "review.restore",
        ),
        Case(
            ("review", "requeue", second.matchup_id, "--reason", "odd"),
            post(f"/api/review/matchups/{second.matchup_id}/requeue", {"reason": "odd"}),
            ("matchup.requeue",),
        ),
        Case(
            ("review", "message", "ann", "Hello."),
            post("/api/review/messages", {"annotator": "ann", "text": "Hello."}),
            ("annotator.message",),
            "review.message",
        ),
        Case(
            ("review", "gold", judgments[2].matchup_id, "--answer", "first"),
            post(f"/api/review/matchups/{judgments[2].matchup_id}/gold", {"gold": {"verdict": "first"}}),
            ("matchup.gold",),
        ),
        Case(
            ("review", "checks", "--gold-share", "0.2"),
            post("/api/checks", {"gold_share": 0.2}),
            ("checks.save",),
            "labeling.change_checks",
        ),
        Case(("batches", "add", "b", "--count", "1"), post("/api/batches", {"name": "b", "count": 1}), ("batch.add",)),
        Case(("batches", "priority", "b", "3"), post("/api/batches/b/priority", {"priority": 3}), ("batch.priority",)),
        Case(
            ("rounds", "start", "tone", "--pairs", "30"),
            post("/api/rounds", {"name": "tone", "settings": {"pairs": 30}}),
            ("rounds.start",),
            "rounds.start",
        ),
        Case(("rounds", "pause", "tone"), post("/api/rounds/tone/pause"), ("rounds.pause",), "rounds.pause"),
        Case(("rounds", "resume", "tone"), post("/api/rounds/tone/resume"), ("rounds.resume",), "rounds.resume"),
        Case(("rounds", "skip", "tone"), post("/api/rounds/tone/skip"), ("rounds.skip",), "rounds.skip"),
        Case(
            ("rounds", "fork", "tone", "tone-b", "--pairs", "40"),
            post("/api/rounds/tone/fork", {"name": "tone-b", "settings": {"pairs": 40}}),
            ("rounds.fork",),
            "rounds.fork",
        ),
        Case(
            ("rounds", "decide", "at-gate", "hold"),
            post("/api/rounds/at-gate/decide", {"choice": "hold"}),
            ("rounds.decide",),
            "rounds.decide",
        ),
        Case(
            ("rounds", "cancel", "tone", "--yes"), post("/api/rounds/tone/cancel"), ("rounds.cancel",), "rounds.cancel"
        ),
    ]


ONE_DOOR = {
    "judgments.import", "benchmark.import", "comparison.withdraw", "policy.export",  # the shell
    "policy.reply", "policy.download", "guidelines.save",  # REST, and the page's guidelines by the same method
    "pool.fill",  # the page
    "playground.prefer", "playground.edit", "playground.ask_annotators", "playground.archive",  # REST and the page
}  # fmt: skip
"""Acts that one door alone offers to this day."""


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that a command waits for have succeeded at once, and no base needs to lie anywhere."""

    def ended(db: Database, run: RunRow, *_: object, **__: object) -> RunRow:
        for before, after in pairwise((RunState.queued, RunState.starting, RunState.running, RunState.succeeded)):
            transition_run(db, run.id, expected=[before], to=after)
        return get_run(db, run.id)

    for module in ("data", "evaluate", "train"):
        monkeypatch.setattr(f"studio.cli.commands.{module}.worker_for", lambda *_, **__: nullcontext())
    monkeypatch.setattr("studio.cli.session.waiting.wait_for_run", ended)
    moved = Rebased("/old", "/new", "0" * 64, ("elsewhere",), (), (), True)
    monkeypatch.setattr("studio.services.policies.rebase", lambda *_, **__: moved)


def told(rows: Sequence[AuditRow], door: Door) -> list[tuple[str, str, str]]:
    """Verb, subject and detail of lines, with the run a case queued under one name at either door."""
    found = []
    for row in rows:
        assert row.actor == door.actor, row
        if row.verb == "run.submit":
            assert get_run(door.db, row.subject).id == row.subject
            door.named["run"] = row.subject
        subject = RUN if row.subject == door.named.get("run") else row.subject
        found.append((row.verb, subject, json.dumps(row.detail, sort_keys=True)))
    return found


@pytest.mark.usefixtures("no_worker")
def test_an_act_is_written_down_the_same_whatever_the_door(doors: tuple[Door, Door, str], tmp_path: Path) -> None:
    shell, rest, token = doors

    def typed(arguments: Sequence[str]) -> None:
        given = [word.replace(RUN, shell.named.get("run", RUN)) for word in arguments]
        done = CliRunner().invoke(app, ["--home", str(shell.home.path), *given, *as_json(given)])
        assert done.exit_code == 0, (given, done.output, done.exception)

    def sent(method: str, path: str, body: dict[str, Any] | None) -> None:
        path = path.replace(RUN, rest.named.get("run", RUN))
        answer = client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.is_success, (path, answer.text)

    seen: set[str] = set()
    listed = cases(shell.db, tmp_path)
    with served(rest) as client:
        for case in listed:
            by_shell = told(shell.lines(lambda case=case: typed(case.shell)), shell)  # type: ignore[misc]
            by_rest = told(rest.lines(lambda case=case: sent(*case.rest)), rest)  # type: ignore[misc]
            assert by_shell == by_rest, case
            assert tuple(verb for verb, _, _ in by_shell) == case.verbs
            assert all(subject for _, subject, _ in by_shell), case
            seen.update(case.verbs)
    audited = {
        act.rule.audit
        for noun in Acts.__subclasses__()
        for act in vars(noun).values()
        if hasattr(act, "rule") and act.rule.audit is not None
    }
    assert audited - seen == ONE_DOOR, "a new act is tried at both doors, or named as one that one door offers"
    tabs = Path(studio.page.tabs.__path__[0])
    page = "".join(path.read_text() for path in tabs.glob("*.py"))
    assert [case.page for case in listed if case.page and f".{case.page.partition('.')[2]}(" not in page] == []


def as_json(given: Sequence[str]) -> list[str]:
    """Commands that wait print what a run came to; as JSON, whatever that is."""
    return ["--json"] if given[0] in ("generate", "evaluate", "train") else []


@contextmanager
def served(door: Door) -> Iterator[TestClient]:
    with TestClient(create_app(door.home, door.db), base_url="http://127.0.0.1:7860") as client:
        yield client


def test_what_the_shell_alone_does_is_written_down_once(doors: tuple[Door, Door, str], tmp_path: Path) -> None:
    shell, _, _ = doors
    raw, results = tmp_path / "d.raw", tmp_path / "lm_eval"
    results.mkdir()
    (results / "results_2026.json").write_text(json.dumps({"results": {"facts": {}}, "versions": {"facts": 2}}))
    lines = [json.dumps(factories.sample(number, 1.0)) for number in range(4)]
    (results / "samples_facts_2026.jsonl").write_text("\n".join(lines))

    def done(*arguments: str) -> list[tuple[str, str, dict[str, Any]]]:
        def act() -> None:
            assert CliRunner().invoke(app, ["--home", str(shell.home.path), *arguments]).exit_code == 0

        rows = shell.lines(act)
        assert {row.actor for row in rows} <= {shell.actor}
        return [(row.verb, row.subject, row.detail) for row in rows]

    assert done("dataset", "freeze", "d") == [("dataset.freeze", "d", {})]
    assert done("export", "d", "--out", str(raw), "--format", "raw") == [
        ("dataset.export", "d", {"format_name": "raw"})
    ]
    part = ("export", "d", "--out", str(tmp_path / "part"), "--format", "trl-preference", "--split", "train")
    assert done(*part) == [("dataset.export", "d", {"format_name": "trl-preference", "split": "train"})]
    assert done("import", str(raw)) == [("judgments.import", str(raw), {"format_name": "raw"})]
    assert done("benchmark", "import", str(results), "--policy", "other") == [
        ("benchmark.import", "other", {"path": str(results)})
    ]
    assert done("evaluate", "elsewhere", "other", "--people", "--stop") == [
        ("comparison.withdraw", "elsewhere", {"b": "other"})
    ]
    (judged,) = done("judge", "--oracle", "longer", "--count", "1")
    assert judged[:2] == ("command", "judge") and judged[2]["oracle"] == "longer"
    for reading in (("users", "list"), ("runs", "list"), ("policies", "list"), ("dataset", "show", "d"), ("audit",)):
        assert done(*reading) == [], "what changes nothing is not written down"
