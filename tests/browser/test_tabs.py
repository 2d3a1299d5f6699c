"""The tabs by keyboard: arrows, Home and End open them, and no verdict comes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from feedback.store.models import policies
from tests import factories
from tests.browser.conftest import Studio, lease_of, press
from tests.browser.worlds import put_pairs
from tests.factories import count_judgments

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]
ALL = ["Overview", "Label", "Playground", "Train", "Policies", "Datasets", "Review", "People"]


def at(page: Page, name: str) -> None:
    """The tab is open, has the focus, and is the one stop of the bar."""
    tab = page.get_by_role("tab", name=name, exact=True)
    expect(tab).to_be_focused()
    expect(tab).to_have_attribute("aria-selected", "true")
    expect(page.locator(f"#{name.lower()}-tab")).to_be_visible()
    expect(page.locator("#studio-tabs [role=tab][tabindex='0']")).to_have_text([name])


@pytest.mark.slow
def test_arrows_home_and_end_walk_the_tabs(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    put_pairs(studio.db, 4)
    page = open_page(studio.start("--no-worker"))
    lease = lease_of(page)
    page.evaluate("""localStorage['rlhf-studio-keys'] = JSON.stringify({ tie: 'ArrowRight', left: 'Home' })""")
    page.get_by_role("tab", name="Label", exact=True).focus()
    for key, name in [
        *(("ArrowRight", name) for name in [*ALL[2:], "Overview"]),
        ("ArrowLeft", "People"), ("Home", "Overview"), ("End", "People"), ("Home", "Overview"), ("ArrowRight", "Label"),
    ]:  # fmt: skip
        page.keyboard.press(key)
        at(page, name)
    page.keyboard.press("Alt+ArrowRight")
    page.keyboard.press("Control+End")
    at(page, "Label")
    page.wait_for_selector("#pair:not([aria-busy])")
    assert lease_of(page) == lease
    assert count_judgments(studio.db) == 0, "on a tab its keys are the tab's, whatever else they are"
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.matches('[role=tab]')"), "the bar is one stop"
    page.evaluate("document.activeElement.blur()")
    press(page, "ArrowRight")
    assert count_judgments(studio.db) == 1


@pytest.mark.slow
def test_the_focus_stays_with_the_tab_where_some_are_folded(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    page = open_page(studio.start("--no-worker"), viewport={"width": 360, "height": 740})
    page.get_by_label("More tabs").click()
    page.locator(".overflow-dropdown button", has_text="People").click()
    people = page.get_by_role("tab", name="People", exact=True)
    expect(people).to_be_visible()
    people.focus()
    shown = page.get_by_role("tab").all_inner_texts()
    assert shown[-1] == "People" and len(shown) < len(ALL)
    page.keyboard.press("ArrowLeft")
    at(page, shown[-2])
    page.keyboard.press("End")
    last = page.get_by_role("tab").last
    expect(last).to_be_focused()
    page.keyboard.press("Home")
    at(page, "Overview")
