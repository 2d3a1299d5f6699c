"""The Overview as a researcher uses it: a recipe is started, watched, paused, decided, forked and cancelled."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from feedback.store.models import policies
from feedback.store.models.rounds import get_recipe, last_round, list_recipes
from feedback.store.models.runs import list_runs
from feedback.types import RecipeState, RunState, Split
from studio.security import accounts as users
from tests import factories
from tests.browser.conftest import Studio, open_tab
from tests.browser.test_layout import CONTRAST, UNNAMED
from tests.browser.test_people import PASSWORD, sign_in
from tests.browser.test_screen_layout import AXE, RUN_AXE
from tests.pretended_runs import PretendedRuns
from training.rounds.advance import advance

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]
WIDTHS = (390, 1280, 1920)


def furnish(studio: Studio) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    for _ in range(12):
        factories.make_prompt(studio.db)
        factories.make_prompt(studio.db, split=Split.evaluation)


def turn(studio: Studio, name: str, until: str) -> None:
    """What the worker would do, with pretended runs, until the round is in a state."""
    work = PretendedRuns(studio.db)
    for _ in range(20):
        advance(studio.db, studio.home, name)
        if last_round(studio.db, get_recipe(studio.db, name).id).state.value == until:
            return
        for run in list_runs(studio.db, states=[RunState.queued]):
            if run.method != "generate" or "batch" in run.config:  # not the fill of the usual pool
                work(run)
    raise AssertionError(f"never {until}")


def start(page: Page, pairs: int) -> None:
    page.get_by_role("button", name="Start a round").click()
    expect(page.locator("#recipe-name input")).to_have_value("loop-1")
    expect(page.locator("#recipe-name input")).to_be_focused()
    page.locator("#recipe-pairs input").fill(str(pairs))
    page.locator("#recipe-evaluator input").click()
    page.get_by_role("option", name="rule: shorter").click()
    page.locator("#recipe-start").click()
    expect(page.locator("#overview-round h2")).to_have_text("loop-1")


def assert_accessible(page: Page, where: str) -> None:
    page.wait_for_function("!document.querySelector('.toast-body')")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{where} scrolls sideways"
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for found in (CONTRAST, UNNAMED, RUN_AXE):
        assert page.evaluate(found) == [], where


@pytest.mark.slow
def test_a_recipe_is_started_watched_paused_and_decided(studio: Studio, open_page: OpenPage) -> None:
    furnish(studio)
    page = open_page(studio.start("--no-worker"), tab="")
    expect(page.locator(".overview-welcome")).to_contain_text("trains a language model on what people prefer")
    start(page, pairs=6)
    panel = page.locator("#overview-round")
    expect(panel.locator("[aria-current=step]")).to_contain_text("Fill")
    expect(panel).to_contain_text("No worker is running")

    turn(studio, "loop-1", "labeling")  # the page looks by itself
    expect(panel.locator("[aria-current=step]")).to_contain_text("0 of 6 judged")
    factories.judge_by(studio.db, factories.longer, annotator="ada", count=2)
    expect(panel.locator("[aria-current=step]")).to_contain_text("2 of 6 judged")
    panel.get_by_role("button", name="Pause").click()
    expect(panel.locator(".next-step")).to_contain_text("Paused: paused by a person.")
    assert get_recipe(studio.db, "loop-1").state is RecipeState.paused
    panel.get_by_role("button", name="Resume").click()
    expect(panel.get_by_role("link", name="Label pairs")).to_be_visible()
    assert get_recipe(studio.db, "loop-1").state is RecipeState.active
    panel.get_by_role("link", name="Label pairs").click()
    expect(page.locator("#pair .pair")).to_be_visible()
    page.go_back()
    expect(panel).to_be_visible()

    panel.get_by_role("button", name="Skip to training").click()
    expect(page.locator(".toast-body").filter(has_text="waits no longer")).to_be_visible()
    turn(studio, "loop-1", "gate")
    expect(panel.locator("[aria-current=step]")).to_contain_text("Gate")
    expect(panel.locator(".gate-found li").first).to_be_visible()
    expect(page.locator("#rate-plot .scatterlayer .trace").first).to_be_attached()
    expect(page.locator("#day-plot .trace.bars").first).to_be_attached()
    panel.get_by_role("button", name="Promote", exact=True).click()
    expect(panel.locator(".next-step")).to_contain_text("Decided: promote")
    turn(studio, "loop-1", "filling")
    expect(page.locator("#overview-champions")).to_contain_text(re.compile("loop-1-1.*starter", re.DOTALL))
    expect(page.locator("#overview-history tbody tr")).to_have_count(2)


@pytest.mark.slow
def test_a_recipe_is_forked_and_cancelled_after_a_question(studio: Studio, open_page: OpenPage) -> None:
    furnish(studio)
    page = open_page(studio.start("--no-worker"), tab="")
    start(page, pairs=6)
    panel = page.locator("#overview-round")
    panel.get_by_role("button", name="Fork").click()
    expect(page.locator("#recipe-title")).to_contain_text("Fork of loop-1")
    expect(page.locator("#recipe-pairs input")).to_have_value("6")
    page.locator("#recipe-rounds input").fill("5")
    page.locator("#recipe-start").click()
    expect(panel.locator("h2")).to_have_text("loop-1-2")
    forked, first = list_recipes(studio.db)
    assert forked.forked_from == first.id
    assert (forked.settings["pairs"], forked.settings["rounds"], forked.settings["evaluator"]) == (6, 5, "shorter")
    panel.locator("summary", has_text="Cancel").click()
    turn(studio, "loop-1-2", "labeling")  # the panel is written anew under the question
    expect(panel.locator("[aria-current=step]")).to_contain_text("0 of 6 judged")
    panel.get_by_role("button", name="No, go on").click()
    expect(panel.locator("summary", has_text="Cancel")).to_be_focused()
    expect(panel.get_by_role("button", name="Yes, cancel it")).to_be_hidden()
    panel.locator("summary", has_text="Cancel").press("Enter")
    panel.get_by_role("button", name="Yes, cancel it").click()
    expect(panel.locator(".detail-head")).to_contain_text("cancelled")
    assert get_recipe(studio.db, "loop-1").state is RecipeState.active
    page.locator("#overview-recipes .pick", has_text=re.compile("^loop-1$")).click()
    expect(panel.locator("h2")).to_have_text("loop-1")
    page.wait_for_function("id => location.hash === `#overview/${id}`", arg=first.id)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_overview_fits_and_reads(studio: Studio, open_page: OpenPage, scheme: str) -> None:
    furnish(studio)
    studio.start("--no-worker")
    for width in WIDTHS:
        size = {"width": width, "height": 900}
        page = open_page(studio, tab="", viewport=size, color_scheme=scheme)
        page.get_by_role("button", name="Start a round").click()
        expect(page.locator("#recipe-form")).to_be_visible()
        assert_accessible(page, f"empty {width}")
    start_at = open_page(studio, tab="")
    start(start_at, pairs=6)
    turn(studio, "loop-1", "labeling")
    factories.judge_by(studio.db, factories.longer, annotator="ada & <b>bob</b>", count=6)
    turn(studio, "loop-1", "gate")
    for width in WIDTHS:
        page = open_page(studio, tab="", viewport={"width": width, "height": 900}, color_scheme=scheme)
        expect(page.locator("#rate-plot .trace").first).to_be_attached()
        for folded in page.locator("#overview-rates summary, #overview-days summary").all():
            folded.click()
        assert_accessible(page, f"gate {width}")


@pytest.mark.slow
def test_the_first_tab_depends_on_the_role(studio: Studio, browser: Browser) -> None:
    furnish(studio)
    factories.make_matchup(studio.db)
    roles = {"ada": "admin", "rex": "researcher", "rev": "reviewer", "ann": "annotator"}
    for name, role in roles.items():
        users.add_user(studio.db, name, role, actor="test", password=PASSWORD)
    studio.start("--no-worker")
    for name in roles:
        context = browser.new_context()
        page = context.new_page()
        sign_in(page, f"{studio.url}/", name)
        first = "Overview" if name in ("ada", "rex") else "Label"
        expect(page.locator("[data-role]")).to_be_attached()
        expect(page.get_by_role("tab", name=first, exact=True)).to_have_attribute("aria-selected", "true")
        expect(page.locator(f"#{first.lower()}-tab")).to_be_visible()
        expect(page.get_by_role("tab", name="Overview", exact=True)).to_be_visible(visible=first == "Overview")
        assert not page.evaluate("location.hash")
        page.evaluate("location.hash = '#overview'")
        page.wait_for_timeout(500)
        expect(page.get_by_role("tab", name=first, exact=True)).to_have_attribute("aria-selected", "true")
        if first == "Overview":
            open_tab(page, "Label")
        context.close()
