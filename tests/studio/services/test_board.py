"""Board, policy table, paired comparison and gate read one and the same figure of two policies."""

from __future__ import annotations

import math

import pytest
from starlette.testclient import TestClient

from feedback.database.engine import Database
from feedback.store.models.policies import promote_policy
from feedback.tables import PolicyRow
from studio.services.facade import Services
from tests.factories import compare_policies, make_policy, make_win_rate


@pytest.fixture
def pair(db: Database) -> tuple[PolicyRow, PolicyRow]:
    """A policy and the champion it is measured against."""
    champion = promote_policy(db, make_policy(db, "start").id)
    return make_policy(db, "new", parent_id=champion.id), champion


@pytest.mark.parametrize("by", ["people", "oracle:shorter", "reward:rm"])
def test_board_table_pair_and_gate_read_the_same_figure(
    services: Services, client: TestClient, db: Database, pair: tuple[PolicyRow, PolicyRow], by: str
) -> None:
    new, champion = pair
    if by == "people":
        compare_policies(db, new, champion, wins=12, losses=4, ties=4)
    kind, _, name = by.partition(":")
    for rate in (0.4, 0.7):  # the older one speaks nowhere
        if kind != "people":
            make_win_rate(db, new, champion, rate, **{kind: name})
    make_win_rate(db, champion, new, 0.45, oracle="axis")
    board = services.evaluation.board(by=by)
    figures = board.wins["new"]["start"]
    assert figures["win_rate"] == 0.7
    [standing] = [row for row in board.standings if row.policy == "new"]
    assert standing.strength is not None
    assert standing.strength.value == pytest.approx(math.log(0.7 / 0.3), abs=2e-3)

    summary = services.policies.get_policy("new")
    assert summary.win_rate is not None and summary.win_rate.figures == figures
    compared = services.evaluation.pair("new", "start")
    assert compared.win_rates[0].figures == figures and compared.has_reverse
    words = services.evaluation.decide("new").reasons[0].words
    assert compared.decision == services.evaluation.decide("new")
    percent = [f"{100 * figures[name]:.1f} %" for name in ("win_rate", "low", "high")]
    assert f"{percent[0]} [{percent[1]}, {percent[2]}]" in words
    assert f"on {figures['n_prompts']} held-out prompts" in words

    told = client.get("/api/board", params={"by": by}).json()
    assert told["by"] == by and told["wins"]["new"]["start"] == figures
    rates = client.get("/api/board/new/start").json()["win_rates"]
    assert {key: rates[0][key] for key in figures} == figures
    assert client.get("/api/policies/new").json()["win_rate"]["win_rate"] == figures["win_rate"]


def test_an_unknown_judge_and_the_same_policy_twice_are_refused(
    client: TestClient, pair: tuple[PolicyRow, PolicyRow]
) -> None:
    unknown = client.get("/api/board", params={"by": "oracle:nobody"})
    assert unknown.status_code == 404 and "Known: people" in unknown.text
    same = client.get("/api/board/new/new")
    assert same.status_code in (400, 422) and "against itself" in same.text
    assert client.get("/api/board/new/nobody").status_code == 404


def test_strengths_are_computed_once_for_the_same_votes(
    services: Services, db: Database, pair: tuple[PolicyRow, PolicyRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_policies(db, *pair, wins=12, losses=4)
    first = services.evaluation.board()
    monkeypatch.setattr("training.board.bradley_terry.estimate", None)
    monkeypatch.setattr("training.board.people.fewest_to_reverse", lambda *_: 8)
    again = services.evaluation.board()
    assert again == first
