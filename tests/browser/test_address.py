"""The page's address: a tab and what is picked in it survive a reload, go back and forth, and can be passed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from feedback.datasets import freeze
from feedback.store.labeling import leases
from feedback.store.models import policies
from feedback.store.models.runs import save_run
from feedback.types import Run, RunState, now
from studio.security import accounts as users
from tests import factories
from tests.browser.conftest import Studio, lease_of, open_tab, press, studio_in, until
from tests.browser.proxy import reverse_proxy
from tests.browser.test_people import PASSWORD, complaints, serious, sign_in
from tests.browser.test_train import trained
from tests.browser.worlds import CONVERSATION, empty_pool, put, put_pairs

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]
HOSTILE = (
    "#https://evil.invalid/",
    "#//evil.invalid",
    "#javascript:alert(1)",
    "#label-tab",
    "#constructor",
    "#__proto__/x",
    "#train/%",
    "#train/%00%ff",
    "#train/<img src=x onerror=alert(1)>",
    "#train/" + quote('"] , body *, [x="'),
    "#policies/../../logout",
    "#" + "train/" * 4000,
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One server with something to pick on every tab."""
    with studio_in(tmp_path_factory.mktemp("desk")) as running:
        starter = factories.make_policy(running.db, "starter")
        policies.promote_policy(running.db, starter.id)
        put_pairs(running.db, 40)
        factories.judge_by(running.db, factories.longer, annotator="ann & bob/#1", count=4)
        freeze.freeze(running.db, "round-1")
        for steps in (3, 5):
            trained(running, "dpo", steps)
        yield running.start("--no-worker")


