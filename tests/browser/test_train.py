"""The run view: whole steps on the axis, a failure with its traceback one click away."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from feedback.datasets import freeze
from feedback.store.models import policies, runs
from feedback.types import MetricPoint, Run, RunState, now
from tests import factories
from tests.browser.conftest import Studio, open_tab

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]
STEPS = "#first-plot .xaxislayer-above .xtick text"
LINES = "#first-plot .scatterlayer .trace"


def trained(studio: Studio, method: str, steps: int) -> str:
    run = runs.save_run(studio.db, Run(method=method, config={"dataset": "round-1"}))
    runs.save_metrics(
        studio.db, run.id, [MetricPoint(step=s, name="loss", value=1 / (s + 1)) for s in range(1, steps + 1)]
    )
    runs.transition_run(
        studio.db, run.id, expected=[RunState.queued], to=RunState.succeeded, started_at=now(), ended_at=now()
    )
    return run.id


@pytest.mark.slow
def test_a_method_that_can_do_without_a_dataset_is_started_without_one(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Train")
    expect(page.locator("#no-dataset")).to_contain_text("rft, rloo, ppo")
    expect(page.locator("#start-run")).to_be_disabled()
    page.get_by_role("radio", name=re.compile("^ppo")).check()
    expect(page.locator("#no-dataset")).to_be_hidden()
    chosen = page.locator("input[aria-label='Reward function']:visible")
    chosen.fill("no_repetition")
    chosen.press("Enter")
    page.locator("#start-run").click()
    expect(page.locator("#run-detail")).to_contain_text("ppo")
    (run,) = (one for one in runs.list_runs(studio.db) if one.method == "ppo")
    assert run.config["reward_function"] == "no_repetition" and "dataset" not in run.config
    page.get_by_role("radio", name=re.compile("^dpo")).check()
    expect(page.locator("#start-run")).to_be_disabled()
    expect(page.locator("#no-dataset")).to_be_visible()


@pytest.mark.slow
def test_a_start_that_is_refused_says_why(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Train")
    page.get_by_role("radio", name=re.compile("^ppo")).check()
    page.locator("#start-run").click()
    expect(page.locator(".toast-body").filter(has_text="reward")).to_be_visible()
    assert not [run for run in runs.list_runs(studio.db) if run.method == "ppo"]


@pytest.mark.slow
def test_the_ticks_of_steps_are_whole(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    first = trained(studio, "dpo", 3)
    page = open_page(studio.start("--no-worker"), viewport={"width": 1280, "height": 900})
    open_tab(page, "Train")
    page.locator(f"[data-pick={first}]").click()
    page.locator(STEPS).first.wait_for(state="attached")
    ticks = [float(text) for text in page.locator(STEPS).all_text_contents()]
    assert len(ticks) > 2 and all(tick.is_integer() for tick in ticks) and len(set(ticks)) == len(ticks)


@pytest.mark.slow
def test_the_curve_of_another_run_is_drawn_beside(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    first, _ = trained(studio, "dpo", 30), trained(studio, "reward", 40)
    page = open_page(studio.start("--no-worker"), viewport={"width": 1280, "height": 900})
    open_tab(page, "Train")
    page.locator(f"[data-pick={first}]").click()
    expect(page.locator(LINES)).to_have_count(1, timeout=60_000)
    page.locator("#compare-runs input").click()
    page.get_by_role("option", name="reward").first.click()
    expect(page.locator(LINES)).to_have_count(2, timeout=60_000)
    expect(page.locator("#first-plot .legendtext").last).to_contain_text("reward", timeout=60_000)


@pytest.mark.slow
def test_what_is_read_on_a_runs_card_stays_open_while_the_run_goes_on(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    run = runs.save_run(studio.db, Run(method="ppo", config={"iterations": 3}))  # it waits: looked at as one that works
    runs.save_metrics(studio.db, run.id, [MetricPoint(step=1, name="score", value=0.5)])
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Train")
    page.locator(f"[data-pick={run.id}]").click()
    card = page.locator("#run-detail")
    card.locator("summary", has_text="Settings").click()
    card.locator("summary", has_text="Do it again").click()
    card.locator("summary", has_text="At step 1").click()  # it was open, and is closed by hand
    for step in (2, 3):
        runs.save_metrics(studio.db, run.id, [MetricPoint(step=step, name="score", value=0.5)])
        expect(card).to_contain_text(f"At step {step}")
        assert card.locator("details[open] > summary").all_text_contents() == ["Settings", "Do it again"]
    expect(card.get_by_label("JSON")).to_be_visible()


@pytest.mark.slow
def test_a_run_that_is_picked_comes_into_sight(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    made = [runs.save_run(studio.db, Run(method="ppo", config={"name": f"try-{n}"})).id for n in range(20)]
    page = open_page(studio.start("--no-worker"), viewport={"width": 390, "height": 800})
    open_tab(page, "Train")
    page.locator(f"[data-pick={made[-1]}]").click()
    expect(page.locator("#run-detail h3")).to_be_in_viewport()
    page.locator(f"[data-pick={made[0]}]").click()
    expect(page.locator(f"[data-run={made[0]}] h3")).to_be_in_viewport()
    page.evaluate("scrollTo(0, 0)")
    runs.save_metrics(studio.db, made[0], [MetricPoint(step=1, name="score", value=0.5)])
    expect(page.locator("#run-detail")).to_contain_text("At step 1")
    assert page.evaluate("scrollY") == 0, "a look at the run took the page away from its reader"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_failed_run_says_why_and_shows_its_traceback_on_a_click(
    studio: Studio, open_page: OpenPage, scheme: str
) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    factories.make_matchup(studio.db)
    factories.judge_by(studio.db, factories.longer)
    freeze.freeze(studio.db, "round-1")
    run = runs.save_run(studio.db, Run(method="dpo", config={"dataset": "round-1"}))
    runs.transition_run(
        studio.db, run.id, expected=[RunState.queued], to=RunState.failed, started_at=now(), ended_at=now(),
        error="The run ran out of memory: lower micro_batch (now 4), then start it again.",
        result={"failure": "memory"},
    )  # fmt: skip
    log = studio.home.log_path(run.id)
    log.parent.mkdir(parents=True)
    log.write_text('Traceback (most recent call last):\n  File "a.py", line 1, in work\nMemoryError: no more\n')
    page = open_page(studio.start("--no-worker"), viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    open_tab(page, "Train")
    page.locator(f"[data-pick={run.id}]").click()
    card = page.locator("#run-detail")
    expect(card).to_contain_text("Out of memory")
    expect(card).to_contain_text("lower micro_batch (now 4)")
    traceback = card.get_by_label("Last traceback")
    expect(traceback).not_to_be_visible()
    card.locator("summary", has_text="Last traceback").click()
    expect(traceback).to_be_visible()
    expect(traceback).to_contain_text("MemoryError: no more")
