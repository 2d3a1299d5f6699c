"""Rounds on the page: a researcher starts them, two people label and compare, the gate asks, the next round begins."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from feedback.store.labeling.batches import find_batch
from feedback.store.labeling.matchups import count_matchups
from feedback.store.models import policies
from feedback.store.models.rounds import get_recipe, last_round, list_rounds
from feedback.types import RecipeState, RoundState
from studio.security import accounts
from tests.browser.conftest import Studio, reload
from tests.browser.test_people import PASSWORD, sign_in
from tests.factories import list_judgments

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
OpenPage = Callable[..., Page]
RUN_MS = 400_000  # a training run on a busy machine without a GPU


@pytest.fixture
def contexts(browser: Browser) -> Iterator[Callable[[], BrowserContext]]:
    made: list[BrowserContext] = []

    def make() -> BrowserContext:
        made.append(browser.new_context())
        return made[-1]

    yield make
    for context in made:
        context.close()


def state_of(studio: Studio, name: str) -> RoundState:
    return last_round(studio.db, get_recipe(studio.db, name).id).state


def judge_until(studio: Studio, people: list[Page], name: str, reached: RoundState) -> None:
    """Both judge in turn, by keyboard, as long as there is a pair, until the round is there."""
    turn = 0
    while state_of(studio, name) is not reached:
        assert get_recipe(studio.db, name).state is RecipeState.active, get_recipe(studio.db, name).reason
        page = people[turn % len(people)]
        turn += 1
        if page.locator("#pair:not([aria-busy]) .pair").count():
            page.keyboard.press("1" if turn % 3 else "2")
        page.wait_for_timeout(200)


def start_a_round(page: Page, name: str, pairs: int, prompts: int) -> None:
    page.get_by_role("button", name="Start a round").click()
    page.locator("#recipe-name textarea, #recipe-name input").fill(name)
    page.locator("#recipe-pairs input").fill(str(pairs))
    page.locator("#recipe-rounds input").fill("2")
    page.locator("#recipe-more > button").click()
    page.locator("#recipe-prompts input").fill(str(prompts))
    page.locator("#recipe-start").click()


def test_people_take_a_round_to_the_gate_and_a_researcher_promotes(
    studio: Studio, contexts: Callable[[], BrowserContext]
) -> None:
    for name, role in (("rex", "researcher"), ("ann", "annotator"), ("bob", "annotator")):
        accounts.add_user(studio.db, name, role, actor="test", password=PASSWORD)
    studio.start()
    rex, ann, bob = (contexts().new_page() for _ in range(3))
    sign_in(rex, studio.url, "rex")
    expect(rex.get_by_role("heading", name="Welcome")).to_be_visible()
    start_a_round(rex, "tone", pairs=6, prompts=6)
    expect(rex.locator(".overview-panel h2")).to_have_text("tone")
    for page, name in ((ann, "ann"), (bob, "bob")):
        sign_in(page, studio.url, name)
        page.wait_for_selector("#pair .pair", timeout=RUN_MS)
        expect(page.get_by_role("tab", name="Overview")).to_have_count(0)

    studio.stop(signal.SIGKILL)  # the web process; what is on the screens stays leased
    studio.start()
    for page in (rex, ann, bob):
        reload(page)
    judge_until(studio, [ann, bob], "tone", RoundState.training)
    expect(rex.locator(".stage-now")).to_contain_text("Train", timeout=RUN_MS)
    judge_until(studio, [ann, bob], "tone", RoundState.gate)
    assert {row.annotator for row in list_judgments(studio.db)} == {"ann", "bob"}

    expect(rex.locator(".next-step h3")).to_have_text("Promote tone-1, or hold it?", timeout=RUN_MS)
    expect(rex.locator(".gate-found .reasons li").first).to_be_visible()
    rex.get_by_role("button", name="Promote", exact=True).click()
    expect(rex.locator(".round-number")).to_have_text("Round 2 of 2", timeout=RUN_MS)
    expect(rex.locator("#overview-history tbody tr").first).to_contain_text("tone-1")
    champion = policies.get_champion(studio.db)
    assert champion is not None and champion.name == "tone-1"
    first, second = list_rounds(studio.db, get_recipe(studio.db, "tone").id)
    assert first.state is RoundState.promoted and first.evidence["decision"]["by"] == "rex"
    assert second.champion_id == champion.id
    ann.wait_for_timeout(500)
    while state_of(studio, "tone") is RoundState.filling:
        ann.wait_for_timeout(200)
    batch = find_batch(studio.db, "tone-2")
    assert batch is not None and count_matchups(studio.db, batch_id=batch.id).open >= 6
