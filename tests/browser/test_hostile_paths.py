"""The corpus on every path to the page that a vote's texts do not take: remarks while they are made, reviews,
guidelines, messages, previews, samples, names, refusals. Nothing runs, nothing is asked of elsewhere, and the page's
own code never meets its content policy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import update

from feedback.datasets import freeze
from feedback.labeling import assignment, judging
from feedback.store.labeling import batches, reviews, settings
from feedback.store.models import policies, runs
from feedback.tables import PolicyRow
from feedback.types import Batch, Guidelines, Run, RunState
from tests import factories
from tests.browser.conftest import Studio, open_tab, press
from tests.browser.test_hostile_text import PAYLOADS, listen
from tests.browser.worlds import put
from tests.factories import list_judgments

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
OpenPage = Callable[..., Page]

CHUNKS = ["\n".join(PAYLOADS[start::6]) for start in range(6)]
"""All payloads in six texts, for places that show a few."""
ONE_LINE = [payload for payload in PAYLOADS if "\n" not in payload and "\t" not in payload]
WATCH = """window.refused = [];
document.addEventListener('securitypolicyviolation', e => refused.push(`${e.violatedDirective} ${e.blockedURI}`));"""
# Whatever in the document could act: a handler, an address from a payload, an element that loads or runs.
ACTING = """() => {
  const said = new Set('title value aria-label data-pick data-label data-empty placeholder'.split(' '));
  const loads = new Set('IFRAME OBJECT EMBED VIDEO AUDIO BASE PORTAL FENCEDFRAME MARQUEE TEMPLATE'.split(' '));
  const isActing = e => loads.has(e.tagName) && !e.closest('.js-plotly-plot') || [...e.attributes].some(a =>
    a.name.startsWith('on') || !said.has(a.name) && /evil\\.invalid|javascript:|pwned/i.test(a.value));
  return [...document.querySelectorAll('body *')].filter(isActing).map(e => e.outerHTML.slice(0, 200));
}"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    made = context.new_page()
    made.add_init_script(WATCH)
    yield made
    context.close()


def visit(page: Page, studio: Studio) -> list[str]:
    happened = listen(page, studio)
    page.goto(f"{studio.url}/#label")
    page.wait_for_selector("#pair .pair, #pair .pair-empty")
    return happened


def assert_nothing_acts(page: Page, happened: list[str], where: str) -> None:
    assert page.evaluate("window.pwned") is None, where
    assert happened == [], where
    assert page.evaluate("window.refused") == [], f"{where}: the content policy was met"
    assert page.evaluate(ACTING) == [], where


def test_differences_edits_notes_and_marks_of_each_payload(studio: Studio, page: Page) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "hostile").id)
    for payload in PAYLOADS:
        put(studio.db, [f"{payload} one", f"{payload} other {payload}"], f"asks: {payload}")
    studio.start("--no-worker")
    happened = visit(page, studio)
    page.keyboard.press("d")
    for number in range(len(PAYLOADS)):
        asked = page.locator("#pair .prompt-card .model-text").text_content() or ""
        payload = asked.removeprefix("asks: ")
        assert payload in PAYLOADS
        assert page.locator("#pair .diff-view").first.text_content() in (f"{payload} one", f"{payload} other {payload}")
        assert page.locator("#pair .diff-view mark").count() > 0
        page.keyboard.press("e")
        page.keyboard.press("1")
        page.locator("#edit-text").fill(f"better: {payload}")
        assert payload in (page.locator("#edit-diff").text_content() or "")
        page.keyboard.press("Escape")
        page.keyboard.press("n")
        page.locator("#note-text").fill(payload)
        page.keyboard.press("Escape")
        page.keyboard.press("m")
        page.keyboard.press("+")
        page.locator("#marks-list input").fill(payload)
        page.keyboard.press("Escape")
        assert_nothing_acts(page, happened, payload)
        if number % 20 == 0:  # from the server's draft, not from what was typed
            expect(page.locator("#draft-state")).to_have_text("Draft saved")
            page.reload()
            page.wait_for_selector("#marks-list li", state="attached")
            page.keyboard.press("Escape")
            page.keyboard.press("d")
            assert_nothing_acts(page, happened, f"{payload}, reloaded")
        if number < len(PAYLOADS) - 1:
            press(page, "1")
    rows = list_judgments(studio.db, current_only=True)
    written = {row.rationale for row in rows}
    assert len(rows) == len(PAYLOADS) - 1
    # A field of one line break style: what the browser itself makes of \\r\\n is not ours.
    assert written <= set(PAYLOADS) and len(written) == len(rows)
    assert all(row.edited and row.spans and row.spans[0]["reason"] for row in rows)


