"""The same payloads where people and runs write: sign-in, users, the audit log, chart labels. And the second line:
markup that got in all the same does nothing, because the content policy lets no inline script run.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from feedback.store.models import policies, runs
from feedback.store.people import audit
from feedback.tables import UserRow
from feedback.types import MetricPoint, Run, RunState, User
from studio.security import accounts as users
from tests import factories
from tests.browser.conftest import Studio, open_tab
from tests.browser.test_hostile_text import PAYLOADS, assert_harmless, listen
from tests.browser.test_people import PASSWORD, context, sign_in

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
OpenPage = Callable[..., Page]
__all__ = ["context"]  # a fixture of the module next door


def test_the_corpus_is_large_and_has_no_doubles() -> None:
    assert len(PAYLOADS) >= 60
    assert len(set(PAYLOADS)) == len(PAYLOADS)


def test_payloads_typed_at_the_sign_in_page_are_text(studio: Studio, context: BrowserContext) -> None:
    users.add_user(studio.db, "ada", "admin", actor="test", password=PASSWORD)
    page = context.new_page()
    studio.start("--no-worker")
    happened = listen(page, studio)
    page.goto(studio.url)
    for payload in [one for one in PAYLOADS if "\n" not in one and "\t" not in one and len(one) <= 80][:12]:
        page.get_by_label("Name").fill(payload)
        page.get_by_label("Password").fill(payload)
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        assert page.get_by_label("Name").input_value() == payload
        assert page.locator("script, img, iframe, svg, body > :not(main)").count() == 0, payload
        assert page.evaluate("window.pwned") is None and happened == [], payload


def test_payloads_in_names_and_in_the_audit_log_are_text(studio: Studio, context: BrowserContext) -> None:
    """Names are checked when they are given; here they come from a database that somebody else wrote."""
    users.add_user(studio.db, "ada", "admin", actor="test", password=PASSWORD)
    with studio.db.write() as session:
        for number, payload in enumerate(PAYLOADS):
            plain = User(name=f"user-{number}").model_dump(exclude={"pseudonym"})
            session.add(UserRow(**{**plain, "name": payload}))
    for payload in PAYLOADS[:40]:
        audit.save_event(studio.db, payload, payload, payload, **{payload: payload})
    page = context.new_page()
    studio.start("--no-worker")
    sign_in(page, f"{studio.url}/#label", "ada")
    page.wait_for_selector("#pair .pair-empty")
    happened = listen(page, studio)
    open_tab(page, "People")
    page.wait_for_selector("#users-table table")
    page.locator("#audit button").first.click()
    for number in (1, len(PAYLOADS) // 2, len(PAYLOADS)):
        page.locator("#users-table [data-pick]").nth(number).click()
        expect(page.locator("#user-detail h3")).to_have_text(PAYLOADS[number - 1])
    names = page.locator("#users-table [data-pick]").all_text_contents()
    assert names[1:] == PAYLOADS
    assert "onerror" in page.locator("#audit-table").inner_text()
    assert_harmless(page, "People", happened)
    strange = "#users-table, #user-detail, #audit-table, #user-secret"
    tags = "script, img, svg, iframe, object, embed, form, style, link, base, a, input, math, h1"
    assert page.evaluate(
        "([panes, tags]) => [...document.querySelectorAll(panes)].flatMap(p => [...p.querySelectorAll(tags)]).length",
        [strange, tags],
    ) == 0  # fmt: skip


def test_payloads_as_chart_labels_are_text(studio: Studio, open_page: OpenPage) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "base").id)
    run = runs.save_run(studio.db, Run(method="dpo", config={}))
    names = [f"loss/{payload}" for payload in PAYLOADS[:20]] + [f"accuracy/{payload}" for payload in PAYLOADS[20:40]]
    points = [MetricPoint(step=step, name=name, value=step / 3) for name in names for step in (1, 2, 3)]
    runs.save_metrics(studio.db, run.id, points)
    runs.transition_run(studio.db, run.id, expected=[RunState.queued], to=RunState.failed, error="ended")
    page = open_page(studio.start("--no-worker"))
    happened = listen(page, studio)
    open_tab(page, "Train")
    page.locator(f"#runs-table [data-pick='{run.id}']").click()
    page.wait_for_selector("#run-detail .detail")
    page.wait_for_selector("#first-plot .scatterlayer .trace")
    page.wait_for_timeout(500)
    assert page.evaluate("window.pwned") is None
    assert happened == []
    made = ":is(#first-plot, #second-plot) :is(script, img, iframe, form, a[href]:not(.plotlyjsicon))"
    assert page.locator(made).count() == 0


def test_markup_that_got_in_all_the_same_does_nothing(studio: Studio, open_page: OpenPage) -> None:
    """Each payload is put into the page as markup, as a hole in the escaping would do it."""
    page = open_page(studio.start("--no-worker"))
    reached: list[str] = []

    def elsewhere(route: Route) -> None:
        reached.append(route.request.url)
        route.abort()

    page.route(lambda url: "evil.invalid" in url, elsewhere)
    # A refresh is a navigation, which no content policy forbids: against it there is only the escaping.
    for payload in [one for one in PAYLOADS if "http-equiv=refresh" not in one]:
        # Who clicks on a plain link wants to go there; one that is a script in disguise must do nothing.
        page.evaluate(
            """markup => {
                const pane = Document.prototype.querySelector.call(document, '#pair');
                pane.innerHTML = markup;
                for (const link of pane.querySelectorAll('a:not([href^=http])')) {
                    link.dispatchEvent(new MouseEvent('click'));
                }
            }""",
            payload,
        )
        page.wait_for_timeout(20)
        assert page.evaluate("window.pwned") is None, payload
        assert page.url.startswith(studio.url), payload
    page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'window.pwned = 1';
        document.head.append(script);
    }""")
    assert page.evaluate("window.pwned") is None, "not even a script made by a script runs, unless it was vouched for"
    assert reached == []
