"""What a reviewer writes reaches the annotator: it takes no focus, moves nothing, and can be put away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from feedback.store.labeling import reviews
from feedback.store.models import policies
from tests import factories
from tests.browser.conftest import Studio, lease_of, open_tab, press
from tests.browser.worlds import put_pairs

pytestmark = pytest.mark.timeout(240)
OpenPage = Callable[..., Page]
WHERE = """() => [...document.querySelectorAll('#pair .prompt-card, .reply-card, #vote-left, #label-tools')]
  .map(e => { const box = e.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })"""


@pytest.fixture
def judged(studio: Studio) -> Studio:
    """A studio whose one annotator has judged, so that there is somebody to write to."""
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "author-of-all").id)
    put_pairs(studio.db, 8)
    factories.judge_by(studio.db, factories.longer, annotator="local", count=1)
    return studio.start("--no-worker")


@pytest.mark.slow
def test_a_reviewers_message_comes_to_the_annotator_and_moves_nothing(judged: Studio, open_page: OpenPage) -> None:
    page = open_page(judged, viewport={"width": 1280, "height": 800})
    card = page.locator("#reviewer-message")
    expect(card).to_be_hidden()
    page.keyboard.press("n")
    page.keyboard.type("half a thought")
    before, lease = page.evaluate(WHERE), lease_of(page)
    reviews.save_message(judged.db, "local", "rex", "Please read to the end.\nThe last line matters.")
    page.evaluate("window.studio.acts.refresh()")
    expect(card).to_contain_text("Please read to the end.")
    assert page.evaluate("document.activeElement.id") == "note-text", "focus stays where somebody types"
    assert (page.evaluate(WHERE), lease_of(page)) == (before, lease)
    page.keyboard.type(", ended")
    expect(page.locator("#note-text")).to_have_value("half a thought, ended")
    assert "rex" not in card.inner_text(), "who wrote it is not told"
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    expect(card).to_be_hidden()
    assert (page.evaluate(WHERE)[0], lease_of(page)) == (before[0], lease)
    page.reload()
    page.wait_for_selector("#pair .pair")
    page.keyboard.press("p")
    expect(page.locator("#figures-body")).to_contain_text("The last line matters.")  # put away is not lost
    expect(card).to_be_hidden()


@pytest.mark.slow
def test_several_messages_come_one_after_the_other_with_the_votes(judged: Studio, open_page: OpenPage) -> None:
    page = open_page(judged)
    for words in ("The first.", "The second."):
        reviews.save_message(judged.db, "local", "rex", words)
    reviews.save_message(judged.db, "local", "rex", "The third.")
    press(page, "1")
    card = page.locator("#reviewer-message")
    expect(card).to_contain_text("1 of 3")
    expect(card).to_contain_text("The third.")
    page.locator("#reviewer-message button").click()
    expect(card).to_contain_text("1 of 2")
    press(page, "2")  # it does not stand in the way of the next vote
    for _ in range(2):
        page.keyboard.press("i")
    expect(card).to_be_hidden()
    expect(page.locator(".count-done")).to_have_text("3 judged by you")


@pytest.mark.slow
def test_a_message_sent_on_the_review_tab_arrives(judged: Studio, open_page: OpenPage) -> None:
    page = open_page(judged)
    open_tab(page, "Review")
    page.locator("#annotators-table .pick", has_text="local").click()
    page.locator("#review-reason textarea").fill("Look at the facts <b>first</b>.")
    page.locator("#act-message").click()
    expect(page.locator("#review-log")).to_contain_text("Look at the facts <b>first</b>.")
    open_tab(page, "Label")
    expect(page.locator("#reviewer-message-text")).to_have_text("Look at the facts <b>first</b>.")