def judged_by_payloads(studio: Studio) -> None:
    """One judgment per payload, by an annotator of that name and with that reason; acts, messages, a dispute."""
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "hostile").id)
    for payload in PAYLOADS:
        put(studio.db, [f"{payload} one", f"{payload} other"], f"asks: {payload}")
        task = assignment.lease_next(studio.db, payload)
        assert task is not None
        span = {"index": 0, "start": 0, "end": 3, "mark": "bad", "reason": payload}
        judging.submit(studio.db, task.lease_id, payload, verdict="left", rationale=payload, spans=[span])
    row = list_judgments(studio.db)[-1]
    for chunk in CHUNKS:
        reviews.exclude_judgment(studio.db, row.id, "rex", chunk[:2000])
        reviews.restore_judgment(studio.db, row.id, chunk[:80], chunk[:2000])
    disputed = put(studio.db, [f"{CHUNKS[0]} one", f"{CHUNKS[1]} other"], CHUNKS[2])
    batches.save_batch(studio.db, Batch(name="two", required=2, max_required=2), matchup_ids=[disputed.id])
    factories.judge_by(studio.db, lambda *_: 1, annotator="ann", count=1)
    factories.judge_by(studio.db, lambda *_: 0, annotator="bob", count=1)


def test_names_reasons_and_judgments_on_the_review_tab(studio: Studio, page: Page) -> None:
    judged_by_payloads(studio)
    studio.start("--no-worker")
    happened = visit(page, studio)
    open_tab(page, "Review")
    names = page.locator("#annotators-table .pick")
    expect(names).to_have_count(len(PAYLOADS) + 2)
    shown = names.all_text_contents()
    assert {name for name in shown if name not in ("ann", "bob")} == set(PAYLOADS)
    assert_nothing_acts(page, happened, "annotators")
    for place in range(0, len(shown), 9):
        names.nth(place).click()
        expect(page.locator("#annotator-detail h3")).to_have_text(shown[place], use_inner_text=False)
        page.locator("#evidence-list .pick").first.click()
        expect(page.locator("#chosen-judgment strong")).to_have_count(1)
        assert_nothing_acts(page, happened, f"judgments of {shown[place]}")
    page.locator("#review-reason textarea").fill(CHUNKS[3][:1500])
    page.locator("#act-message").click()
    expect(page.locator("#review-log tbody tr").first).to_contain_text("message", ignore_case=True)
    page.locator("#adjudication button").first.click()
    page.locator("#next-dispute").click()
    expect(page.locator("#disputed-pair .prompt-card")).to_contain_text("<script>")
    assert_nothing_acts(page, happened, "acts and disputes")


