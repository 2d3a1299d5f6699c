"""The Playground in a real browser, with the starter's real replies."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect

from feedback.store.content.chats import list_chats
from feedback.store.models import policies
from feedback.types import Purpose
from studio.identity import LOCAL
from tests import factories
from tests.browser.conftest import Studio, open_tab
from tests.browser.test_accessible import assert_accessible
from tests.browser.test_screen_layout import AXE
from tests.factories import get_matchup, list_judgments

pytestmark = pytest.mark.timeout(300)
OpenPage = Callable[..., Page]
REPLIES_MS = 120_000


def furnish(studio: Studio) -> None:
    policies.promote_policy(studio.db, factories.make_policy(studio.db, "starter").id)
    factories.make_policy(studio.db, "other")


def opened(studio: Studio, open_page: OpenPage, **options: object) -> Page:
    page = open_page(studio, **options)
    open_tab(page, "Playground")
    expect(page.locator("#chat-left")).to_have_value("starter")
    return page


def say(page: Page, text: str, replies: int) -> None:
    turns = page.locator(".chat-turn")
    before = turns.count()
    page.locator("#chat-message").fill(text)
    page.locator("#chat-message").press("Enter")
    expect(turns).to_have_count(before + 1)
    expect(page.locator(".chat-turn:last-child .chat-meta")).to_have_count(replies, timeout=REPLIES_MS)


@pytest.mark.slow
def test_two_policies_reply_blind_and_a_vote_names_them(studio: Studio, open_page: OpenPage) -> None:
    furnish(studio)
    page = opened(studio.start("--no-worker"), open_page)
    expect(page.locator(".chat-empty")).to_contain_text("Talk with a policy")
    expect(page.locator("#chat-blind")).to_be_disabled()
    page.locator("#chat-right").select_option("other")
    page.locator("#chat-blind").check()
    say(page, "Tell me about the moon.", 2)
    heads = page.locator(".chat-reply h4")
    expect(heads).to_have_text(["Left", "Right"])
    assert "starter" not in page.locator("#chat-turns").inner_text()
    page.get_by_role("button", name="Right is better").click()
    expect(heads.nth(1)).to_contain_text("goes on")
    assert {head.split("goes")[0].strip() for head in heads.all_text_contents()} == {"starter", "other"}
    expect(page.locator("#chat-note")).to_have_text("Saved: the right reply is better.")
    (judgment,) = list_judgments(studio.db)
    assert get_matchup(studio.db, judgment.matchup_id).purpose is Purpose.playground
    right = page.locator(".chat-right .chat-reply-body").inner_text()

    say(page, "And the sun?", 2)  # after the reply that was preferred
    (chat,) = list_chats(studio.db, LOCAL.name)
    prompt = factories.get_prompt(studio.db, factories.get_generation(studio.db, chat.said[1].left or "").prompt_id)
    assert [message["role"] for message in prompt.messages] == ["user", "assistant", "user"]
    assert " ".join(prompt.messages[1]["content"].split()) == " ".join(right.split())

    page.reload()
    page.wait_for_function("id => location.hash === `#playground/${id}`", arg=chat.id)
    expect(page.locator(".chat-turn")).to_have_count(2)
    page.get_by_role("button", name="Remove").first.click()
    expect(page.locator("#chat-list")).to_contain_text("No chats yet.")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".chat-turn")).to_have_count(2)


@pytest.mark.slow
def test_a_reply_is_drawn_again_edited_and_sent_on(studio: Studio, open_page: OpenPage) -> None:
    furnish(studio)
    page = opened(studio.start("--no-worker"), open_page)
    page.locator("#chat-setup summary").click()
    page.locator("#chat-seed").fill("7")
    say(page, "Tell me about the moon.", 1)
    body = page.locator(".chat-reply-body")
    first = body.inner_text()
    expect(page.locator(".chat-meta")).to_contain_text("seed 7")
    page.locator("#chat-seed").fill("8")
    page.get_by_role("button", name="Another").click()
    expect(page.locator(".chat-meta")).to_contain_text("seed 8")
    assert body.inner_text() != first
    page.locator("#chat-seed").fill("7")
    page.get_by_role("button", name="Another").click()
    expect(page.locator(".chat-meta")).to_contain_text("seed 7")
    assert body.inner_text() == first  # the same seed, the same reply

    page.get_by_role("button", name="Edit").click()
    page.locator(".chat-edit").fill("The moon is **far** away. <b>So far.</b>")
    page.get_by_role("button", name="Save as a demonstration").click()
    expect(page.locator(".chat-meta")).to_have_text("edited by you")
    expect(body.locator("strong")).to_have_text("far")
    expect(body).to_contain_text("<b>So far.</b>")  # a person's markup is text too
    page.get_by_role("button", name="Send to the annotators").click()
    expect(page.locator("#chat-note")).to_contain_text("work prompts")
    page.locator("[data-chat=new]").click()
    page.locator("#chat-search").fill("far away")
    expect(page.locator("#chat-list li")).to_have_count(1)
    page.locator("#chat-search").fill("elephants")
    expect(page.locator("#chat-list")).to_contain_text("No chat holds these words.")


@pytest.mark.slow
def test_stop_keeps_what_was_said_and_closing_the_tab_ends_the_drawing(studio: Studio, open_page: OpenPage) -> None:
    furnish(studio)
    page = opened(studio.start("--no-worker"), open_page)
    page.locator("#chat-setup summary").click()
    page.locator("#chat-temperature").fill("5")  # hardly ever an end token
    page.locator("#chat-max_new_tokens").fill("400")
    page.locator("#chat-message").fill("Tell me about the moon.")
    page.locator("#chat-send").click()
    written = re.compile(r"^(?!Loading|Waiting)\S+ \S+ \S+")
    expect(page.locator(".chat-writing")).to_have_text(written, timeout=REPLIES_MS)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".chat-meta")).to_contain_text("stopped")
    expect(page.locator(".chat-reply-body")).to_have_text(written)

    page.get_by_role("button", name="Another").click()
    expect(page.locator(".chat-writing")).to_have_text(written)
    (chat,) = list_chats(studio.db, LOCAL.name)
    replies = f"{studio.url}/api/chats/{chat.id}/replies"
    asked = {"turn": 0, "seed": -1}  # refused as being written, and once it is not, for its seed
    assert httpx.post(replies, json=asked).status_code == 409
    page.close()
    began = time.monotonic()
    while httpx.post(replies, json=asked).status_code == 409:
        time.sleep(0.1)
    print(f"the drawing ended {time.monotonic() - began:.2f} s after the tab")
    assert time.monotonic() - began < 30
    before = chat.said[0].left
    assert list_chats(studio.db, LOCAL.name)[0].said[0].left == before  # what nobody heard to its end is not kept


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_playground_reads_and_fits(studio: Studio, open_page: OpenPage, width: int, scheme: str) -> None:
    furnish(studio)
    page = opened(studio.start("--no-worker"), open_page, viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert_accessible(page, "empty", f"playground-{width}-{scheme}")
    page.locator("#chat-right").select_option("other")
    say(page, "Tell me about the moon.", 2)
    page.locator("#chat-setup summary").click()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert_accessible(page, "two replies", f"playground-{width}-{scheme}")
