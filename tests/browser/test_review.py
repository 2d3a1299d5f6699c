"""A reviewer in Chromium: reads the figures, opens a person, excludes a judgment with a reason, settles a dispute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from feedback.labeling import assignment, judging
from feedback.store.labeling import batches
from feedback.types import Batch, JudgmentState, MatchupState
from tests.browser.conftest import Studio, open_tab
from tests.browser.worlds import put
from tests.crowd import judge_all, make_crowd
from tests.factories import get_matchup, judge_by, list_judgments, longer, make_matchup, make_policy

AT = datetime(2026, 1, 5, 9, tzinfo=UTC)


@pytest.mark.browser
def test_a_reviewer_sees_through_the_crowd_and_acts(studio: Studio, open_page: Callable[..., Page]) -> None:
    policy = make_policy(studio.db)
    for number in range(60):
        texts = [f"good {'x ' * (number % 7)}", f"bad {'x ' * (number % 5)}"]
        make_matchup(studio.db, policy=policy, texts=texts, required=3)
    crowd = [member for member in make_crowd() if member.kind in ("good", "always-left")][4:]
    judge_all(studio.db, crowd, lambda _messages, text: float(text.startswith("good")), start=AT)
    disputed = make_matchup(studio.db, policy=policy, texts=["yes yes", "no"], required=1)
    batches.save_batch(studio.db, Batch(name="two", required=2, max_required=2), matchup_ids=[disputed.id])
    judge_by(studio.db, longer, annotator="ann", count=1)
    judge_by(studio.db, lambda *_: 0, annotator="bob", count=1)
    assert get_matchup(studio.db, disputed.id).state is MatchupState.disputed
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Review")
    people = page.locator("#annotators-table")
    expect(people.locator("tbody tr").first).to_contain_text("prefers the left side")
    expect(page.locator("#review-summary")).not_to_contain_text("NaN")

    people.get_by_role("button", name="always-left-1").click()
    expect(page.locator("#annotator-detail")).to_contain_text("Chooses left of two equal replies")
    first = page.locator("#evidence-list .pick").first
    first.click()
    judgment_id = first.inner_text()
    expect(page.locator("#chosen-judgment")).to_contain_text(judgment_id)
    acts = page.locator("#act-exclude").bounding_box()
    assert acts and acts["y"] + acts["height"] <= page.evaluate("innerHeight"), "what can be done is in sight"
    page.locator("#review-reason textarea").fill("always the same key")
    page.locator("#act-exclude").click()
    expect(page.locator("#review-log")).to_contain_text("always the same key")
    expect(page.locator("#evidence-list article").first).to_contain_text("excluded")
    row = next(row for row in list_judgments(studio.db) if row.id == judgment_id)
    assert row.state is JudgmentState.excluded

    page.locator("#adjudication button").first.click()
    page.locator("#next-dispute").click()
    expect(page.locator("#disputed-pair")).to_contain_text("yes yes")
    expect(page.locator("#settle-order")).to_be_hidden()
    expect(page.locator("#settle-both-bad")).to_have_text("Both bad")
    page.reload()
    page.locator("#adjudication button").first.click()
    page.locator("#next-dispute").click()
    expect(page.locator("#disputed-pair")).to_contain_text("yes yes")
    waiting = page.locator("#review-summary").get_by_text("Disputed, waiting").locator("xpath=..")
    expect(waiting).to_contain_text("1")
    page.locator("#settle-left").click()
    expect(page.locator("#disputed-pair")).to_contain_text("Nothing is disputed")
    expect(waiting).to_contain_text("0")
    assert get_matchup(studio.db, disputed.id).state is MatchupState.adjudicated


@pytest.mark.slow
@pytest.mark.browser
def test_a_ranking_is_settled_by_writing_the_order(studio: Studio, open_page: Callable[..., Page]) -> None:
    row = put(studio.db, ["a good one", "a fair one", "a bad one"])
    batches.save_batch(studio.db, Batch(name="two", required=2, max_required=2), matchup_ids=[row.id])
    for name in ("ann", "bob"):
        task = assignment.lease_next(studio.db, name)
        assert task
        ranking = sorted((1, 2, 3), key=lambda rank: task.responses[rank - 1], reverse=name == "bob")
        judging.submit(studio.db, task.lease_id, name, ranking=ranking)
    assert get_matchup(studio.db, row.id).state is MatchupState.disputed
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Review")
    page.locator("#adjudication button").first.click()
    page.locator("#next-dispute").click()
    expect(page.locator("#disputed-pair")).to_contain_text("Reply 3")
    expect(page.locator("#settle-left")).to_be_hidden()
    expect(page.locator("#settle-both-bad")).to_have_text("All bad")
    page.locator("#settle-order input").fill("3 > 1 = 2")
    page.locator("#settle-order input").press("Enter")
    expect(page.locator("#disputed-pair")).to_contain_text("Nothing is disputed")
    ruling = next(one for one in list_judgments(studio.db) if one.annotator == "local")
    assert ruling.ranking and [ruling.ranking[index] for index in ruling.shown_order] == [2, 2, 1]
