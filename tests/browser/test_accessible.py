"""axe over every tab, with data and without, with what opens open, light and dark, on a phone and on a desk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Page, expect

from feedback.store.labeling import batches, reviews
from feedback.store.models import policies
from feedback.types import Batch
from studio.security import accounts as users
from tests import factories
from tests.browser.conftest import Studio, open_tab, studio_in
from tests.browser.test_layout import CONTRAST, UNNAMED, furnish
from tests.browser.test_people import PASSWORD, sign_in
from tests.browser.test_screen_layout import AXE, RUN_AXE, look
from tests.crowd import judge_all, make_crowd
from tests.factories import list_judgments

pytestmark = pytest.mark.timeout(400)
OpenPage = Callable[..., Page]
SIZES = {"phone": {"width": 360, "height": 740}, "desk": {"width": 1280, "height": 800}}
TABS = ("Overview", "Label", "Playground", "Train", "Policies", "Datasets", "Review", "People")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio with something on every tab: a crowd that has judged, a dispute, an act, a message."""
    with studio_in(tmp_path_factory.mktemp("full")) as running:
        furnish(running)
        crowd = [one for one in make_crowd() if one.name in ("good-1", "good-2", "always-left-1", "fast-1")]
        for number in range(30):
            texts = [f"good {'x ' * (number % 7)}", f"bad {'x ' * (number % 5)}"]
            factories.make_matchup(running.db, policy=policies.get_champion(running.db), texts=texts, required=3)
        judge_all(running.db, crowd, lambda _, text: float(text.startswith("good")), start=datetime.now(UTC))
        disputed = factories.make_matchup(running.db, texts=["yes yes", "no"])
        batches.save_batch(running.db, Batch(name="two", required=2, max_required=2), matchup_ids=[disputed.id])
        factories.judge_by(running.db, lambda *_: 1, annotator="ann", count=1)
        factories.judge_by(running.db, lambda *_: 0, annotator="bob", count=1)
        reviews.exclude_judgment(running.db, list_judgments(running.db)[-1].id, "rex", "always the same key")
        factories.make_matchup(running.db)
        factories.judge_by(running.db, factories.longer, annotator="local", count=1)
        for _ in range(12):  # every page that is opened holds some
            factories.make_matchup(running.db, policy=policies.get_champion(running.db))
        reviews.save_message(running.db, "local", "rex", "Please read to the end.")
        yield running.start("--no-worker")


def assert_accessible(page: Page, where: str, name: str) -> None:
    page.wait_for_function("!document.querySelector('.toast-body')")
    look(page, f"{name}-{where.replace(' ', '-')}")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{where} scrolls sideways"
    assert page.evaluate(CONTRAST) == [], where
    assert page.evaluate(UNNAMED) == [], where
    assert page.evaluate(RUN_AXE) == [], where


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_tab_with_data(full: Studio, open_page: OpenPage, size: str, scheme: str) -> None:
    page, name = open_page(full, viewport=SIZES[size], color_scheme=scheme), f"axe-{size}-{scheme}"
    page.evaluate(AXE.read_text(encoding="utf-8"))
    expect(page.locator("#reviewer-message")).to_be_visible()
    assert_accessible(page, "a message", name)
    page.keyboard.press("i")
    page.keyboard.press("p")
    expect(page.locator("#figures-body .told")).to_be_visible()
    assert_accessible(page, "progress", name)
    page.keyboard.press("Escape")
    page.locator("#rules button").first.click()
    expect(page.locator("#rules-save")).to_be_visible()
    assert_accessible(page, "rules", name)

    open_tab(page, "Train")
    page.locator("#runs-table .pick").first.click()
    expect(page.locator("#first-plot .trace").first).to_be_attached()
    for folded in page.get_by_role("button", name="More settings").all():
        if folded.is_visible():
            folded.click()
    assert_accessible(page, "train", name)

    open_tab(page, "Policies")
    page.locator("#policies-table .pick").first.click()
    page.locator("#promote").click()
    expect(page.locator("#promote-yes")).to_be_visible()
    assert_accessible(page, "policies", name)

    open_tab(page, "Datasets")
    page.locator("#datasets-table .pick").first.click()
    expect(page.locator("#dataset-detail .preview")).to_be_visible()
    assert_accessible(page, "datasets", name)

    open_tab(page, "Review")
    page.locator("#annotators-table .pick").first.click()
    page.locator("#evidence-list .pick").first.click()
    expect(page.locator("#chosen-judgment strong")).to_be_visible()
    page.locator("#annotator-detail summary").first.click()
    page.locator("#adjudication button").first.click()
    page.locator("#next-dispute").click()
    expect(page.locator("#disputed-pair article, #disputed-pair .notice").first).to_be_visible()
    assert_accessible(page, "review", name)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_of_an_empty_studio(studio: Studio, open_page: OpenPage, scheme: str) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    page = open_page(studio.start("--no-worker"), viewport=SIZES["phone"], color_scheme=scheme)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    told = {
        "Overview": ("#overview-round", "Start a round"),
        "Label": ("#pair", "No worker is running"),
        "Playground": ("#chat-turns", "Talk with a policy"),
        "Train": ("#no-dataset", "Judge some pairs on the Label tab"),
        "Policies": ("#policies-table", "starter"),
        "Datasets": ("#datasets-table", "Judge some pairs on the Label tab"),
        "Review": ("#annotators-table", "As soon as people judge on the Label tab"),
        "People": ("#users-table", "Add an admin"),
    }
    for tab in TABS:
        open_tab(page, tab)
        place, words = told[tab]
        expect(page.locator(place)).to_contain_text(words)
        assert_accessible(page, f"empty {tab}", f"axe-phone-{scheme}")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_signing_in_and_the_people_tab(studio: Studio, browser: Browser, scheme: str) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    for user, role in (("ada", "admin"), ("ann", "annotator")):
        users.add_user(studio.db, user, role, actor="test", password=PASSWORD)
    studio.start("--no-worker")
    for size in SIZES:
        context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)  # type: ignore[arg-type]
        page, name = context.new_page(), f"axe-{size}-{scheme}"
        sign_in(page, studio.url, "ada", "wrong words here")
        page.get_by_role("alert").wait_for()
        page.evaluate(AXE.read_text(encoding="utf-8"))
        look(page, f"{name}-sign-in")
        assert page.evaluate(RUN_AXE) == []
        sign_in(page, f"{studio.url}/#label", "ada")
        page.wait_for_selector("#pair .pair-empty")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        open_tab(page, "People")
        page.locator("#users-table .pick", has_text="ann").click()
        expect(page.locator("#user-detail h3")).to_have_text("ann")
        page.locator("#audit button").first.click()
        expect(page.locator("#audit-table table")).to_be_visible()
        assert_accessible(page, "people", name)
        context.close()


@pytest.mark.slow
def test_the_rules_are_not_for_annotators(studio: Studio, browser: Browser) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    users.add_user(studio.db, "ada", "admin", actor="test", password=PASSWORD)
    users.add_user(studio.db, "ann", "annotator", actor="test", password=PASSWORD)
    studio.start("--no-worker")
    for name, may in (("ada", True), ("ann", False)):
        context = browser.new_context()
        page = context.new_page()
        sign_in(page, f"{studio.url}/#label", name)
        page.wait_for_selector("#pair .pair-empty")
        expect(page.locator("[data-role]")).to_be_attached()
        expect(page.locator("#rules")).to_be_visible(visible=may)
        context.close()
