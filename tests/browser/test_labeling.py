"""Label by keyboard in a real browser: what was on the screen is what is in the database."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from feedback.database.engine import Database
from feedback.store.models import policies
from feedback.types import JudgmentState, Verdict
from tests import factories
from tests.browser.conftest import Studio, lease_of, open_tab, press, reload, until
from tests.browser.test_screen_layout import look
from tests.factories import list_judgments

pytestmark = pytest.mark.timeout(240)
OpenPage = Callable[..., Page]


def fill(db: Database, count: int) -> None:
    policy = factories.make_policy(db, "author-of-all")
    policies.promote_policy(db, policy.id)
    for number in range(count):
        texts = [f"Reply {number} by the first hand.", f"Reply {number} by the second hand."]
        factories.make_matchup(db, policy=policy, texts=texts)


def current(db: Database) -> list:
    return list_judgments(db, current_only=True)


def shown_texts(page: Page) -> list[str]:
    return page.locator("#pair .reply-card .model-text").all_inner_texts()


def chosen_text(db: Database, judgment) -> str:
    """The text the stored verdict calls better."""
    generations = factories.replies_of_lease(db, judgment.lease_id)
    return generations[0 if judgment.verdict is Verdict.first else 1].text


@pytest.mark.slow
def test_each_key_says_what_it_shows(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 8)
    page = open_page(studio.start("--no-worker"))
    for key, side in (("1", 0), ("2", 1), ("1", 0), ("2", 1)):
        wanted = shown_texts(page)[side]
        press(page, key)
        assert chosen_text(studio.db, current(studio.db)[-1]) == wanted
    for key, verdict in (("t", Verdict.tie), ("X", Verdict.both_bad), ("s", Verdict.skip)):
        press(page, key)
        assert current(studio.db)[-1].verdict is verdict
    expect(page.locator(".counter")).to_have_text("6 judged by you1 skipped1 open for you")


@pytest.mark.slow
def test_a_reload_shows_the_same_pair_and_undo_brings_one_back(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 6)
    page = open_page(studio.start("--no-worker"))
    press(page, "1")
    lease, texts = lease_of(page), shown_texts(page)
    page.reload()
    page.wait_for_selector("#pair .pair")
    assert (lease_of(page), shown_texts(page)) == (lease, texts)
    press(page, "2")
    press(page, "u")
    assert shown_texts(page) == texts, "the undone pair comes back the same way round"
    assert len(current(studio.db)) == 1
    press(page, "t")
    assert [row.verdict for row in current(studio.db)][-1] is Verdict.tie
    assert JudgmentState.withdrawn in {row.state for row in list_judgments(studio.db)}


@pytest.mark.slow
def test_keys_do_nothing_where_they_are_not_meant(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 4)
    page = open_page(studio.start("--no-worker"))
    for chord in ("Control+1", "Alt+2", "Meta+x", "9", "Enter"):
        page.keyboard.press(chord)
    open_tab(page, "Datasets")
    page.keyboard.press("1")
    page.locator("#dataset-name textarea").fill("")
    page.keyboard.type("t12xs")
    open_tab(page, "Label")
    page.wait_for_timeout(500)
    assert current(studio.db) == []


@pytest.mark.slow
def test_a_held_key_and_a_double_press_judge_only_what_was_seen(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 12)
    page = open_page(studio.start("--no-worker"))
    # Delay the answer, so that the second press surely falls into the round trip.
    page.route("**/api/label/**", lambda route: (page.wait_for_timeout(300), route.continue_()))
    before = lease_of(page)
    page.keyboard.down("1")
    for _ in range(5):
        page.keyboard.down("1")  # what a held key sends: keydown with repeat
    page.keyboard.up("1")
    page.keyboard.press("2")
    page.keyboard.press("2")
    page.wait_for_function("b => document.querySelector('#pair [data-lease]').dataset.lease !== b", arg=before)
    page.unroute_all(behavior="wait")
    page.wait_for_timeout(300)
    assert [row.lease_id for row in current(studio.db)] == [before]


@pytest.mark.slow
def test_an_answer_that_comes_late_does_not_bring_a_judged_pair_back(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 5)
    page = open_page(studio.start("--no-worker"))
    judged = lease_of(page)
    held = []
    page.route("**/api/label/deck", lambda route: held.append((route, route.fetch())), times=1)
    page.evaluate("window.studio.acts.refresh()")
    until(page, lambda: held)  # the early question was asked, and its answer is on its way
    press(page, "1")
    current_lease = lease_of(page)
    page.evaluate(
        """() => { window.shown = []; new MutationObserver(() => {
          window.shown.push(document.querySelector('#pair [data-lease]')?.dataset.lease);
        }).observe(document.querySelector('#pair'), {childList: true, subtree: true, attributes: true}); }"""
    )
    route, answer = held[0]
    route.fulfill(response=answer)
    page.wait_for_timeout(600)
    assert judged not in page.evaluate("shown")
    assert lease_of(page) == current_lease


@pytest.mark.slow
def test_two_windows_of_one_person_count_a_pair_once(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 5)
    one = open_page(studio.start("--no-worker"))
    other = open_page(studio, context=one.context)
    assert lease_of(one) == lease_of(other)
    before = lease_of(one)
    press(one, "1")
    other.wait_for_function("b => document.querySelector('#pair [data-lease]').dataset.lease !== b", arg=before)
    expect(other.locator("#label-says")).to_contain_text("judged in another window")
    assert len(current(studio.db)) == 1
    assert lease_of(one) == lease_of(other)


@pytest.mark.slow
def test_another_browser_gets_another_pair(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 5)
    one, other = open_page(studio.start("--no-worker")), open_page(studio)
    assert lease_of(one) != lease_of(other)
    press(one, "1")
    other.keyboard.press("u")  # nothing of this browser's own to take back
    other.wait_for_timeout(500)
    assert len(current(studio.db)) == 1


@pytest.mark.slow
def test_the_server_may_restart_between_two_votes(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 6)
    page = open_page(studio.start("--no-worker"))
    press(page, "1")
    lease = lease_of(page)
    studio.stop()
    studio.start("--no-worker")
    reload(page)
    page.wait_for_selector("#pair .pair")
    assert lease_of(page) == lease
    press(page, "2")
    assert len(current(studio.db)) == 2


@pytest.mark.slow
def test_a_vote_on_a_dead_server_is_told_at_once_and_counts_once_when_it_is_back(
    studio: Studio, open_page: OpenPage
) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "author-of-all").id)
    for number in range(4):
        factories.make_matchup(studio.db, texts=[f"Long {number}. " * 400, f"Also long {number}. " * 400])
    page = open_page(studio.start("--no-worker"), viewport={"width": 390, "height": 780})
    press(page, "1")
    before, texts = lease_of(page), shown_texts(page)
    page.keyboard.press("n")
    page.keyboard.type("half a thought")
    expect(page.locator("#draft-state")).to_have_text("Draft saved")
    page.keyboard.type(", ended")
    page.keyboard.press("Escape")
    page.evaluate("scrollTo({top: 600, behavior: 'instant'})")
    studio.stop(9)
    for key in ("2", "u", "2"):
        page.keyboard.press(key)
        expect(page.locator("#label-says")).to_contain_text("not saved yet", timeout=6_000)
        expect(page.locator("#draft-state")).to_be_in_viewport(timeout=6_000)
        expect(page.locator("#draft-state")).to_have_text("Not saved yet: no answer. What you typed is kept")
        page.wait_for_selector("#pair:not([aria-busy])", timeout=6_000)
        assert (lease_of(page), shown_texts(page)) == (before, texts)
        expect(page.locator("#note-text")).to_have_value("half a thought, ended")
    look(page, "studio-is-gone")
    studio.start("--no-worker")
    page.wait_for_timeout(4_000)  # Gradio finds it again and may load the page anew
    page.wait_for_selector("#pair .pair")
    assert lease_of(page) == before
    press(page, "2")
    first, second = current(studio.db)
    assert (second.lease_id, second.rationale) == (before, "half a thought, ended")
    assert first.lease_id != before


@pytest.mark.slow
def test_what_was_pressed_without_a_network_is_told_each_time_and_counts_for_nothing(
    studio: Studio, open_page: OpenPage
) -> None:
    fill(studio.db, 4)
    page = open_page(studio.start("--no-worker"))
    press(page, "s")
    before = lease_of(page)
    page.context.set_offline(True)
    for key in ("1", "2", "u"):
        page.keyboard.press(key)
        expect(page.locator("#label-says")).to_contain_text("not saved yet", timeout=6_000)
        page.wait_for_selector("#pair:not([aria-busy])", timeout=6_000)
    page.context.set_offline(False)
    page.wait_for_timeout(4_000)  # Gradio finds the studio again and loads the page anew
    page.wait_for_selector("#pair .pair")
    assert lease_of(page) == before
    press(page, "t")
    assert [(row.lease_id, row.verdict) for row in current(studio.db)][1:] == [(before, Verdict.tie)]


@pytest.mark.slow
def test_a_vote_that_a_proxy_refuses_is_told_at_once(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 3)
    page = open_page(studio.start("--no-worker"))
    before, place = lease_of(page), page.locator("#pair").bounding_box()
    page.route("**/api/label/vote", lambda route: route.fulfill(status=502, body="Bad Gateway"))
    page.keyboard.press("1")
    expect(page.locator("#label-says")).to_contain_text("not saved yet", timeout=6_000)
    assert page.locator("#pair").bounding_box() == place, "what is said moves nothing"
    page.unroute_all(behavior="wait")
    assert lease_of(page) == before
    press(page, "1")
    assert [row.lease_id for row in current(studio.db)] == [before]


@pytest.mark.slow
def test_an_empty_pool_says_so_and_offers_to_fill_it(studio: Studio, open_page: OpenPage) -> None:
    fill(studio.db, 1)
    page = open_page(studio.start("--no-worker"))
    press(page, "1")
    expect(page.locator("#pair .notice-neutral h3")).to_have_text("Nothing to judge right now")
    expect(page.locator("#vote-left")).to_be_hidden()
    page.locator("#fill-pool").click()
    expect(page.locator("#pair .notice-neutral")).to_be_hidden()
    expect(page.locator("#pair .notice h3")).to_have_text("No worker is running: start `studio worker`")
    expect(page.locator("#fill-pool")).to_be_hidden()
    factories.make_matchup(studio.db, texts=["One reply.", "Another reply."])
    page.wait_for_selector("#pair .pair")  # by itself
    page.keyboard.press("u")  # and undo still reaches back over the empty state
    expect(page.locator("#pair .pair")).to_be_visible()


def test_the_browser_never_learns_who_wrote_what(studio: Studio, open_page: OpenPage, browser) -> None:
    fill(studio.db, 6)
    studio.start("--no-worker")
    bodies: list[str] = []
    context = browser.new_context()
    context.on(
        "response",
        lambda answer: bodies.append(answer.text()) if "_api/" in answer.url or "/api/" in answer.url else None,
    )
    page = open_page(studio, context=context)
    for key in "12t":
        press(page, key)
    ids = [policy.id for policy in policies.list_policies(studio.db)]
    seen = page.content() + "".join(bodies)
    context.close()
    assert len(bodies) >= 3
    assert not [secret for secret in [*ids, "author-of-all", 'first hand"', "generation"] if secret in seen]


@pytest.mark.parametrize("count", [60])
def test_a_vote_shows_the_next_pair_without_waiting(studio: Studio, open_page: OpenPage, count: int) -> None:
    fill(studio.db, count + 5)
    page = open_page(studio.start("--no-worker"))
    page.evaluate(
        """() => {
          window.seen = []; let from = 0; let lease = document.querySelector('#pair [data-lease]').dataset.lease;
          document.addEventListener('keydown', () => { from = performance.now(); }, true);
          new MutationObserver(() => {
            const now = document.querySelector('#pair [data-lease]')?.dataset.lease;
            if (now && now !== lease) { lease = now; window.seen.push(performance.now() - from); }
          }).observe(document.querySelector('#pair'), {childList: true, subtree: true, attributes: true});
        }"""
    )
    for key in itertools.islice(itertools.cycle("12tx"), count):
        press(page, key)
    seen = sorted(page.evaluate("window.seen"))
    median, p95 = statistics.median(seen), seen[int(0.95 * len(seen))]
    print(f"vote to next pair: median {median:.0f} ms, p95 {p95:.0f} ms, worst {seen[-1]:.0f} ms, n = {len(seen)}")
    assert len(seen) == count == len(current(studio.db))
    # Generous against a busy machine; alone it is a fraction of this.
    assert median < 1000
