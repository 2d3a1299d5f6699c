"""The reviewer's doors: REST, the command and what the tab shows; and what annotators must never be told."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select
from typer.testing import CliRunner

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.labeling import assignment, judging
from feedback.quality import report as quality
from feedback.store.labeling import batches, matchups
from feedback.store.reports.evidence import list_evidence
from feedback.tables import LeaseRow, MatchupRow
from feedback.types import Batch, Matchup, MatchupKind, MatchupState
from studio.cli.app import app
from studio.page.tabs import review
from studio.page.views import review as review_view
from studio.services.facade import Services
from tests.crowd import judge_all, make_crowd
from tests.factories import (
    get_matchup,
    judge_by,
    list_judgments,
    longer,
    make_generations,
    make_matchup,
    make_policy,
    make_prompt,
)
from training.home import Home

AT = datetime(2026, 1, 5, 9, tzinfo=UTC)


def test_nothing_that_reaches_an_annotator_tells_gold_repeat_batch_or_policy(client: TestClient, db: Database) -> None:
    policy = make_policy(db, "secret-policy")
    rows = [make_matchup(db, policy=policy, required=9) for _ in range(30)]
    for row in rows[:10]:
        matchups.save_gold(db, row.id, {"verdict": "first"})
    batches.save_batch(db, Batch(name="secret-batch", priority=2), count=5)
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    services.labeling.change_checks({"gold_share": 0.4, "repeat_share": 0.4, "repeat_after": 0})
    replies = []
    for _ in range(30):
        reply = client.post("/api/tasks/next", json={"annotator": "ann"})
        if reply.status_code == 204:
            break
        task = reply.json()
        assert set(task) == {"lease", "kind", "prompt", "responses", "guidelines", "expires_at"}
        kept = client.post(f"/api/tasks/{task['lease']}/heartbeat", headers={"X-Annotator": "ann"})
        said = client.post("/api/judgments", json={"lease": task["lease"], "annotator": "ann", "verdict": "left"})
        replies += [reply, kept, said]
        assert set(kept.json()) == {"expires_at"} and set(said.json()) == {"judgment_id"}
    purposes = {get_matchup(db, row.matchup_id).purpose.value for row in list_judgments(db)}
    assert purposes == {"collect", "gold", "repeat"}  # all kinds were met
    told = " ".join(f"{reply.text} {reply.headers}" for reply in replies)
    assert not re.search(r"gold|repeat|secret|purpose|mat-|pol-|gen-|bat-", told)


def test_the_report_has_everybody_and_explains_what_is_undefined(client: TestClient, db: Database) -> None:
    empty = client.get("/api/review").json()
    assert empty["alpha"]["value"] is None and "ask for two or more opinions" in empty["alpha"]["note"]
    make_matchup(db, required=2)
    for name in ("ann", "bob"):
        judge_by(db, longer, annotator=name)
    report = client.get("/api/review").json()
    assert report["agreement"]["value"] == 1.0 and report["alpha"]["value"] is None
    assert [line["annotator"] for line in report["annotators"]] == ["ann", "bob"]
    assert report["shared"] == [{"annotators": ["ann", "bob"], "matchups": 1, "same": 1}]
    assert "NaN" not in json.dumps(report)


def test_a_reviewer_excludes_restores_requeues_and_writes(client: TestClient, db: Database) -> None:
    row = make_matchup(db)
    judge_by(db, longer, annotator="ann")
    (item,) = client.get("/api/review/judgments", params={"annotator": "ann"}).json()["judgments"]
    assert item["others"] == {} and len(item["responses"]) == 2
    path = f"/api/review/judgments/{item['judgment_id']}"
    assert client.post(f"{path}/exclude", json={"reason": " "}).status_code == 422
    done = client.post(f"{path}/exclude", json={"reason": "a bot", "requeue": True}, headers={"X-Annotator": "boss"})
    assert done.json()["actor"] == "boss" and client.post(f"{path}/exclude", json={"reason": "x"}).status_code == 409
    assert client.post(f"{path}/restore", json={"reason": "no bot"}).status_code == 200
    assert client.post(f"/api/review/matchups/{row.id}/requeue", json={"reason": "odd"}).status_code == 200
    assert client.post("/api/review/messages", json={"annotator": "ann", "text": "thanks"}).status_code == 201
    mine = client.get("/api/messages", headers={"X-Annotator": "ann"}).json()["messages"]
    assert [message["text"] for message in mine] == ["thanks"]
    acts = [act["act"] for act in client.get("/api/review/acts").json()["acts"]]
    assert acts == ["message", "requeue", "restore", "exclude"]


def test_batches_gold_and_disputes_over_rest(client: TestClient, db: Database) -> None:
    rows = [make_matchup(db, texts=[f"yes {i}", f"no {i}"]) for i in range(3)]
    gold = client.post(f"/api/review/matchups/{rows[0].id}/gold", json={"gold": {"verdict": "first"}})
    assert gold.status_code == 201
    bad = client.post(f"/api/review/matchups/{rows[1].id}/gold", json={"gold": {"verdict": "left"}})
    assert bad.status_code == 422 and "first" in bad.json()["detail"]
    made = client.post("/api/batches", json={"name": "two", "required": 2, "count": 2}).json()
    assert made["matchups"] == {"open": 2}
    assert (
        client.post("/api/batches", json={"name": "bad", "required": 3, "max_required": 2, "count": 1}).status_code
        == 422
    )
    assert client.post("/api/batches/two/priority", json={"priority": 7}).json()["priority"] == 7
    assert client.post("/api/disputes/next").status_code == 204
    for name, verdict in (("ann", "left"), ("bob", "tie")):
        # To the end of the pool: the known answer comes before the others or after them, by chance.
        while (given := client.post("/api/tasks/next", json={"annotator": name})).status_code == 200:
            said = {"lease": given.json()["lease"], "annotator": name, "verdict": verdict}
            assert client.post("/api/judgments", json=said).status_code == 201
    task = client.post("/api/disputes/next", headers={"X-Annotator": "judge"}).json()
    assert set(task) == {"lease", "kind", "prompt", "responses", "guidelines", "expires_at"}
    said = {"lease": task["lease"], "annotator": "judge", "verdict": "left"}
    assert client.post("/api/judgments", json=said).status_code == 201
    assert client.get("/api/batches").json()["batches"][0]["matchups"] == {"adjudicated": 1, "disputed": 1}


def test_a_task_is_given_back_by_its_holder_only(client: TestClient, db: Database) -> None:
    make_matchup(db)
    lease = client.post("/api/tasks/next", json={"annotator": "ann"}).json()["lease"]
    assert client.post(f"/api/tasks/{lease}/release", headers={"X-Annotator": "bob"}).status_code == 409
    assert client.post(f"/api/tasks/{lease}/release", headers={"X-Annotator": "ann"}).json() == {"released": True}
    assert client.post(f"/api/tasks/{lease}/heartbeat", headers={"X-Annotator": "ann"}).status_code == 409


def test_the_tab_shows_biased_people_by_name_and_never_nan(db: Database) -> None:
    policy = make_policy(db)
    for number in range(90):
        texts = [f"good {'x ' * (number % 7)}", f"bad {'x ' * (number % 5)}"]
        make_matchup(db, policy=policy, texts=texts, required=3)
    crowd = [member for member in make_crowd() if member.kind in ("good", "always-left")][4:]
    judge_all(db, crowd, lambda _messages, text: float(text.startswith("good")), start=AT)
    report = quality.report(db)
    page = review_view.annotators_table(report, "always-left-1")
    assert report.annotators[0].name.startswith("always-left") and "prefers the left side" in page
    everything = page + review_view.summary(report, 0)
    everything += "".join(review_view.annotator_detail(line, report) for line in report.annotators)
    assert "nan" not in everything.lower().replace("annan", "") and "None" not in everything
    empty = quality.report_of([])
    assert "Nobody has judged yet" in review_view.annotators_table(empty, None)
    assert "ask for two or more opinions" in review_view.summary(empty, 0)


def test_hostile_names_and_texts_are_escaped(db: Database) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    make_matchup(db, texts=[nasty, "plain"])
    judge_by(db, longer, annotator=nasty)
    report = quality.report(db)
    everything = review_view.annotators_table(report, None) + review_view.annotator_detail(report.annotators[0], report)
    everything += review_view.evidence_list(list_evidence(db), None, AT)
    assert "<img" not in everything and "&lt;img" in everything


def disputed_ranking(db: Database) -> MatchupRow:
    policy, prompt = make_policy(db), make_prompt(db)
    rows = make_generations(db, prompt, policy, ["one", "two", "three"])
    value = Matchup(prompt_id=prompt.id, generation_ids=[row.id for row in rows], kind=MatchupKind.rank, required=2)
    (row,) = matchups.save_matchups(db, [value])
    for name, ranks in (("ann", {"one": 1, "two": 2, "three": 3}), ("bob", {"one": 3, "two": 2, "three": 1})):
        task = assignment.lease_next(db, name)
        assert task
        judging.submit(db, task.lease_id, name, ranking=[ranks[text] for text in task.responses])
    assert get_matchup(db, row.id).state is MatchupState.disputed
    return row


def test_a_disputed_ranking_is_settled_on_the_page_and_a_reload_forgets_nothing(
    services: Services, db: Database
) -> None:
    row = disputed_ranking(db)
    page, lease, *_ = review.next_dispute(services)
    assert "Reply 3" in page and review.next_dispute(services)[1] == lease, "shown again until it is answered"
    for order in ("", "2 > 1", "2 > 2 > 1", "0 > 1 > 2", "left"):
        with pytest.raises(InvalidInput):
            review.settle_ranking(services, lease, order)
    with pytest.raises(InvalidInput, match="give a ranking"):
        review.settle(services, {"verdict": "left"}, lease)
    said, empty_lease, *_ = review.settle_ranking(services, lease, "2 > 1=3")
    assert "Nothing is disputed" in said and empty_lease == ""
    assert get_matchup(db, row.id).state is MatchupState.adjudicated
    ruling = next(one for one in list_judgments(db) if one.annotator == "local")
    assert [ruling.ranking[index] for index in ruling.shown_order] == [2, 1, 2]  # type: ignore[index]


def test_a_reviewer_who_cannot_tell_leaves_a_dispute_to_another(services: Services, db: Database) -> None:
    row = disputed_ranking(db)
    lease = review.next_dispute(services)[1]
    assert review.settle(services, dict(review.OF_ANY[1][2]), lease)[1] == ""
    assert get_matchup(db, row.id).state is MatchupState.disputed
    assert services.review.next_dispute("another") is not None


def test_a_reviewer_reads_all_that_a_judgment_carries(client: TestClient, db: Database) -> None:
    make_matchup(db, texts=["a plain reply", "another reply"])
    task = client.post("/api/tasks/next", json={"annotator": "ann"}).json()
    remarks = {
        "edited": {"index": 1, "text": "A better reply."},
        "spans": [{"index": 0, "start": 0, "end": 5, "mark": "bad", "reason": "too short"}],
        "criteria": {"clear": [2, 5]},
        "flag": "personal",
    }
    said = {"lease": task["lease"], "annotator": "ann", "verdict": "right", "strength": 3, **remarks}
    assert client.post("/api/judgments", json=said).status_code == 201
    (item,) = client.get("/api/review/judgments").json()["judgments"]
    assert item["responses"] == task["responses"] and item["strength"] == 3
    assert {name: item[name] for name in remarks} == remarks, "in shown order, as the replies are"
    page = review_view.evidence_list(list_evidence(db), None, AT)
    for words in ("right, much", "flagged: names a private person", "Right, edited: A better reply.", "clear: 2, 5"):
        assert words in page
    assert f"Left, marked bad: “{task['responses'][0][:5]}”, too short" in page


def test_rankings_are_told_in_the_order_of_the_replies_beside_them(db: Database) -> None:
    disputed_ranking(db)
    for item in list_evidence(db):
        ranks = {"ann": {"one": 1, "two": 2, "three": 3}, "bob": {"one": 3, "two": 2, "three": 1}}
        page = review_view.evidence_list([item], None, AT)
        for name in ("ann", "bob"):
            assert "ranked " + ", ".join(str(ranks[name][text]) for text in item.responses) in page


@pytest.fixture
def judged_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("STUDIO_DATABASE_URL", raising=False)
    home = Home(tmp_path / "home").create()
    db = home.open()
    make_matchup(db)
    judge_by(db, longer, annotator="ann")
    make_matchup(db)
    db.dispose()
    return home


def test_the_command_does_what_the_page_does(judged_home: Home) -> None:
    def studio(*words: str, status: int = 0) -> str:
        done = CliRunner().invoke(app, ["--home", str(judged_home.path), *words])
        assert done.exit_code == status, done.output
        return done.output

    report = json.loads(studio("review", "report", "--json"))
    assert report["annotators"][0]["annotator"] == "ann"
    assert "ask for two or more opinions" in studio("review", "report")
    (judgment,) = json.loads(studio("review", "judgments", "--json"))
    assert "nothing was deleted" in studio("review", "exclude", judgment["id"], "--reason", "spam", "--requeue")
    assert "is excluded" in studio("review", "exclude", judgment["id"], "--reason", "spam", status=1)
    studio("review", "restore", judgment["id"], "--reason", "ham")
    studio("review", "message", "ann", "well done")
    assert [act["act"] for act in json.loads(studio("review", "acts", "--json"))] == ["message", "restore", "exclude"]
    assert "has 1 matchups" in studio("batches", "add", "first", "--count", "1", "--priority", "3")
    assert json.loads(studio("batches", "list", "--json"))[0]["priority"] == 3
    assert "priority 4" in studio("batches", "priority", "first", "4")
    assert "first" in studio("review", "gold", judgment["matchup_id"], "--answer", "left", status=1)
    assert "Everybody will meet it" in studio("review", "gold", judgment["matchup_id"], "--answer", "first")


def test_the_shares_of_gold_and_repeats_are_settings_that_hold_from_the_next_task_on(
    client: TestClient, db: Database, home: Home
) -> None:
    assert client.get("/api/checks").json() == {
        "version": 0, "gold_share": 0.05, "repeat_share": 0.03, "repeat_after": 3600
    }  # fmt: skip
    for _ in range(6):
        make_matchup(db, required=30)
    gold = matchups.save_gold(db, make_matchup(db).id, {"verdict": "first"})
    client.post("/api/checks", json={"gold_share": 0.0, "repeat_share": 0.0})
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    assert all(client.post("/api/tasks/next").status_code == 200 for _ in range(5))
    assert not any(lease.matchup_id == gold.id for lease in every_lease(db))
    saved = client.post("/api/checks", json={"gold_share": 0.5}).json()
    assert saved == {"version": 2, "gold_share": 0.5, "repeat_share": 0.0, "repeat_after": 3600}
    for name in (f"person-{number}" for number in range(20)):
        services.labeling.lease_with_guidelines(name)[0]
    assert any(lease.matchup_id == gold.id for lease in every_lease(db))

    refused = client.post("/api/checks", json={"repeat_share": 0.7, "gold_share": 0.1})
    assert refused.status_code == 422 and "repeat_share must be between 0 (off) and 0.5, not 0.7" in refused.text
    assert client.post("/api/checks", json={"repeat_after": -1}).status_code == 422
    assert services.labeling.checks().gold_share == 0.5  # a refused change changes nothing

    shell = ["--home", str(home.path), "--database-url", db.url, "review", "checks"]
    run = CliRunner().invoke(app, [*shell, "--repeat-share", "0.04", "--json"])
    assert run.exit_code == 0 and json.loads(run.stdout)["repeat_share"] == 0.04
    assert services.labeling.checks().repeat_share == 0.04, "what another process saves holds at once"
    run = CliRunner().invoke(app, [*shell, "--gold-share", "2"])
    assert run.exit_code != 0 and "gold_share must be between" in run.output


def test_the_tab_changes_the_shares_in_per_cent_and_minutes(client: TestClient) -> None:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    assert review.show_checks(services)[:3] == (5.0, 3.0, 60.0)
    assert review.save_checks(services, 10, None, 30)[:3] == (10.0, 3.0, 30.0)
    with pytest.raises(InvalidInput, match="gold_share"):
        review.save_checks(services, 80, 3, 30)
    assert services.labeling.checks().gold_share == 0.1


def every_lease(db: Database) -> list[LeaseRow]:
    with db.read() as session:
        return list(session.exec(select(LeaseRow)))
