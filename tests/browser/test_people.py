"""Signing in as a person does, in a real browser: directly, behind a reverse proxy, and when it is set up wrongly."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from feedback.store.models import policies
from feedback.store.people import users
from feedback.types import UserStatus
from studio.security import accounts as people
from tests import factories
from tests.browser.conftest import Studio, open_tab, press
from tests.browser.proxy import reverse_proxy
from tests.factories import count_judgments, list_judgments

pytestmark = pytest.mark.timeout(300)
PASSWORD = "four plain words do"


@pytest.fixture
def crowd(studio: Studio) -> Studio:
    """A studio with one user of each role and some pairs to judge."""
    policy = factories.make_policy(studio.db, "base")
    policies.promote_policy(studio.db, policy.id)
    for _ in range(30):
        factories.make_matchup(studio.db, policy=policy)
    for name, role in (("ada", "admin"), ("ann", "annotator"), ("rex", "researcher")):
        people.add_user(studio.db, name, role, actor="test", password=PASSWORD)
    return studio


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context()
    yield made
    made.close()


def sign_in(page: Page, url: str, name: str, password: str = PASSWORD) -> None:
    """Open the studio, be led to the sign-in page, and type."""
    page.goto(url)
    expect(page.get_by_label("Name")).to_be_focused()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")


def complaints(page: Page) -> list[str]:
    """Collect what the browser blocks or misses; Gradio names its manifest and icon without any prefix."""
    found: list[str] = []
    page.on("console", lambda said: found.append(said.text) if _matters(said.type, said.text) else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("response", lambda answer: found.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    return found


def _matters(kind: str, text: str) -> bool:
    return kind == "error" and not text.startswith("Failed to load resource")  # "response" tells it with the address


def serious(found: list[str]) -> list[str]:
    """Without the refused passwords, which a test asked for, and the manifest and icon."""
    return [one for one in found if not one.endswith(("/login", "/manifest.json", "/favicon.ico"))]


def test_an_annotator_signs_in_judges_and_signs_out(crowd: Studio, context: BrowserContext) -> None:
    page = context.new_page()
    found = complaints(page)
    crowd.start("--no-worker")
    sign_in(page, crowd.url, "ann", "wrong password")
    expect(page.get_by_role("alert")).to_contain_text("ask an admin whether the user is disabled")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator(".signed-in")).to_contain_text("Signed in as ann, annotator")
    for hidden in ("Playground", "Train", "Policies", "Datasets", "People"):
        expect(page.get_by_role("tab", name=hidden, exact=True)).to_have_count(0)
    press(page, "1")
    press(page, "2")
    assert [row.annotator for row in list_judgments(crowd.db)] == ["ann", "ann"]
    assert serious(found) == []
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(crowd.url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.slow
def test_a_user_disabled_at_work_is_led_out(crowd: Studio, context: BrowserContext) -> None:
    page = context.new_page()
    crowd.start("--no-worker")
    sign_in(page, crowd.url, "ann")
    press(page, "1")
    users.set_user_status(crowd.db, "ann", UserStatus.disabled, actor="test")
    page.keyboard.press("1")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert count_judgments(crowd.db) == 1


@pytest.mark.slow
def test_an_admin_adds_somebody_who_then_signs_in(crowd: Studio, browser: Browser, context: BrowserContext) -> None:
    page = context.new_page()
    crowd.start("--no-worker")
    sign_in(page, f"{crowd.url}/#label", "ada")
    page.wait_for_selector("#pair .pair")
    open_tab(page, "People")
    page.get_by_label("Name").fill("new-person")
    page.locator("#add-user").click()
    page.wait_for_selector(".secret")
    password, token = page.locator(".secret").all_inner_texts()
    assert httpx.get(f"{crowd.url}/api/me", headers={"Authorization": f"Bearer {token}"}).json()["name"] == "new-person"
    page.locator("#users-table [data-pick]", has_text="new-person").click()
    expect(page.locator("#user-detail h3")).to_have_text("new-person")
    expect(page.locator(".secret")).to_have_count(0)
    other = browser.new_context()
    theirs = other.new_page()
    sign_in(theirs, crowd.url, "new-person", password)
    theirs.wait_for_selector("#pair .pair")
    page.locator("#disable-user").click()
    expect(page.locator("#disable-question")).to_contain_text("Everything they judged stays")
    page.locator("#disable-yes").click()
    expect(page.locator("#user-detail .badge")).to_have_text("disabled")
    theirs.reload()
    expect(theirs.get_by_role("heading", name="Sign in")).to_be_visible()
    other.close()


@pytest.mark.slow
@pytest.mark.parametrize("strips", [True, False], ids=["prefix taken off", "prefix left on"])
def test_behind_a_proxy_with_a_prefix(crowd: Studio, context: BrowserContext, strips: bool) -> None:
    page = context.new_page()
    crowd.start("--no-worker", "--root-path", "/label/studio")
    with reverse_proxy(crowd.url, "/label/studio", strips=strips, tells_prefix=True) as url:
        found = complaints(page)
        sign_in(page, f"{url}/#label", "rex")
        page.wait_for_selector("#pair .pair")
        press(page, "1")
        press(page, "u")
        open_tab(page, "Datasets")
        page.locator("#freeze").click()
        page.wait_for_selector(".toast-body, #dataset-detail .detail")
        assert page.url.startswith(f"{url}/")
        assert [cookie["path"] for cookie in context.cookies()] == ["/label/studio"]
        assert httpx.get(f"{url}/api/health").json()["status"] == "ok"
        assert serious(found) == []
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert page.url == f"{url}/login"


@pytest.mark.slow
def test_a_proxy_that_hides_the_host_needs_the_whole_address(crowd: Studio, context: BrowserContext) -> None:
    page = context.new_page()
    crowd.start("--no-worker", "--root-path", "/s")
    with reverse_proxy(crowd.url, "/s", passes_host=False) as url:
        sign_in(page, f"{url}/", "ann")
        expect(page.locator("body")).to_contain_text(f"--root-path {url}")
        crowd.stop()
        crowd.start("--no-worker", "--root-path", url)
        sign_in(page, f"{url}/", "ann")
        page.wait_for_selector("#pair .pair")
        press(page, "1")
        assert count_judgments(crowd.db) == 1


@pytest.mark.slow
def test_a_wrong_prefix_is_told_with_the_setting(crowd: Studio) -> None:
    crowd.start("--no-worker", "--root-path", "/one")
    as_page = {"Accept": "text/html"}
    with reverse_proxy(crowd.url, "/two", tells_prefix=True) as url:
        said = httpx.get(f"{url}/", headers=as_page)
        assert said.status_code == 400 and "Start it with --root-path /two" in said.text
    crowd.stop()
    crowd.start("--no-worker")
    with reverse_proxy(crowd.url, "/two", strips=False) as url:
        said = httpx.get(f"{url}/", headers=as_page)
        assert said.status_code == 404 and "start it with --root-path /two" in said.text
