"""The page at three widths, light and dark: nothing overflows, everything can be read, reached and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page

from feedback.datasets import freeze
from feedback.store.models import policies, runs
from feedback.types import MetricPoint, Run, RunState, now
from tests import factories
from tests.browser.conftest import Studio, open_tab, press, studio_in

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]

# Every visible text with the colours it is painted in; disabled controls are exempt in WCAG, too.
CONTRAST = """
() => {
  const numbers = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1]; };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const background = e => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) {
      const c = numbers(getComputedStyle(at).backgroundColor);
      if (c[3] > 0) layers.push(c);
      if (c[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const bad = [];
  const walker = document.createTreeWalker(document.querySelector('.gradio-container'), NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement, box = e.getBoundingClientRect();
    const said = node.textContent.trim();
    if (!said || !box.width || !box.height) continue;
    if (!e.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    if (e.closest('[disabled], [aria-hidden=true], .unseen, style, script, .visually-hidden, svg')) continue;
    const style = getComputedStyle(e);
    if (parseFloat(style.fontSize) === 0) continue;
    const behind = background(e), front = over(numbers(style.color), behind);
    const [a, b] = [light(front), light(behind)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const enough = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const colours = `${style.color} on ${behind.map(Math.round)}`;
    if (ratio < enough) bad.push(`${said.slice(0, 40)}: ${ratio.toFixed(2)} (${colours})`);
  }
  return [...new Set(bad)];
}
"""
UNNAMED = """
() => [...document.querySelectorAll('.gradio-container :is(button, a[href], input, select, textarea)')]
  .filter(e => e.checkVisibility() && !e.closest('[aria-hidden=true]'))
  .filter(e => !(e.innerText || e.ariaLabel || e.title || e.labels?.length || e.getAttribute('aria-labelledby')
                 || e.closest('label')))
  .map(e => e.outerHTML.slice(0, 200))
"""


def furnish(studio: Studio) -> None:
    """Something of everything: pairs, judgments, a dataset, policies, runs in several states."""
    policy = factories.make_policy(studio.db, "starter")
    policies.promote_policy(studio.db, policy.id)
    for number in range(30):  # every page that is opened holds one
        texts = [f"A long reply, number {number}. " + "It goes on and on. " * (30 if number > 6 else 3), "A short one."]
        factories.make_matchup(studio.db, policy=policy, texts=texts)
    factories.judge_by(studio.db, factories.longer, count=6)
    freeze.freeze(studio.db, "round-1")
    factories.make_policy(studio.db, "a-policy-with-quite-a-long-name-of-its-own-from-round-1", parent_id=policy.id)
    failed = runs.save_run(studio.db, Run(method="dpo", config={"dataset": "round-1"}))
    error = "The loss became nan at step 3; lower the learning rate and start again."
    runs.transition_run(studio.db, failed.id, expected=[RunState.queued], to=RunState.failed, error=error)
    running = runs.save_run(studio.db, Run(method="reward", config={"dataset": "round-1"}))
    runs.transition_run(
        studio.db, running.id, expected=[RunState.queued], to=RunState.running, started_at=now(), progress=0.4
    )
    points = [
        MetricPoint(step=s, name=n, value=v / (s + 1)) for s in range(30) for n, v in (("loss", 1), ("accuracy", 0.9))
    ]
    runs.save_metrics(studio.db, running.id, points)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One studio for all that only look."""
    with studio_in(tmp_path_factory.mktemp("furnished")) as running:
        furnish(running)
        yield running.start("--no-worker")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_every_tab_fits_and_reads(furnished: Studio, open_page: OpenPage, width: int, scheme: str) -> None:
    page = open_page(furnished, viewport={"width": width, "height": 740}, color_scheme=scheme)
    for tab in ("Label", "Train", "Policies", "Datasets"):
        open_tab(page, tab)
        picks = page.locator(f"#{tab.lower()}-tab .pick")
        if tab != "Label":
            picks.first.wait_for()
            picks.first.click()
            page.locator(f"#{tab.lower()}-tab .detail").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{tab} scrolls sideways"
        assert page.evaluate(CONTRAST) == [], tab
        assert page.evaluate(UNNAMED) == [], tab


@pytest.mark.slow
def test_the_verdict_bar_stays_in_sight_of_long_replies(studio: Studio, open_page: OpenPage) -> None:
    policy = factories.make_policy(studio.db, "starter")
    policies.promote_policy(studio.db, policy.id)
    factories.make_matchup(studio.db, policy=policy, texts=["Long. " * 900, "Also long. " * 900])
    page = open_page(studio.start("--no-worker"), viewport={"width": 360, "height": 640}, has_touch=True)
    boxes = [page.locator(f"#{name}").bounding_box() for name in ("vote-left", "vote-right", "vote-tie", "vote-undo")]
    assert all(box and box["y"] + box["height"] <= 640 for box in boxes)
    assert all(box and box["height"] >= 40 for box in boxes), "too small for a thumb"
    assert len({box["y"] for box in boxes if box}) == 1, "one row"
    page.mouse.move(180, 320)
    page.mouse.wheel(0, 2_000)
    page.wait_for_function("scrollY > 1000")
    tabs = [tab.bounding_box() for tab in page.locator(".reply-tab").all()]
    assert len(tabs) == 2 and all(box and 0 <= box["y"] < 20 for box in tabs), "both headings stay above the replies"


def test_voting_does_not_move_the_buttons(furnished: Studio, open_page: OpenPage) -> None:
    page = open_page(furnished, viewport={"width": 1280, "height": 740})
    before = page.locator("#vote-left").bounding_box()
    press(page, "1")
    after = page.locator("#vote-left").bounding_box()
    assert before and after
    assert before["x"] == after["x"]
    assert before["width"] == after["width"]


def test_the_page_loads_nothing_from_elsewhere_and_reports_no_error(
    furnished: Studio, open_page: OpenPage, browser: Browser
) -> None:
    context = browser.new_context()
    sent: list[str] = []
    errors: list[str] = []
    context.on("request", lambda request: sent.append(request.url))
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page = open_page(furnished, context=context)
    for tab in ("Train", "Policies", "Datasets", "Label"):
        open_tab(page, tab)
        page.wait_for_timeout(300)
    context.close()
    assert [url for url in sent if not url.startswith((furnished.url, "data:", "blob:"))] == []
    assert errors == []


@pytest.mark.slow
def test_keyboard_focus_is_visible(furnished: Studio, open_page: OpenPage) -> None:
    page = open_page(furnished)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "vote-left":
            break
    assert page.evaluate("document.activeElement.id") == "vote-left"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
