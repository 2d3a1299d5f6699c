"""Several windows of one person, presses on other keyboards, and what is said of each act."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from feedback.tables import JudgmentRow
from feedback.types import JudgmentState, Verdict
from tests.browser.conftest import Studio, lease_of, press, until
from tests.browser.worlds import empty_pool, put, put_pairs
from tests.factories import count_judgments, list_judgments

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]


@pytest.fixture
def studio(desk: Studio) -> Studio:
    """The server with an empty pool."""
    empty_pool(desk.db)
    return desk


def last(studio: Studio) -> JudgmentRow:
    return list_judgments(studio.db, current_only=True)[-1]


def count(studio: Studio) -> int:
    return count_judgments(studio.db)


def key(page: Page, name: str, code: str, **more: object) -> None:
    """A press as a keyboard of another layout sends it."""
    event = {"key": name, "code": code, "bubbles": True, "cancelable": True, **more}
    page.evaluate("event => document.body.dispatchEvent(new KeyboardEvent('keydown', event))", event)


def next_pair(page: Page, before: str) -> None:
    page.wait_for_function("b => document.querySelector('#pair [data-lease]')?.dataset.lease !== b", arg=before)


def says(page: Page, text: str) -> None:
    expect(page.locator("#label-says")).to_contain_text(text)


@pytest.mark.slow
def test_a_closed_window_gives_its_pairs_to_the_next_one_of_the_same_person(
    studio: Studio, open_page: OpenPage, browser
) -> None:
    put_pairs(studio.db, 2)
    for _ in range(3):
        context = browser.new_context()
        page = open_page(studio, context=context)
        expect(page.locator("#pair .pair")).to_be_visible()
        expect(page.locator(".count-left")).to_have_text("2 open for you")
        page.close()
        context.close()
    page = open_page(studio)
    press(page, "1")
    press(page, "2")


@pytest.mark.slow
def test_what_an_open_window_holds_is_told_to_another_one(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    first = open_page(studio)
    until(first, lambda: first.evaluate("window.studio.deck().length") == 2)
    second = open_page(studio)
    expect(second.locator("#pair .notice-warn h3")).to_contain_text("2 are open in other windows until")
    expect(second.locator(".count-left")).to_have_text("0 open for you")
    expect(second.locator(".count-elsewhere")).to_contain_text("2 are open in other windows")
    first.close()
    expect(second.locator("#pair .pair")).to_be_visible()


def test_a_reload_shows_the_same_pair(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    before = lease_of(page)
    page.reload()
    page.wait_for_selector("#pair .pair")
    assert lease_of(page) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code", "verdict"),
    [
        ("е", "KeyT", Verdict.tie),
        ("ч", "KeyX", Verdict.both_bad),
        ("ㄴ", "KeyS", Verdict.skip),
        ("τ", "KeyT", Verdict.tie),
    ],
)
def test_letters_of_other_scripts_are_read_by_their_place(
    studio: Studio, open_page: OpenPage, name: str, code: str, verdict: Verdict
) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio)
    before = lease_of(page)
    key(page, name, code)
    next_pair(page, before)
    assert last(studio).verdict is verdict


def test_signs_of_other_layouts_reach_their_act_and_a_latin_letter_keeps_its_own(
    studio: Studio, open_page: OpenPage
) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    key(page, "?", "Digit7", shiftKey=True)  # Russian
    expect(page.locator("#keys-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    before = lease_of(page)
    key(page, "k", "KeyT")  # Dvorak and the like: the sign counts, and K does nothing
    page.wait_for_timeout(300)
    assert lease_of(page) == before and not count_of(studio, before)
    key(page, "t", "KeyK")
    next_pair(page, before)
    assert last(studio).verdict is Verdict.tie


def count_of(studio: Studio, lease: str) -> int:
    return sum(row.lease_id == lease for row in list_judgments(studio.db))


def test_no_press_with_a_modifier_judges(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio)
    before = lease_of(page)
    for more in ({"modifierAltGraph": True}, {"altKey": True}, {"ctrlKey": True, "altKey": True}, {"metaKey": True}):
        for name, code in (("1", "Digit1"), ("¹", "Digit1"), ("t", "KeyT"), ("Enter", "Enter")):
            key(page, name, code, **more)
    page.wait_for_timeout(500)
    assert lease_of(page) == before and not count_of(studio, before)


def test_a_vote_with_the_mouse_leaves_no_focus_on_a_button_that_would_judge_the_next_pair(
    studio: Studio, open_page: OpenPage
) -> None:
    put_pairs(studio.db, 9)
    page = open_page(studio)
    for button in ("#vote-left", "#vote-right-2", "#vote-tie", "#vote-skip", "#vote-undo"):
        before = lease_of(page)
        page.locator(button).click()
        next_pair(page, before)
        page.wait_for_selector("#pair:not([aria-busy])")
        shown, judged = lease_of(page), count(studio)
        assert not page.evaluate("document.activeElement.closest('button')")
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        page.wait_for_timeout(400)
        assert (lease_of(page), count(studio)) == (shown, judged), button


def test_a_vote_by_a_focused_button_moves_the_focus_to_the_next_pair(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    before = lease_of(page)
    page.locator("#vote-left").focus()
    page.keyboard.press("Enter")
    next_pair(page, before)
    assert page.evaluate("document.activeElement.dataset.lease") == lease_of(page)


def test_a_ranking_by_mouse_leaves_no_focus_either(studio: Studio, open_page: OpenPage) -> None:
    put(studio.db, ["one", "two", "three"])
    put(studio.db, ["four", "five", "six"], "Another?")
    page = open_page(studio)
    before = lease_of(page)
    for index in (2, 0, 1):
        page.locator("#pair .rank-pick").nth(index).click()
    page.locator("#rank-submit").click()
    next_pair(page, before)
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert count_of(studio, lease_of(page)) == 0
    says(page, "Saved: 3 > 1 > 2.")


def test_every_act_is_said(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 4)
    page = open_page(studio)
    line = page.locator("#label-says")
    assert line.get_attribute("role") == "status" and line.get_attribute("aria-live") == "polite"
    press(page, "1")
    says(page, "Saved: left.")
    says(page, "Next request: Request 1?")
    press(page, "7")
    says(page, "Saved: right is clearly better.")
    press(page, "s")
    says(page, "Skipped. Next request: Request 3?")
    press(page, "u")
    says(page, "Taken back")
    says(page, "Request: Request 2?")
    press(page, "t")
    says(page, "Saved: tie.")
    press(page, "x")
    says(page, "Saved: both bad. No pair is left for now.")


def test_typed_and_judged_at_once_leaves_no_line_behind_on_an_empty_screen(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 1)
    page = open_page(studio)
    page.keyboard.press("n")
    page.locator("#note-text").fill("because")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("1")
    expect(page.locator("#pair .pair-empty")).to_be_visible()
    expect(page.locator("#draft-state")).to_have_text("")
    assert last(studio).rationale == "because"
    put(studio.db, ["one", "two", "three"], "Rank?")
    page.wait_for_selector("#pair .pair")
    for digit in "123":
        page.keyboard.press(digit)
    page.keyboard.press("Enter")
    expect(page.locator("#pair .pair-empty")).to_be_visible()
    page.wait_for_timeout(600)
    expect(page.locator("#draft-state")).to_have_text("")


@pytest.mark.slow
def test_a_note_typed_in_a_window_that_was_late_is_offered_for_the_saved_judgment(
    studio: Studio, open_page: OpenPage
) -> None:
    put_pairs(studio.db, 3)
    first = open_page(studio)
    second = open_page(studio, context=first.context)
    before = lease_of(first)
    assert lease_of(second) == before
    first.keyboard.press("n")
    first.locator("#note-text").fill("It is kinder.")
    press(second, "2")
    next_pair(first, before)  # it heard of it before it could vote
    card = first.locator("#late-words")
    expect(card).to_be_visible()
    expect(card).to_contain_text("It is kinder.")
    first.reload()
    expect(card).to_contain_text("It is kinder.")
    first.locator("#late-words-add").click()
    says(first, "Added to the saved judgment.")
    expect(card).to_be_hidden()
    row = next(one for one in list_judgments(studio.db) if one.rationale == "It is kinder.")
    assert (row.revision, row.state) == (2, JudgmentState.current)


@pytest.mark.slow
def test_a_note_sent_with_a_vote_that_came_second_is_offered_too(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    before = lease_of(page)
    page.keyboard.press("n")
    page.locator("#note-text").fill("Because of the tone.")
    page.evaluate("document.activeElement.blur()")
    answered = page.request.post(
        f"{studio.url}/api/judgments", data={"lease": before, "annotator": "local", "verdict": "right"}
    )
    assert answered.status == 201
    page.keyboard.press("1")
    next_pair(page, before)
    says(page, "Already judged in another window")
    expect(page.locator("#late-words")).to_contain_text("Because of the tone.")
    page.locator("#late-words-drop").click()
    expect(page.locator("#late-words")).to_be_hidden()


@pytest.mark.slow
def test_lost_words_of_several_pairs_are_sent_once_each_round(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    sent: list[str] = []
    page.route("**/api/label/late", lambda route: (sent.append(route.request.url), route.abort()))
    for lease in ("lea-one", "lea-two", "lea-three"):
        page.evaluate("lease => window.studio.rescue(lease, {rationale: 'Because.'})", lease)
    page.wait_for_timeout(10_500)  # three more rounds, three seconds apart
    page.unroute_all(behavior="wait")
    assert 6 <= len(sent) <= 12


@pytest.mark.slow_except("reload")
@pytest.mark.parametrize("failure", ["away", "busy", "reload"])
def test_words_whose_pair_went_elsewhere_are_sent_until_they_arrive(
    studio: Studio, open_page: OpenPage, failure: str
) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    before = lease_of(page)
    page.keyboard.press("n")
    page.locator("#note-text").fill("Because of the tone.")
    page.evaluate("document.activeElement.blur()")
    page.request.post(f"{studio.url}/api/judgments", data={"lease": before, "annotator": "local", "verdict": "right"})
    lost: list[str] = []

    def lose(route: Route) -> None:
        lost.append(route.request.url)
        route.fulfill(status=503, body='{"detail": "Busy."}') if failure == "busy" else route.abort()

    page.route("**/api/label/late", lose, times=1)
    page.evaluate("window.studio.acts.refresh()")
    if failure == "reload":
        until(page, lambda: lost)
        page.reload()
    expect(page.locator("#late-words")).to_contain_text("Because of the tone.", timeout=10_000)
    assert lost


def test_keys_of_the_browser_are_not_taken_for_an_act(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio)
    page.keyboard.press("?")
    page.locator("[data-change=tie]").click()
    for name, code, more in (
        ("F5", "F5", {}),
        ("k", "KeyK", {"ctrlKey": True}),
        ("k", "KeyK", {"altKey": True}),
        ("PageDown", "PageDown", {}),
    ):
        key(page, name, code, **more)
        expect(page.locator("#keys-says")).to_contain_text("belongs to the browser")
        expect(page.locator("[data-change=tie]")).to_have_text("Press a key …")
    key(page, "k", "KeyK")
    expect(page.locator("#keys-says")).to_contain_text("is now K")
    expect(page.locator("#vote-tie kbd")).to_have_text("K")
