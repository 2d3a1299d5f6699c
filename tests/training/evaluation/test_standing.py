"""One function decides which measurement speaks for a policy; the table, the command and the gate all ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.database.engine import Database
from feedback.store.labeling.matchups import save_matchups
from feedback.store.models.policies import promote_policy
from feedback.store.models.scorecards import save_scorecard
from feedback.tables import PolicyRow
from feedback.types import Matchup, Purpose, Scorecard, Split
from studio.page.views import policies as policies_view
from studio.services.facade import Services
from tests.factories import judge_by, longer, make_generations, make_policy, make_prompt
from training.evaluation import standing
from training.evaluation.gate_evidence import decide_policy
from training.home import Home


@pytest.fixture
def services(tmp_path: Path, db: Database) -> Iterator[Services]:
    bundle = Services(Home(tmp_path / "home").create(), db)
    yield bundle
    bundle.close()


@pytest.fixture
def champion(db: Database) -> PolicyRow:
    return promote_policy(db, make_policy(db, "starter").id)


@pytest.fixture
def rival(db: Database, champion: PolicyRow) -> PolicyRow:
    return make_policy(db, "rival", parent_id=champion.id)


def card(db: Database, a: PolicyRow, b: PolicyRow, rate: float, **settings: str) -> None:
    figures = {"win_rate": rate, "low": rate - 0.05, "high": rate + 0.05, "n_prompts": 150}
    save_scorecard(db, Scorecard(kind="win_rate", subject_id=a.id, against_id=b.id, settings=settings, figures=figures))


def asked(db: Database, a: PolicyRow, b: PolicyRow, count: int) -> None:
    """Pairs of two policies' replies to held-out prompts; B's reply is the longer one."""
    for number in range(count):
        prompt = make_prompt(db, f"Measure {number}.", split=Split.evaluation)
        [one] = make_generations(db, prompt, a, [f"Short {number}."])
        [two] = make_generations(db, prompt, b, [f"A much longer reply to number {number}."])
        value = Matchup(prompt_id=prompt.id, generation_ids=[one.id, two.id], purpose=Purpose.evaluate, priority=10)
        save_matchups(db, [value])


def test_people_speak_before_a_newer_rule_and_the_rule_before_a_reward_model(
    db: Database, services: Services, champion: PolicyRow, rival: PolicyRow
) -> None:
    card(db, rival, champion, 0.9, reward="some-model")
    found = standing.speaking(db, rival)
    assert found and standing.judge_of(found) == "reward:some-model"
    card(db, rival, champion, 0.549, oracle="shorter")
    card(db, rival, champion, 0.8, reward="some-model")
    found = standing.speaking(db, rival)
    assert found and standing.judge_of(found) == "shorter"
    asked(db, rival, champion, 5)
    judge_by(db, longer, annotator="ann", count=3)
    found = standing.speaking(db, rival)
    assert found and standing.judge_of(found) == "people" and found.figures["win_rate"] == 0.0
    card(db, rival, champion, 0.7, oracle="shorter")
    summary = services.policies.get_policy("rival")
    assert summary.win_rate and summary.win_rate.figures["win_rate"] == 0.0
    shown = policies_view.policies_table([summary], None, rival.created_at)
    assert "0.0 %" in shown and "judge people (3 of 5)" in shown and "70.0 %" not in shown
    [first, *_] = services.policies.list_win_rates(rival.id)
    assert standing.judge_of(first[0]) == "people"
    reasons = decide_policy(db, "rival").reasons
    assert "by people" in reasons[0].question and "0.0 %" in reasons[0].words


def test_the_gate_asks_the_same_rule_as_the_table(db: Database, champion: PolicyRow, rival: PolicyRow) -> None:
    card(db, rival, champion, 0.9, oracle="shorter")
    card(db, rival, champion, 0.2, reward="some-model")  # newer
    found = standing.speaking(db, rival)
    assert found and found.figures["win_rate"] == 0.9
    assert "judged by shorter" in decide_policy(db, "rival").reasons[0].words


def test_whom_the_gate_asks_about_comes_before_others(db: Database, champion: PolicyRow, rival: PolicyRow) -> None:
    other = make_policy(db, "other")
    card(db, rival, champion, 0.6, reward="some-model")
    card(db, rival, other, 0.9, oracle="shorter")
    found = standing.speaking(db, rival)
    assert found and found.against_id == champion.id


def test_the_best_of_many_replies_does_not_speak(db: Database, champion: PolicyRow, rival: PolicyRow) -> None:
    figures = {"win_rate": 0.9, "low": 0.8, "high": 1.0, "n_prompts": 9, "best_of": 8}
    value = Scorecard(kind="win_rate", subject_id=rival.id, against_id=champion.id, settings={}, figures=figures)
    save_scorecard(db, value)
    assert standing.speaking(db, rival) is None and len(standing.win_rates(db, rival.id)) == 1
