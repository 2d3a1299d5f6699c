"""What the labeling screen gives in low, narrow and wide windows: bar, swiping, drawer, what was saved, the goal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from feedback.store.labeling import settings
from feedback.types import Guidelines
from tests.browser.conftest import Studio, lease_of, press
from tests.browser.test_layout import CONTRAST, UNNAMED
from tests.browser.test_screen_layout import AXE, RUN_AXE, look
from tests.browser.worlds import empty_pool, put, put_pairs
from tests.factories import list_judgments

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
OpenPage = Callable[..., Page]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
ENLARGED = {"viewport": {"width": 640, "height": 450}}
SIDEWAYS = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture
def studio(desk: Studio) -> Studio:
    """The server with an empty pool."""
    empty_pool(desk.db)
    return desk


def put_long(studio: Studio, count: int = 1) -> None:
    """Pairs whose replies are longer than a phone, with a request of some lines."""
    for number in range(count):
        texts = [f"{side} {number}. " + "It goes on and on, and on again. " * 60 for side in ("One", "Other")]
        put(studio.db, texts, f"Why should I walk to work? Give me reasons, please, number {number}. " * 3)


def box_of(page: Page, selector: str) -> dict[str, float]:
    box = page.locator(selector).first.bounding_box()
    assert box, f"{selector} is not painted"
    return {**box, "right": box["x"] + box["width"], "bottom": box["y"] + box["height"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_enlarged_page_shows_the_request_and_both_replies(studio: Studio, open_page: OpenPage, scheme: str) -> None:
    put_long(studio)
    page = open_page(studio, color_scheme=scheme, **ENLARGED)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    bar, asked = box_of(page, "#verdicts"), box_of(page, ".prompt-card")
    left, right = box_of(page, ".reply-card.side-left"), box_of(page, ".reply-card.side-right")
    look(page, f"640-{scheme}-arrival")
    assert bar["height"] <= 48 and bar["bottom"] <= 451, "the bar is one row"
    assert 0 < asked["y"] < 160 and left["y"] == right["y"] < bar["y"] - 100, "four lines of each reply"
    assert left["right"] < right["x"] and right["right"] <= 640
    tools, counter = box_of(page, "#tools-menu"), box_of(page, ".counter")
    assert abs(tools["y"] + tools["height"] / 2 - counter["y"] - counter["height"] / 2) < 8, "one line above"
    assert_sound(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_one_row_of_verdicts_and_no_sideways_scroll(
    studio: Studio, open_page: OpenPage, scheme: str
) -> None:
    put_long(studio)
    page = open_page(studio, color_scheme=scheme, **PHONE)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert box_of(page, "#verdicts")["height"] <= 56
    assert_sound(page)
    page.locator("#strengths-menu").tap()
    assert box_of(page, "#verdicts")["height"] <= 110
    place = "document.querySelector('.prompt-card').getBoundingClientRect().top + scrollY"
    top = page.evaluate(place)
    page.locator("#tools-menu").tap()
    expect(page.locator(".tools [data-action=flag]")).to_be_visible()
    menu, tools = box_of(page, "#tools-list"), box_of(page, "#tools-menu")
    assert menu["x"] >= 0 and menu["right"] <= 390 and 0 <= menu["y"] - tools["bottom"] < 12, (
        "it hangs under its button"
    )
    assert page.evaluate(place) == top, "it moves nothing"
    look(page, f"390-{scheme}-unfolded")
    assert_sound(page)
    page.locator(".prompt-card").tap()
    expect(page.locator("#tools-list")).to_be_hidden()
    page.locator("#tools-menu").tap()
    page.keyboard.press("Escape")
    expect(page.locator("#tools-list")).to_be_hidden()


def assert_sound(page: Page) -> None:
    """Nothing scrolls sideways, all can be read and is named, and axe finds nothing serious."""
    assert page.evaluate(SIDEWAYS) <= 0
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(RUN_AXE) == []


def test_replies_are_read_at_16_pixels_in_two_hues(studio: Studio, open_page: OpenPage) -> None:
    put(studio.db, ["Plain words.", "# A heading\n\nAnd **strong** words."])
    page = open_page(studio, viewport={"width": 1280, "height": 900})
    sizes = "all => all.filter(e => e.checkVisibility()).map(e => parseFloat(getComputedStyle(e).fontSize))"
    shown = page.locator("#pair :is(.model-text, .rendered)").evaluate_all(sizes)
    assert len(shown) == 3 and min(shown) >= 16
    hue = "e => getComputedStyle(e).color"
    for name in (".reply-heading", "", ".strength"):
        at = (f".side-{side} > {name}" if name == ".reply-heading" else "" for side in ("left", "right"))
        left, right = [
            page.locator(one or f"button{name or '.main-verdict'}.side-{side}").first.evaluate(hue)
            for one, side in zip(at, ("left", "right"), strict=True)
        ]
        assert left != right, name
    assert page.locator(".reply-heading").all_inner_texts() == ["1\nLeft reply", "2\nRight reply"], "not by hue alone"


@pytest.mark.parametrize("width", [800, 1280, 1920])
def test_tools_stand_in_one_line(studio: Studio, open_page: OpenPage, width: int) -> None:
    put_pairs(studio.db, 2)
    settings.save_guidelines(studio.db, Guidelines(text="Be strict.", criteria=["Clear"]))
    page = open_page(studio, viewport={"width": width, "height": 900})
    expect(page.locator(".tools button:visible")).to_have_count(10)
    tops = page.locator(".tools button").evaluate_all("all => all.map(e => e.getBoundingClientRect().top)")
    assert len(set(tops)) == 1
    assert box_of(page, ".tools")["height"] <= 34


def test_a_phone_swipes_between_replies_under_both_headings(studio: Studio, open_page: OpenPage) -> None:
    put_long(studio, 3)
    page = open_page(studio, **PHONE)
    left, right = box_of(page, ".reply-card.side-left"), box_of(page, ".reply-card.side-right")
    assert left["x"] >= 0 and left["right"] < right["x"] < 390 < right["right"], "the edge of the other is in sight"
    assert page.locator(".reply-tab").evaluate_all("all => all.map(e => e.ariaPressed)") == ["true", "false"]
    swipe(page, 330, 60)
    expect(page.locator(".reply-tab").nth(1)).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(600)  # it snaps
    right = box_of(page, ".reply-card.side-right")
    assert 0 < right["x"] < 60 and right["right"] <= 390 - 8, "snapped to the whole of the other reply"
    swipe(page, 200, 200, 700, 200)
    page.wait_for_function("scrollY > 250")
    for tab in (".reply-tab.side-left", ".reply-tab.side-right"):
        assert 0 <= box_of(page, tab)["y"] < 20, "in sight far down in a reply"
    look(page, "390-far-down")
    page.locator(".reply-tab.side-left").tap()
    expect(page.locator(".reply-tab").nth(0)).to_have_attribute("aria-pressed", "true")
    page.wait_for_function("document.querySelector('#pair .replies').scrollLeft === 0")
    assert page.evaluate("scrollY") > 250, "a change of reply keeps the place"
    before = lease_of(page)
    page.locator("#vote-right").tap()
    page.wait_for_function("b => document.querySelector('#pair [data-lease]').dataset.lease !== b", arg=before)
    assert box_of(page, ".reply-card.side-left")["x"] >= 0, "the next pair begins on the left"


def swipe(page: Page, from_x: int, to_x: int, from_y: int = 600, to_y: int = 600) -> None:
    """Move a finger over the page, as a touch screen reports it."""
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": from_x, "y": from_y}]})
    for step in range(1, 11):
        at = {"x": from_x + (to_x - from_x) * step / 10, "y": from_y + (to_y - from_y) * step / 10}
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at]})
        page.wait_for_timeout(16)
    page.wait_for_timeout(200)  # the finger rests, so the page does not run on, which would take the next tap
    touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": to_x, "y": to_y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    touch.detach()


def test_words_are_selected_in_a_narrow_window_without_moving_the_replies(studio: Studio, open_page: OpenPage) -> None:
    put_long(studio)
    page = open_page(studio, viewport={"width": 390, "height": 844})
    words = box_of(page, ".reply-card.side-left .model-text")
    page.mouse.move(words["x"] + 60, words["y"] + 40)
    page.mouse.down()
    page.mouse.move(words["x"] + 220, words["y"] + 40, steps=6)
    page.mouse.up()
    assert len(page.evaluate("String(getSelection())")) > 5
    assert page.evaluate("document.querySelector('#pair .replies').scrollLeft") == 0
    page.locator("#pair .replies").focus()  # and the arrow keys move them
    page.keyboard.press("ArrowRight")
    expect(page.locator(".reply-tab").nth(1)).to_have_attribute("aria-pressed", "true")


def test_in_a_wide_window_nothing_is_swiped(studio: Studio, open_page: OpenPage) -> None:
    put_long(studio)
    page = open_page(studio, viewport={"width": 1280, "height": 900})
    expect(page.locator(".reply-tabs")).to_be_hidden()
    assert page.locator("#pair .replies").get_attribute("tabindex") is None
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator(".reply-tabs")).to_be_visible()
    expect(page.locator("#pair .replies")).to_have_attribute("tabindex", "0")


def test_the_guidelines_open_once_when_they_changed(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 6)
    settings.save_guidelines(studio.db, Guidelines(text="Be strict."))
    page = open_page(studio, viewport={"width": 1000, "height": 900})
    drawer, body = page.locator("#guidelines-details"), page.locator("#guidelines-body")
    expect(drawer).to_be_hidden()
    settings.save_guidelines(studio.db, Guidelines(text="Be kind."))
    top = box_of(page, ".reply-card.side-left")["y"]
    press(page, "1")
    expect(body).to_contain_text("Be kind.")
    expect(body).to_be_visible()
    expect(page.locator("#guidelines-news")).to_be_visible()
    expect(page.locator("#label-says")).to_contain_text("The guidelines have changed.")
    look(page, "1000-drawer")
    place = box_of(page, "#guidelines-details")
    assert place["right"] == 1000 and place["y"] == 0 and 300 <= place["width"] <= 420, "on the right, over the page"
    assert box_of(page, ".reply-card.side-left")["y"] == top, "it moves nothing"
    press(page, "2")  # it takes no key
    expect(body).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    for _ in range(2):
        page.reload()
        page.wait_for_selector("#pair .pair")
        page.wait_for_timeout(500)
        expect(drawer).to_be_hidden()
    page.locator("#guidelines-open").click()
    expect(body).to_be_visible()
    expect(page.locator("#guidelines-news")).to_be_hidden()
    expect(page.locator("#guidelines-open")).to_have_attribute("aria-expanded", "true")
    page.locator("#guidelines-details summary").click()
    expect(drawer).to_be_hidden()


def test_a_drawer_that_opens_by_itself_covers_nothing_where_there_is_room(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    settings.save_guidelines(studio.db, Guidelines(text="Be strict."))
    page = open_page(studio, viewport={"width": 1280, "height": 900})
    settings.save_guidelines(studio.db, Guidelines(text="Be kind.", asks_rationale=True))
    press(page, "1")
    expect(page.locator("#guidelines-body")).to_be_visible()
    look(page, "1280-drawer")
    drawer, reply = box_of(page, "#guidelines-details"), box_of(page, ".reply-card.side-right")
    assert reply["right"] <= drawer["x"] and drawer["right"] <= 1280
    assert drawer["bottom"] <= box_of(page, "#verdicts")["y"], "nor the buttons"
    assert box_of(page, ".drawer-close")["right"] < drawer["right"], "its heading fits"
    assert box_of(page, "#guidelines-details summary")["height"] < 48
    page.locator("#panel-note .panel-close").click()
    assert page.evaluate(SIDEWAYS) <= 0


def test_guidelines_beside_the_task_give_their_room_back(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio, viewport={"width": 1600, "height": 900})
    expect(page.locator("#guidelines-body")).to_be_visible()
    narrow = box_of(page, "#pair")["width"]
    page.keyboard.press("g")
    expect(page.locator("#guidelines-details")).to_be_hidden()
    assert box_of(page, "#pair")["width"] > narrow + 250
    page.reload()
    page.wait_for_selector("#pair .pair")
    expect(page.locator("#guidelines-details")).to_be_hidden()


def test_what_was_saved_is_told_with_a_way_to_undo_it(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 4)
    page = open_page(studio, **PHONE)
    page.clock.install()
    first = lease_of(page)
    page.locator("#vote-left").tap()
    told = page.locator("#label-says")
    expect(told).to_contain_text("Saved: left.")
    page.wait_for_function("b => document.querySelector('#pair [data-lease]').dataset.lease !== b", arg=first)
    assert (told.get_attribute("role"), told.get_attribute("aria-live")) == ("status", "polite")
    undo = told.get_by_role("button", name="Undo")
    look(page, "390-saved")
    place = box_of(page, "#label-says button")
    assert place["height"] >= 24 and place["right"] <= 390
    done = len(list_judgments(studio.db, current_only=True))
    undo.tap()
    expect(told).to_contain_text("Taken back")
    expect(undo).to_have_count(0)
    assert len(list_judgments(studio.db, current_only=True)) == done - 1
    expect(told).to_be_visible()
    page.clock.run_for(9_000)
    expect(told).to_be_hidden()  # it has been read; what went wrong would stay
    page.locator("#vote-right").tap()
    expect(told).to_be_visible()
    expect(told).to_contain_text("Saved: right.")


def test_a_failure_stays_until_the_next_press(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio, **PHONE)
    page.clock.install()
    page.route("**/api/label/vote", lambda route: route.abort(), times=1)
    page.locator("#vote-left").tap()
    told = page.locator("#label-says")
    expect(told).to_contain_text("not saved yet")
    page.clock.run_for(20_000)
    expect(told).to_be_visible()
    assert box_of(page, "#verdicts")["height"] <= 56, "what is said beside the buttons takes no room"


def test_a_goal_for_the_day_counts_and_is_changed_by_clicking_it(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 6)
    page = open_page(studio, viewport={"width": 1280, "height": 900})
    goal = page.locator("#goal")
    expect(goal).to_contain_text(" of 50 today")
    before = int(goal.inner_text().removeprefix("✓ ").split()[0])
    for key in ("1", "s"):
        press(page, key)
    expect(goal).to_have_text(f"{before + 2} of 50 today")
    press(page, "u")
    expect(goal).to_have_text(f"{before + 1} of 50 today")
    lease = lease_of(page)
    goal.click()
    field = page.get_by_role("spinbutton", name="Your goal for a day")
    expect(field).to_be_focused()
    page.keyboard.type(str(before + 2))  # digits judge nothing here
    page.keyboard.press("Enter")
    expect(goal).to_have_text(f"{before + 1} of {before + 2} today")
    assert lease_of(page) == lease
    goal.click()
    page.keyboard.type("7000")
    page.keyboard.press("Escape")
    expect(goal).to_have_text(f"{before + 1} of {before + 2} today")
    press(page, "2")
    expect(goal).to_have_text(f"✓ {before + 2} of {before + 2} today")
    look(page, "1280-goal")
    page.reload()
    expect(goal).to_have_text(f"✓ {before + 2} of {before + 2} today")
    other = open_page(studio, viewport={"width": 390, "height": 844})  # the goal is this browser's
    expect(other.locator("#goal")).to_have_text(f"{before + 2} of 50 today")