def at(page: Page, tab: str, picked: str = "") -> None:
    """The tab is open, and so is what is picked in it; the address says both."""
    expect(page.get_by_role("tab", name=tab, exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator(f"#{tab.lower()}-tab")).to_be_visible()
    if picked:
        expect(page.locator(f"#{tab.lower()}-tab tr.picked [data-pick]")).to_have_attribute("data-pick", picked)
    wanted = f"#{tab.lower()}/{quote(picked, safe=SAFE)}" if picked else f"#{tab.lower()}"
    page.wait_for_function("wanted => location.hash === wanted", arg=wanted)


SAFE = "!'()*~"  # what encodeURIComponent leaves, beside letters and digits


def visit(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#studio-tabs [role=tab]")


@pytest.mark.slow
def test_a_reload_and_a_copied_link_show_the_same_thing(desk: Studio, open_page: OpenPage, browser: Browser) -> None:
    page = open_page(desk)
    at(page, "Label")
    for tab, place in (("Train", 1), ("Policies", 0), ("Datasets", 0), ("Review", 0)):
        open_tab(page, tab)
        at(page, tab)
        row = page.locator(f"#{tab.lower()}-tab .pick").nth(place)
        key = row.get_attribute("data-pick") or ""
        row.click()
        at(page, tab, key)
        page.reload()
        at(page, tab, key)
        expect(page.locator(f"#{tab.lower()}-tab .detail").first).to_be_visible()
        other = browser.new_context().new_page()
        visit(other, page.url)
        at(other, tab, key)
        other.context.close()


@pytest.mark.slow
def test_a_run_that_is_linked_comes_into_sight(desk: Studio, open_page: OpenPage) -> None:
    page = open_page(desk)
    run = trained(desk, "kto", 4)
    visit(page, f"{desk.url}/?again#train/{run}")
    expect(page.locator(f"[data-run='{run}']")).to_be_in_viewport()
    at(page, "Train", run)
    page.evaluate("hash => { location.hash = hash; }", f"#train/{trained(desk, 'sft', 2)}")  # made after the page
    page.wait_for_timeout(500)
    open_tab(page, "Policies")  # while the other is waited for: a person comes first
    page.wait_for_timeout(1_000)
    at(page, "Policies")


@pytest.mark.slow
def test_back_and_forward_go_from_tab_to_tab(desk: Studio, open_page: OpenPage) -> None:
    page = open_page(desk)
    open_tab(page, "Train")
    page.locator("#train-tab .pick").nth(1).wait_for()
    first, second = (one.get_attribute("data-pick") or "" for one in page.locator("#train-tab .pick").all()[:2])
    for key in (first, second):  # a step from tab to tab, none from row to row
        page.locator(f"[data-pick='{key}']").click()
        at(page, "Train", key)
    open_tab(page, "Datasets")
    at(page, "Datasets")
    open_tab(page, "Label")
    page.go_back()
    at(page, "Datasets")
    page.go_back()
    at(page, "Train", second)
    page.go_forward()
    at(page, "Datasets")
    page.go_back()
    page.go_back()
    at(page, "Label")
    expect(page.locator("#pair .pair")).to_be_visible()


def test_the_pair_and_its_lease_stay_while_other_tabs_are_opened(desk: Studio, open_page: OpenPage) -> None:
    page = open_page(desk)
    lease = lease_of(page)
    held = len(leases.list_live_leases(desk.db, page.evaluate("localStorage['rlhf-studio-session']"), at=now()))
    open_tab(page, "Train")
    page.keyboard.press("1")
    page.reload()
    at(page, "Train")
    page.keyboard.press("1")  # behind another tab no key judges
    page.go_back()
    expect(page.locator("#pair .pair")).to_be_visible()
    assert lease_of(page) == lease
    session = page.evaluate("localStorage['rlhf-studio-session']")
    assert len(leases.list_live_leases(desk.db, session, at=now())) <= max(held, 2)
    press(page, "1")


def test_a_chat_that_was_painted_behind_another_tab_is_at_its_last_turn(desk: Studio, open_page: OpenPage) -> None:
    empty_pool(desk.db)
    put(desk.db, ["One.", "Two."], [*CONVERSATION[:1], *CONVERSATION[1:3] * 9, CONVERSATION[3]])
    page = open_page(desk, viewport={"width": 1280, "height": 700})
    visit(page, f"{desk.url}/?again#policies")
    at(page, "Policies")
    page.wait_for_function("document.querySelector('#pair .prompt-card') !== null")
    open_tab(page, "Label")
    page.wait_for_selector("#pair:not([aria-busy])")
    card = page.locator(".prompt-card")
    assert card.evaluate("e => e.scrollHeight > e.clientHeight")
    below = "e => e.scrollHeight - e.clientHeight - e.scrollTop"
    until(page, lambda: card.evaluate(below) <= 1)
    empty_pool(desk.db)
    put_pairs(desk.db, 20)


@pytest.mark.slow
def test_a_folded_tab_has_its_address_too(desk: Studio, open_page: OpenPage) -> None:
    page = open_page(desk, viewport={"width": 360, "height": 780})
    expect(page.get_by_role("tab", name="Review", exact=True)).to_have_count(0)
    visit(page, f"{desk.url}/?again#review")
    at(page, "Review")
    assert page.locator(".overflow-dropdown button:visible").count() == 0, "no menu was opened for it"
    page.get_by_label("More tabs").click()
    page.wait_for_timeout(1_500)
    expect(page.locator(".overflow-dropdown button").first).to_be_visible()
    page.get_by_label("More tabs").click()
    open_tab(page, "People")
    at(page, "People")
    page.go_back()
    at(page, "Review")


@pytest.mark.slow
def test_a_hostile_address_opens_nothing(desk: Studio, open_page: OpenPage) -> None:
    page = open_page(desk)
    found = complaints(page)
    page.on("dialog", lambda shown: found.append(shown.message))
    for number, hostile in enumerate(HOSTILE):
        if number % 4 == 0:
            visit(page, f"{desk.url}/?{number}{hostile}")
        else:
            page.evaluate("hostile => { location.hash = hostile; }", hostile)
        page.wait_for_selector(":is(.overview-welcome, #runs-table .pick, #policies-table .pick):visible")
        page.wait_for_timeout(200)
        assert page.url.startswith(f"{desk.url}/?"), hostile
        assert page.locator("tr.picked").count() == 0, hostile
    assert serious(found) == []
    open_tab(page, "Review")
    at(page, "Review")


@pytest.mark.slow
def test_a_link_outlives_the_sign_in_and_no_role_is_led_to_a_tab_it_does_not_see(
    studio: Studio, browser: Browser
) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    put_pairs(studio.db, 12)
    run = trained(studio, "dpo", 3)
    for name, role in (("rex", "researcher"), ("rev", "reviewer"), ("ann", "annotator")):
        users.add_user(studio.db, name, role, actor="test", password=PASSWORD)
    studio.start("--no-worker", "--root-path", "/label/studio")
    with reverse_proxy(studio.url, "/label/studio", tells_prefix=True) as url:
        for width in (1280, 360):
            for name in ("rex", "ann") if width > 1000 else ("rev", "ann"):
                context = browser.new_context(viewport={"width": width, "height": 800})
                page = context.new_page()
                found = complaints(page)
                sign_in(page, f"{url}/#train/{run}", name, "a wrong password")
                page.get_by_role("alert").wait_for()
                page.get_by_label("Password").fill(PASSWORD)
                page.keyboard.press("Enter")
                expect(page.locator("[data-role]")).to_be_attached()
                if name == "rex":
                    at(page, "Train", run)
                    context.clear_cookies()
                    page.locator("#runs-table .pick").first.click()  # the session has ended
                    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
                    assert page.url == f"{url}/login#train/{run}"
                else:
                    at(page, "Label")
                    expect(page.locator("#pair .pair")).to_be_visible()
                    page.evaluate("location.hash = '#review'")
                    at(page, "Review" if name == "rev" else "Label")
                    page.evaluate("location.hash = '#people'")
                    at(page, "Label")
                    assert serious(found) == []
                context.close()


@pytest.mark.slow
def test_a_link_to_a_run_that_is_older_than_those_listed_opens_it(desk: Studio, open_page: OpenPage) -> None:
    oldest = trained(desk, "sft", 2)
    newer = [save_run(desk.db, Run(method="generate", state=RunState.succeeded)) for _ in range(50)]
    page = open_page(desk)
    visit(page, f"{desk.url}/#train/{oldest}")
    page.reload()
    at(page, "Train", oldest)
    expect(page.locator("#run-detail")).to_contain_text(oldest)
    expect(page.locator("#runs-table [data-pick]")).to_have_count(51)
    visit(page, f"{desk.url}/#train/run-nobodyknows")
    page.reload()
    expect(page.locator(".toast-body").first).to_contain_text("There is no run 'run-nobodyknows'")
    page.locator(f"#runs-table [data-pick={newer[-1].id}]").click()
    at(page, "Train", newer[-1].id)
