"""A page enlarged to 200 %, and one on a phone: what is judged is in sight, and no field makes the page jump."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Studio, open_tab, studio_in
from tests.browser.worlds import put, put_pairs
from tests.factories import list_judgments

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]
SIZES = """() => [...document.querySelectorAll('input, textarea, select')]
  .filter((one) => !['radio', 'checkbox', 'range', 'hidden'].includes(one.type))
  .map((one) => [one.id || one.closest('[id]')?.id, parseFloat(getComputedStyle(one).fontSize)])
  .filter(([, size]) => size < 16)"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with studio_in(tmp_path_factory.mktemp("low")) as running:
        put(running.db, ["A reply of some words. " * 8, "Another one of some words. " * 8], "What is asked? " * 3)
        put_pairs(running.db, 3)
        yield running.start("--no-worker")


@pytest.mark.slow
def test_at_200_percent_the_request_and_the_replies_are_in_sight(studio: Studio, open_page: OpenPage) -> None:
    page = open_page(studio, viewport={"width": 640, "height": 450})
    bar = page.locator("#verdicts").bounding_box()
    assert bar and bar["height"] <= 60, "one row"
    for part in (".prompt-card", ".reply-card >> nth=0", ".reply-card >> nth=1"):
        box = page.locator(f"#pair {part}").bounding_box()
        assert box and box["y"] + 20 < bar["y"], f"{part} begins above the bar"
    expect(page.locator(".tools [data-action=note]")).to_be_hidden()
    page.locator("#tools-menu").click()
    page.locator(".tools [data-action=note]").click()
    expect(page.locator("#note-text")).to_be_focused()
    expect(page.locator(".tools [data-action=flag]")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#vote-left-2")).to_be_hidden()
    page.locator("#strengths-menu").click()
    page.locator("#vote-left-2").click()
    expect(page.locator("#label-says")).to_contain_text("Saved: left is clearly better.")
    expect(page.locator("#vote-left-2")).to_be_hidden()
    assert list_judgments(studio.db)[-1].strength == 2


def test_in_a_high_window_nothing_is_folded(studio: Studio, open_page: OpenPage) -> None:
    page = open_page(studio, viewport={"width": 1280, "height": 900})
    expect(page.locator("#tools-menu")).to_be_hidden()
    expect(page.locator("#strengths-menu")).to_be_hidden()
    expect(page.locator(".tools [data-action=flag]")).to_be_visible()
    expect(page.locator("#vote-left-2")).to_be_visible()


def test_no_field_on_a_phone_is_smaller_than_16_pixels(studio: Studio, open_page: OpenPage) -> None:
    page = open_page(studio, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate(SIZES) == []
    for tab in ("Train", "Datasets", "People", "Review"):
        open_tab(page, tab)
        assert page.evaluate(SIZES) == [], tab


def test_what_is_judged_is_not_translated(studio: Studio, open_page: OpenPage) -> None:
    page = open_page(studio)
    assert page.locator("#pair .written:not([translate=no])").count() == 0
    assert page.locator("#pair .written[translate=no]").count() >= 3
