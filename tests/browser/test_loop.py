"""The whole loop as one person lives it: rank, undo, reload, freeze, train, promote, rank the better policy's pairs."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from feedback.store.content import generations
from feedback.store.datasets import datasets
from feedback.store.models import policies, runs
from feedback.store.reports import lineage
from feedback.types import JudgmentState, RunState, Source
from tests.browser.conftest import Studio, lease_of, open_tab, press
from tests.factories import list_judgments, replies_of_lease

pytestmark = pytest.mark.timeout(600)
OpenPage = Callable[..., Page]
RUN_MS = 300_000  # a training run on a busy machine without a GPU


def authors_of_shown(studio: Studio, page: Page) -> set[str]:
    """Which policies wrote the pair on the screen; the page cannot know, so the database is asked."""
    shown = replies_of_lease(studio.db, lease_of(page))
    return {policies.get_policy(studio.db, row.policy_id).name for row in shown}


def label_by_keyboard(studio: Studio, page: Page) -> None:
    """Judge 12 pairs, one of them undone and judged anew, with a reload in the middle."""
    for key in "12t12":
        press(page, key)
    before = lease_of(page)
    page.reload()
    page.wait_for_selector("#pair .pair")
    assert lease_of(page) == before
    for key in "1":
        press(page, key)
    press(page, "u")
    for key in "2121x12":
        press(page, key)
    assert len(list_judgments(studio.db, current_only=True)) == 12
    withdrawn = [row for row in list_judgments(studio.db) if row.state is JudgmentState.withdrawn]
    assert len(withdrawn) == 1
    expect(page.locator(".count-done")).to_have_text("12 judged by you")


def freeze(page: Page) -> None:
    open_tab(page, "Datasets")
    expect(page.locator("#dataset-name textarea")).to_have_value("round-1")
    page.locator("#freeze").click()
    page.wait_for_selector("#dataset-detail .detail")


def train(studio: Studio, page: Page) -> str:
    """Start a DPO run from the form and watch it end; its id."""
    open_tab(page, "Train")
    page.get_by_role("radio", name=re.compile("^dpo")).check()
    expect(page.locator("#train-dataset input")).to_have_value(re.compile("round-1"))
    page.locator("#train-name textarea").fill("warmer")
    page.locator("#start-run").click()
    page.wait_for_selector("#run-detail .detail")
    page.locator("#cancel-run").wait_for()
    page.locator("#first-plot .scatterlayer .trace").first.wait_for(timeout=RUN_MS)
    run_id = str(page.locator("#run-detail h3").inner_text()).split("·")[-1].strip()
    expect(page.locator("#run-detail .badge")).to_have_text(re.compile("succeeded|failed"), timeout=RUN_MS)
    run = runs.get_run(studio.db, run_id)
    assert run.state is RunState.succeeded, run.error
    assert len({row.step for row in runs.list_metrics(studio.db, run_id) if row.name == "loss"}) > 5
    expect(page.locator("#cancel-run")).to_be_hidden()
    assert page.locator("#run-log pre").inner_text().strip()
    return run_id


def promote(page: Page, name: str) -> None:
    open_tab(page, "Policies")
    page.locator("#policies-table .pick", has_text=name).click()
    page.locator("#promote").click()
    expect(page.locator("#promote-question")).to_contain_text("promote starter again")
    page.locator("#promote-yes").click()
    expect(page.locator("#policies-table tr", has_text=name)).to_contain_text("champion")


@pytest.mark.slow
def test_the_loop_turns(studio: Studio, open_page: OpenPage) -> None:
    page = open_page(studio.start())
    page.wait_for_selector("#pair .pair", timeout=RUN_MS)
    assert authors_of_shown(studio, page) == {"starter"}
    label_by_keyboard(studio, page)
    freeze(page)
    run_id = train(studio, page)
    promote(page, "warmer")

    open_tab(page, "Label")
    press(page, "1")  # the pair that was on the screen stays with the person; the next comes from the new champion
    page.wait_for_selector("#pair .pair", timeout=RUN_MS)
    assert authors_of_shown(studio, page) == {"warmer"}
    assert "warmer" not in page.locator("#label-tab").inner_text()

    origin = lineage.policy_lineage(studio.db, "warmer")
    dataset = datasets.get_dataset(studio.db, "round-1")
    assert origin["run"]["id"] == run_id
    assert origin["dataset"]["hash"] == dataset.hash
    assert origin["judgments"]["count"] == 12
    assert origin["judgments"]["by_source"] == {Source.human: 12}
    assert set(origin["judged_policies"]) == {"starter"}
    assert origin["parent"]["policy"]["name"] == "starter"
    made = generations.list_generations(studio.db, policy_id=policies.get_policy(studio.db, "warmer").id, limit=5)
    assert made
