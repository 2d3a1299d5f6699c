"""The board on the Policies tab: three widths, light and dark, by mouse and by keyboard, empty and filled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from feedback.store.models import policies
from tests import factories
from tests.browser.conftest import Studio, open_tab, studio_in
from tests.browser.test_accessible import assert_accessible
from tests.browser.test_screen_layout import AXE

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Three policies that people and a rule compared, and one that met others too rarely."""
    with studio_in(tmp_path_factory.mktemp("measured")) as running:
        db = running.db
        start, better, best, late = (factories.make_policy(db, name) for name in ("start", "better", "best", "late"))
        policies.promote_policy(db, start.id)
        factories.compare_policies(db, better, start, wins=14, losses=6, ties=2)
        factories.compare_policies(db, best, better, wins=12, losses=7)
        factories.compare_policies(db, late, start, wins=1, losses=1)
        factories.make_win_rate(db, better, start, 0.7, kl=4.0, kl_error=0.3)
        factories.make_win_rate(db, best, start, 0.8, kl=9.0, kl_error=0.4)
        kl = math.log(4) - 3 / 4
        factories.make_win_rate(db, start, start, 0.65, best_of=4, best_of_kl=kl, picker="rm")
        yield running.start("--no-worker")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_board_reads_and_fits(measured: Studio, open_page: OpenPage, width: int, scheme: str) -> None:
    page = open_page(measured, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    open_tab(page, "Policies")
    expect(page.locator("#board-strengths tbody tr")).to_have_count(4)
    expect(page.locator("#board-strengths tbody tr").nth(0)).to_contain_text("best")
    expect(page.locator("#board-strengths tbody tr").nth(3)).to_contain_text("unknown: compared on 2 prompts")
    expect(page.locator("#board-distance .trace").first).to_be_attached()
    page.locator("#board-distance-figures summary").click()
    cell = page.locator(".matrix-pick", has_text="better over start")
    cell.click()
    expect(page.locator("#board-pair h4")).to_have_text("better over start")
    assert_accessible(page, "board", f"board-{width}-{scheme}")
    shown = page.locator("#board-pair tbody tr").first.locator("strong").inner_text()
    assert shown == "68.2 %"
    assert shown in page.locator("#board-pair .reasons li").first.inner_text()
    assert shown in page.locator("#policies-table tbody tr", has_text="better").first.inner_text()
    assert cell.locator("strong").inner_text() == "68 %"


@pytest.mark.slow
def test_a_judge_a_reference_and_two_policies_are_chosen_by_keyboard(measured: Studio, open_page: OpenPage) -> None:
    page = open_page(measured)
    open_tab(page, "Policies")
    expect(page.locator("#board-judge input")).to_have_value("people")
    choose(page, "#board-judge", "rule: shorter")
    expect(page.locator("#board-strengths thead")).to_contain_text("Verdicts")
    expect(page.locator("#board-distance-figures tbody tr")).to_have_count(3)
    choose(page, "#board-reference", "better")
    expect(page.locator("#board-strengths thead")).to_contain_text("Strength over better")
    page.locator(".matrix-pick", has_text="start over better").press("Enter")
    expect(page.locator("#board-pair h4")).to_have_text("start over better")
    page.locator("#pair-swap").press("Enter")
    expect(page.locator("#board-pair h4")).to_have_text("better over start")
    expect(page.locator("#pair-first input")).to_have_value("better")
    expect(page.locator("#pair-second input")).to_have_value("start")
    choose(page, "#pair-first", "late")
    choose(page, "#pair-second", "best")
    page.locator("#pair-compare").press("Enter")
    expect(page.locator("#board-pair")).to_contain_text("late was not measured over best")


@pytest.mark.slow
def test_the_board_follows_a_measurement_while_it_is_open(studio: Studio, open_page: OpenPage) -> None:
    start, new = (factories.make_policy(studio.db, name) for name in ("start", "new"))
    policies.promote_policy(studio.db, start.id)
    page = open_page(studio.start("--no-worker"))
    open_tab(page, "Policies")
    expect(page.locator("#board-strengths .notice")).to_contain_text("press “Measure win rate”")
    page.locator("#policies-table .pick", has_text="new").click()
    page.locator("#evaluate").wait_for()
    choose(page, "#judge", "rule: shorter")
    page.locator("#evaluate").click()  # a run is active from now on: the page looks again by itself
    expect(page.get_by_text("waits for the worker; its progress")).to_be_visible()
    factories.make_win_rate(studio.db, new, start, 0.7)
    expect(page.locator("#board-strengths .notice")).to_contain_text("Other judges have: rule: shorter.")
    choose(page, "#board-judge", "rule: shorter")
    expect(page.locator("#board-strengths tbody tr").first).to_contain_text("new")
    factories.make_win_rate(studio.db, new, start, 0.2)
    expect(page.locator("#board-strengths tbody tr").first).to_contain_text("start")


def choose(page: Page, dropdown: str, words: str) -> None:
    """Choose an entry of a dropdown with the keyboard alone."""
    field = page.locator(f"{dropdown} input")
    field.focus()
    field.press("Control+a")
    field.press_sequentially(words)
    options = page.locator(dropdown).get_by_role("option")
    expect(options).to_have_count(1)
    expect(page.locator(f"{dropdown} [role=option].active")).to_have_count(1)
    field.press("Enter")
    expect(options).to_have_count(0)
    expect(field).to_have_value(words)
