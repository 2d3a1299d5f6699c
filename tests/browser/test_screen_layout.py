"""The labeling screen by keyboard at three widths, light and dark: it fits, reads, and axe finds nothing serious.

With ``$STUDIO_SHOTS`` naming a folder, each step leaves a screenshot there to be looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from feedback.store.labeling import settings
from feedback.store.models import policies
from feedback.types import Guidelines
from tests import factories
from tests.browser.conftest import Studio, press, studio_in
from tests.browser.test_layout import CONTRAST, UNNAMED
from tests.browser.worlds import empty_pool, put, put_all_kinds
from tests.factories import count_judgments

pytestmark = pytest.mark.timeout(400)
OpenPage = Callable[..., Page]
AXE = Path(__file__).parent / "axe" / "axe.min.js"
RUN_AXE = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
  .filter(found => ['serious', 'critical'].includes(found.impact))
  .map(found => found.id + ': ' + found.nodes.map(node => node.html.slice(0, 160)).join(' | '))"""

# What is pressed, one step after another, and what is seen then: every item of the screen.
STEPS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("conversation", (), "#pair .rendered math"),
    ("raw", ("r",), "#pair .has-format > .model-text"),
    ("guidelines", ("r", "g"), "#guidelines-body"),
    ("marks", ("g", "m", "Shift+ArrowRight", "+"), "#marks-list li"),
    ("edit", ("Escape", "e", "1", "End", "!"), "#edit-diff mark"),
    ("note", ("Escape", "n", "W", "h", "y"), "#panel-note"),
    ("ratings", ("Escape", "c"), "#criteria-table fieldset"),
    ("flag", ("c", "f"), "#panel-flag [data-reason]"),
    ("skip", ("Escape", "Shift+S"), "#panel-skip [data-reason]"),
    ("keys", ("Escape", "?"), "#keys-dialog[open]"),
    ("figures", ("Escape", "p"), "#figures-body dl"),
    ("right to left", ("Escape", "VOTE 3"), "#pair .pair"),
    ("differences", ("VOTE x", "d"), "#pair .diff-view mark"),
    ("ranking of five", ("d", "VOTE 2", "3", "1", "Shift+Digit2"), ".place:not(:empty)"),
    ("ranking of nine", ("t", "VOTE Enter", "9", "t"), "#rank-submit.ready"),
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with studio_in(tmp_path_factory.mktemp("desk")) as running:
        policies.promote_policy(running.db, factories.make_policy(running.db, "author-of-all").id)
        yield running.start("--no-worker")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_every_item_fits_reads_and_is_accessible(desk: Studio, open_page: OpenPage, width: int, scheme: str) -> None:
    empty_pool(desk.db)
    put_all_kinds(desk.db)
    settings.save_guidelines(
        desk.db, Guidelines(text="Choose what you would **rather receive**.", criteria=["Clear", "True to the facts"])
    )
    height = {360: 740, 1280: 800, 2560: 1300}[width]
    page = open_page(desk, viewport={"width": width, "height": height}, color_scheme=scheme)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    page.evaluate("document.getElementById('guidelines-details').open = false")
    for name, keys, seen in STEPS:
        for key in keys:
            if key.startswith("VOTE "):
                press(page, key.removeprefix("VOTE "))
            else:
                page.keyboard.press(key)
        page.locator(seen).first.wait_for()
        look(page, f"{width}-{scheme}-{name.replace(' ', '-')}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{name} scrolls sideways"
        assert page.evaluate(CONTRAST) == [], name
        assert page.evaluate(UNNAMED) == [], name
        assert page.evaluate(RUN_AXE) == [], name
        assert in_sight(page), f"{name}: the verdict buttons are out of sight"


def in_sight(page: Page) -> bool:
    """The verdict bar stays at the bottom of the window, whole."""
    inside = "e => { const box = e.getBoundingClientRect(); return box.height > 0 && box.bottom <= innerHeight + 1; }"
    return all(bar.evaluate(inside) for bar in page.locator(".verdict-row").all())


def look(page: Page, name: str) -> None:
    """Leave a screenshot where a person asked for them."""
    if folder := os.environ.get("STUDIO_SHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def test_the_check_finds_what_is_wrong(desk: Studio, open_page: OpenPage) -> None:
    empty_pool(desk.db)
    put_all_kinds(desk.db)
    page = open_page(desk)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    page.evaluate("document.querySelector('#pair').insertAdjacentHTML('beforeend', '<button type=button></button>')")
    assert any(found.startswith("button-name") for found in page.evaluate(RUN_AXE))


def test_a_thumb_can_hit_every_button(desk: Studio, open_page: OpenPage) -> None:
    empty_pool(desk.db)
    put_all_kinds(desk.db)
    page = open_page(desk, viewport={"width": 360, "height": 640}, has_touch=True)
    small = page.evaluate(
        """() => [...document.querySelectorAll('#label-tab button')].filter(e => e.checkVisibility())
        .map(e => [e.outerHTML.slice(0, 120), e.getBoundingClientRect()])
        .filter(([, box]) => box.width && (box.width < 24 || box.height < 24)).map(([name]) => name)"""
    )
    assert small == []
    done = count_judgments(desk.db)
    page.locator("#strengths-menu").tap()
    page.locator("#vote-left-2").tap()
    expect(page.locator(".count-done")).to_have_text(f"{done + 1} judged by you")


def test_a_phone_says_which_reply_a_strength_is_for(desk: Studio, open_page: OpenPage) -> None:
    empty_pool(desk.db)
    put_all_kinds(desk.db)
    page = open_page(desk, viewport={"width": 390, "height": 780}, has_touch=True)
    page.locator("#strengths-menu").tap()
    look(page, "390-strengths")
    marks = page.locator(".strength .stack-mark:visible")
    assert marks.all_inner_texts() == ["1", "1", "1", "2", "2", "2"]
    assert page.locator(".strength").evaluate_all("all => all.every(e => e.scrollWidth <= e.clientWidth)")
    assert page.locator(".side-mark:visible").count() == 0
    page.set_viewport_size({"width": 1280, "height": 780})
    expect(page.locator(".side-mark:visible")).to_have_count(6)
    assert marks.count() == 0


def test_a_long_request_opens_at_its_beginning_and_a_chat_at_its_end(desk: Studio, open_page: OpenPage) -> None:
    long = " ".join(f"word{n}" for n in range(700))
    chat = [{"role": role, "content": f"{role} {n}. " * 12} for n in range(6) for role in ("user", "assistant")]
    asked = {
        "once": long,
        "chat": [*chat, {"role": "user", "content": "And?"}],
        "chat, long": [*chat, {"role": "user", "content": long}],
    }
    above = {}
    for name, ask in asked.items():
        empty_pool(desk.db)
        put(desk.db, ["One.", "Two."], ask)
        page = open_page(desk, viewport={"width": 1280, "height": 780})
        card = page.locator(".prompt-card")
        box, last = card.bounding_box(), card.locator(".turn").last.bounding_box()
        assert box and last and box["y"] - 1 <= last["y"] < box["y"] + box["height"], (
            f"{name}: its beginning is out of sight"
        )
        above[name] = card.evaluate("e => [e.scrollTop, e.scrollHeight - e.clientHeight - e.scrollTop]")
        page.close()  # an open page would take the next pair in the place of the one that went
    assert above["once"][0] == 0 and above["chat"][1] <= 1 and min(above["chat, long"]) > 0


def test_a_thumb_ranks_a_reply_by_its_heading(desk: Studio, open_page: OpenPage) -> None:
    empty_pool(desk.db)
    put(desk.db, [f"Answer {n}" for n in range(4)], "Why walk?")
    page = open_page(desk, viewport={"width": 390, "height": 780}, has_touch=True)
    headings = page.locator(".reply-heading")
    assert all(box["height"] >= 44 for box in (one.bounding_box() for one in headings.all()) if box)
    look(page, "390-ranking")
    page.locator(".reply-heading .side-name").nth(2).tap()
    headings.nth(0).tap(position={"x": 300, "y": 22})
    page.locator(".rank-pick").nth(3).tap()
    expect(page.locator("#rank-order")).to_have_text("3 > 1 > 4")


def test_dialogs_stand_in_the_middle_of_the_window(desk: Studio, open_page: OpenPage) -> None:
    empty_pool(desk.db)
    put_all_kinds(desk.db)
    page = open_page(desk, viewport={"width": 1280, "height": 1000})
    for key, name in (("p", "figures-dialog"), ("?", "keys-dialog")):
        page.keyboard.press(key)
        dialog = page.locator(f"#{name}")
        expect(dialog.locator("dl, table").first).to_be_visible()
        box = dialog.bounding_box()
        assert box and abs(box["x"] + box["width"] / 2 - 640) < 10
        assert abs(box["y"] + box["height"] / 2 - 500) < 10
        page.keyboard.press("Escape")


@pytest.mark.slow
def test_a_wide_window_is_used_and_a_phone_loses_little_to_margins(desk: Studio, open_page: OpenPage) -> None:
    empty_pool(desk.db)
    put_all_kinds(desk.db)
    for width, least in ((360, 330), (1280, 1180), (1600, 1400), (2560, 1900)):
        page = open_page(desk, viewport={"width": width, "height": 800})
        box = page.locator("#label-body").bounding_box()
        assert box and box["width"] >= least, f"{box} of {width}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_circles_of_the_ratings_can_be_seen(desk: Studio, open_page: OpenPage, scheme: str) -> None:
    empty_pool(desk.db)
    put_all_kinds(desk.db)
    settings.save_guidelines(desk.db, Guidelines(text="Be strict.", criteria=["Clear"]))
    page = open_page(desk, color_scheme=scheme)
    page.keyboard.press("c")
    circle = page.get_by_role("group", name="Clear, reply 1").get_by_label("4")
    look_of = "e => { const s = getComputedStyle(e); return [s.borderTopWidth, s.borderTopColor, s.backgroundColor]; }"
    width, line, inside = circle.evaluate(look_of)
    assert width == "2px" and line != inside and "rgba(0, 0, 0, 0)" not in (line, inside)
    circle.check()
    assert circle.evaluate(look_of)[:2] != [width, line], "a chosen one looks different"


@pytest.mark.slow
def test_the_menu_of_folded_tabs_stays_open_while_the_pool_is_empty(desk: Studio, open_page: OpenPage) -> None:
    """The page looks for pairs each second then, and its looks must not close what a person opened."""
    empty_pool(desk.db)
    page = open_page(desk, viewport={"width": 360, "height": 740})
    page.get_by_label("More tabs").click()
    folded = page.locator(".overflow-dropdown button").first
    expect(folded).to_be_visible()
    page.wait_for_timeout(4_000)
    assert folded.is_visible()


def test_an_empty_pool_offers_no_tool_that_needs_a_pair(desk: Studio, open_page: OpenPage) -> None:
    empty_pool(desk.db)
    page = open_page(desk)
    shown = page.locator(".tools button:visible")
    expect(shown).to_have_count(2)
    assert {button.get_attribute("data-action") for button in shown.all()} == {"figures", "keys"}