def test_guidelines_criteria_and_messages(studio: Studio, page: Page) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "hostile").id)
    for number in range(len(CHUNKS) + 2):
        put(studio.db, [f"Reply {number} one", f"Reply {number} other"], f"Request {number}?")
    factories.judge_by(studio.db, factories.longer, annotator="local", count=1)
    short = [payload for payload in ONE_LINE if len(payload) <= 60 and "," not in payload]
    studio.start("--no-worker")
    happened = visit(page, studio)
    for number, chunk in enumerate(CHUNKS):
        reviews.save_message(studio.db, "local", "rex", chunk[:2000])
        asked = Guidelines(text=chunk, criteria=short[8 * number :][:8] or ["Clear"], asks_rationale=True)
        settings.save_guidelines(studio.db, asked)
        press(page, "1")
        expect(page.locator("#guidelines-version")).to_have_text(f"version {number + 1}")
        expect(page.locator("#criteria-table .criterion")).to_have_count(len(asked.criteria))
        expect(page.locator("#reviewer-message-text")).to_have_text(
            chunk[:2000].split("\n")[0], use_inner_text=False
        ) if (len(chunk.split("\n")) == 1) else expect(page.locator("#reviewer-message")).to_be_visible()
        page.keyboard.press("i")
        assert_nothing_acts(page, happened, f"guidelines {number}")
    page.keyboard.press("p")
    expect(page.locator("#figures-body .told li")).to_have_count(len(CHUNKS))
    assert_nothing_acts(page, happened, "messages")


def test_previews_samples_names_and_refusals(studio: Studio, page: Page) -> None:
    base = factories.make_policy(studio.db, "base")
    policies.promote_policy(studio.db, base.id)
    for chunk in CHUNKS:
        put(studio.db, [f"{chunk} one", f"{chunk} longer other"], f"asks: {chunk}")
    factories.judge_by(studio.db, factories.longer, annotator=PAYLOADS[0])
    dataset = freeze.freeze(studio.db, "hostile")
    run = runs.save_run(studio.db, Run(method="dpo", config={"dataset": dataset.name, "note": PAYLOADS[3]}))
    runs.transition_run(
        studio.db, run.id, expected=[RunState.queued], to=RunState.failed, error=CHUNKS[0],
        result={name: name for name in ONE_LINE[:30]},
    )  # fmt: skip
    directory = studio.home.run_dir(run.id)
    directory.mkdir(parents=True)
    said = [[[chunk, f"{chunk} {step}"] for chunk in CHUNKS] for step in (0, 1)]
    lines = [json.dumps({"step": step, "said": pairs}) for step, pairs in enumerate(said)]
    (directory / "samples.jsonl").write_text("\n".join(lines), encoding="utf-8")
    studio.home.log_path(run.id).write_text("Traceback (most recent call last):\n  File 'x'\n" + CHUNKS[1])
    named = [factories.make_policy(studio.db, f"child-{n}", parent_id=base.id) for n in range(len(ONE_LINE))]
    with studio.db.write() as session:  # names are checked when they are given; these are somebody else's
        for row, payload in zip(named, ONE_LINE, strict=True):
            session.execute(update(PolicyRow).where(PolicyRow.id == row.id).values(name=payload))
    studio.start("--no-worker")
    happened = visit(page, studio)
    open_tab(page, "Train")
    page.locator(f"#runs-table [data-pick='{run.id}']").click()
    expect(page.locator("#run-detail .sample-replies").first).to_be_visible()
    page.locator("#train-parent input").click()
    page.get_by_role("option").first.wait_for()
    assert_nothing_acts(page, happened, "samples, errors, policies to choose from")
    page.keyboard.press("Escape")
    open_tab(page, "Policies")
    for row in (named[0], named[len(named) // 2], named[-1]):
        page.locator(f"#policies-table [data-pick='{row.id}']").click()
        expect(page.locator("#policy-detail .detail")).to_be_visible()
        page.locator("#promote").click()
        page.locator("#promote-no").wait_for()
        assert_nothing_acts(page, happened, f"policy {row.id}")
    assert set(ONE_LINE) <= set(page.locator("#policies-table .pick").all_text_contents())
    open_tab(page, "Datasets")
    page.locator(f"#datasets-table [data-pick='{dataset.id}']").click()
    expect(page.locator("#dataset-detail .preview tbody tr")).to_have_count(len(CHUNKS))
    for payload in ONE_LINE[::8]:
        page.locator("#dataset-name textarea").fill(payload)
        page.locator("#freeze").click()
        told = page.locator(".toast-body, .toast-text").last
        expect(told).to_be_visible()
        assert_nothing_acts(page, happened, f"refused {payload}")
