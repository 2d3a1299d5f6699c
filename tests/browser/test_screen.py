"""Each thing an annotator can do, done by keyboard in a real browser and looked up in the database."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import update
from sqlmodel import select

from feedback.datasets import examples, freeze
from feedback.store.datasets import datasets as dataset_store
from feedback.store.labeling import settings
from feedback.tables import GenerationRow, JudgmentRow, LeaseRow
from feedback.types import DatasetFilters, Guidelines, JudgmentState, LeaseState, Verdict, now
from tests import factories
from tests.browser.conftest import Studio, lease_of, open_tab, press, until
from tests.browser.test_screen_layout import look
from tests.browser.worlds import CONVERSATION, FORMATTED, empty_pool, put, put_pairs
from tests.factories import count_judgments, list_judgments

pytestmark = pytest.mark.timeout(240)
OpenPage = Callable[..., Page]


@pytest.fixture
def studio(desk: Studio) -> Studio:
    """The server with an empty pool."""
    empty_pool(desk.db)
    return desk


def last(studio: Studio) -> JudgmentRow:
    return list_judgments(studio.db, current_only=True)[-1]


def shown_texts(page: Page) -> list[str]:
    assert lease_of(page)  # the pool may say for a moment that it is empty
    return [box.text_content() or "" for box in page.locator("#pair .reply-card .model-text").all()]


def stored_texts(studio: Studio, row: JudgmentRow) -> list[str]:
    return [one.text for one in factories.replies_of_lease(studio.db, row.lease_id)]


def judgments_of(studio: Studio, lease: str) -> list[JudgmentRow]:
    return [row for row in list_judgments(studio.db) if row.lease_id == lease]


def saved(page: Page) -> None:
    expect(page.locator("#draft-state")).to_have_text("Draft saved")


@pytest.mark.slow
def test_strength_comes_with_the_same_key_and_stands_on_the_button(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 8)
    page = open_page(studio)
    scale = {"3": (0, 3), "4": (0, 2), "5": (0, 1), "6": (1, 1), "7": (1, 2), "8": (1, 3)}
    for key, (side, strength) in scale.items():
        wanted = shown_texts(page)[side]
        button = page.locator(f"#vote-{'right' if side else 'left'}-{strength}")
        expect(button.locator("kbd")).to_have_text(key)
        press(page, key)
        row = last(studio)
        assert row.strength == strength
        assert stored_texts(studio, row)[0 if row.verdict is Verdict.first else 1] == wanted


def test_a_ranking_of_nine_by_digits_with_ties(studio: Studio, open_page: OpenPage) -> None:
    texts = [f"Slogan number {n}" for n in range(9)]
    put(studio.db, texts)
    put(studio.db, texts[:3], "Another?")
    put_pairs(studio.db, 1)
    page = open_page(studio)
    shown = shown_texts(page)
    page.keyboard.press("Enter")  # nothing is ranked until a person did it
    expect(page.locator("#label-says")).to_contain_text("Not ranked yet: 1, 2, 3")
    for key in ("5", "2", "Shift+Digit9", "1", "1", "3"):  # 1 was a slip, taken back by itself
        page.keyboard.press(key)
    expect(page.locator("#rank-order")).to_have_text("5 > 2 = 9 > 3")
    expect(page.locator("#pair .reply-card").nth(4).locator(".place")).to_have_text("1st")
    page.keyboard.press("t")
    expect(page.locator("#rank-order")).to_have_text("5 > 2 = 9 > 3 > 1 = 4 = 6 = 7 = 8")
    assert shown_texts(page) == shown, "the cards stay where they are"
    press(page, "Enter")
    row = last(studio)
    by_text = dict(zip(stored_texts(studio, row), row.ranking or [], strict=True))
    assert [by_text[text] for text in shown] == [4, 2, 3, 4, 1, 4, 4, 4, 2]
    press(page, "x")
    assert (last(studio).verdict, last(studio).ranking) == (Verdict.both_bad, None)


def test_a_ranking_made_with_the_mouse_is_submitted_with_enter(studio: Studio, open_page: OpenPage) -> None:
    put(studio.db, ["one", "two", "three"])
    page = open_page(studio)
    for index in (2, 0, 1):
        page.locator("#pair .rank-pick").nth(index).click()
    press(page, "Enter")  # on the button that was clicked it would take the last place back
    row = last(studio)
    assert row.ranking and [row.ranking[index] for index in row.shown_order] == [2, 3, 1]


def test_a_ranking_is_kept_while_it_is_made_and_the_last_place_can_be_taken_back(
    studio: Studio, open_page: OpenPage
) -> None:
    put(studio.db, ["one", "two", "three", "four"])
    page = open_page(studio)
    for key in ("3", "1", "2", "Backspace"):
        page.keyboard.press(key)
    saved(page)
    page.reload()
    expect(page.locator("#rank-order")).to_have_text("3 > 1")


def test_skip_can_say_why_and_a_flag_goes_with_the_judgment(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 4)
    page = open_page(studio)
    page.keyboard.press("Shift+S")
    expect(page.locator("#panel-skip")).to_be_visible()
    press(page, "3")  # a digit is a reason here and judges nothing
    assert (last(studio).verdict, last(studio).skip_reason) == (Verdict.skip, "unclear")
    page.keyboard.press("f")
    page.keyboard.press("2")
    expect(page.locator("#panel-flag")).to_be_hidden()
    expect(page.locator(".tools [data-action=flag]")).to_have_class(re.compile("is-set"))
    press(page, "1")
    assert last(studio).flag == "personal"
    expect(page.locator(".tools [data-action=flag]")).not_to_have_class(re.compile("is-set"))
    press(page, "2")
    assert last(studio).flag is None


def test_a_digit_that_names_no_reason_judges_nothing(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    before = lease_of(page)
    for key, panel in (("f", "#panel-flag"), ("Shift+S", "#panel-skip")):
        page.keyboard.press(key)
        expect(page.locator(panel)).to_be_visible()
        for digit in "789":
            page.keyboard.press(digit)
        page.wait_for_timeout(500)
        expect(page.locator(panel)).to_be_visible()
        assert lease_of(page) == before and not judgments_of(studio, before)


def test_several_turns_are_shown_once(studio: Studio, open_page: OpenPage) -> None:
    put(studio.db, ["Look in the middle.", "Look at each."], CONVERSATION)
    page = open_page(studio)
    for turn in CONVERSATION:
        assert page.get_by_text(turn["content"], exact=True).count() == 1
    assert page.locator(".turn-role").all_inner_texts() == ["INSTRUCTIONS", "REQUEST", "EARLIER REPLY", "REQUEST"]


def test_markdown_code_and_formulas_are_drawn_and_raw_is_one_key_away(studio: Studio, open_page: OpenPage) -> None:
    put(studio.db, [FORMATTED, "Plain words."])
    page = open_page(studio)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    rendered = page.locator("#pair .reply-card .rendered")
    expect(rendered.get_by_role("heading", name="Binary search")).to_be_visible()
    expect(rendered.locator("strong")).to_have_text("each step")
    expect(rendered.locator("ol li")).to_have_count(2)
    expect(rendered.locator("pre code")).to_contain_text("def find(a, x):")
    expect(rendered.locator("math")).to_have_count(2)
    expect(rendered.locator("math mfrac")).to_be_visible()
    expect(rendered.locator("td").first).to_have_text("best")
    expect(rendered).to_contain_text("the page (https://example.invalid/x)")
    assert rendered.locator("a, img").count() == 0
    raw = page.locator("#pair .has-format > .model-text")
    expect(raw).to_be_hidden()
    page.keyboard.press("r")
    expect(raw).to_be_visible()
    expect(rendered).to_be_hidden()
    assert raw.text_content() == FORMATTED
    page.keyboard.press("r")
    expect(rendered).to_be_visible()
    assert [url for url in sent if not url.startswith(studio.url)] == []


def test_text_runs_in_its_own_direction(studio: Studio, open_page: OpenPage) -> None:
    put(studio.db, ["مرحبا بك\nEnglish here", "- שלום\n- hello"])
    page = open_page(studio)
    edges = """([line, box]) => { const r = new Range(), node = box.firstChild, at = node.data.indexOf(line);
        r.setStart(node, at); r.setEnd(node, at + line.length);
        const one = r.getBoundingClientRect(), all = box.getBoundingClientRect();
        return [Math.round(one.left - all.left), Math.round(all.right - one.right)]; }"""
    box = page.locator(".model-text", has_text="مرحبا").element_handle()
    left, right = page.evaluate(edges, ["مرحبا بك", box])
    assert right == 0 < left
    left, right = page.evaluate(edges, ["English here", box])
    assert left == 0 < right
    assert page.locator(".rendered li").nth(0).evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert page.locator(".rendered li").nth(1).evaluate("e => getComputedStyle(e).direction") == "ltr"


def test_differences_are_marked_on_one_key(studio: Studio, open_page: OpenPage) -> None:
    put(studio.db, ["The lake is calm, and the boat waits.", "The lake is calm and a boat waits here."])
    page = open_page(studio)
    page.keyboard.press("d")
    marked = {
        " ".join(card.locator(".diff-view").inner_text().split()): card.locator(".diff-view mark").all_inner_texts()
        for card in page.locator(".reply-card").all()
    }
    assert marked["The lake is calm, and the boat waits."] == [",", "the"]
    assert [text.strip() for text in marked["The lake is calm and a boat waits here."]] == ["a", "here"]
    expect(page.locator(".tools [data-action=diff]")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("d")
    expect(page.locator(".diff-view").first).to_be_hidden()


def test_an_edit_is_a_demonstration_and_a_pair(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio)
    original = shown_texts(page)[1]
    page.keyboard.press("e")
    page.keyboard.press("2")
    field = page.locator("#edit-text")
    expect(field).to_be_focused()
    expect(field).to_have_value(original)
    page.keyboard.press("End")
    page.keyboard.type(" And 1 more: 2, t, x, s.")  # typing judges nothing
    expect(page.locator("#edit-diff mark")).to_have_count(1)
    before = lease_of(page)
    page.keyboard.press("Control+Enter")
    page.wait_for_function("b => document.querySelector('#pair [data-lease]')?.dataset.lease !== b", arg=before)
    row = last(studio)
    wanted = f"{original} And 1 more: 2, t, x, s."
    assert row.edited and row.edited["text"] == wanted
    assert stored_texts(studio, row)[row.edited["index"]] == original
    assert row.verdict is (Verdict.first if row.edited["index"] == 0 else Verdict.second)
    freeze.freeze(studio.db, "edited", DatasetFilters(since=row.created_at))
    pairs = {pair.edited_by: (pair.chosen, pair.rejected) for pair in dataset_store.list_pairs(studio.db, "edited")}
    assert pairs[row.id] == (wanted, original)
    assert len(pairs) == 2
    made = [one.reply for one in examples.list_demonstrations(studio.db, "edited") if one.origin == "edited"]
    assert made == [wanted]


def test_words_are_marked_good_or_bad_by_keyboard(studio: Studio, open_page: OpenPage) -> None:
    # What shifts offsets: astral characters, Windows line ends, characters the page leaves out, markdown.
    texts = ["😀 It **is**\r\ntrue\u202e and good.", "Plain text without any trap."]
    put(studio.db, texts)
    put_pairs(studio.db, 1)
    page = open_page(studio)
    trap = next(i for i, text in enumerate(shown_texts(page)) if "😀" in text)
    page.keyboard.press("m")
    page.keyboard.press(str(trap + 1))
    for key in ("ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "+"):  # It **is** true
        page.keyboard.press(key)
    for key in ("ArrowRight", "ArrowRight", "-"):  # good.
        page.keyboard.press(key)
    expect(page.locator("#marks-list li")).to_have_count(2)
    page.locator("#marks-list input").nth(1).fill("says too much")
    page.keyboard.press("Escape")
    saved(page)
    assert page.evaluate("CSS.highlights.get('mark-good').size") == 1
    page.reload()
    page.wait_for_selector("#marks-list li")
    page.keyboard.press("Escape")
    press(page, "1")
    row = last(studio)
    stored = stored_texts(studio, row)
    marked = [(stored[s["index"]][s["start"] : s["end"]], s["mark"], s.get("reason")) for s in row.spans or []]
    assert marked == [("It **is**\r\ntrue", "good", None), ("good.", "bad", "says too much")]


def test_selected_words_can_be_marked_too(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio)
    page.evaluate(
        """() => { const node = document.querySelectorAll('#pair .reply-card .model-text')[1].firstChild;
        const range = new Range(); range.setStart(node, 0); range.setEnd(node, 5);
        getSelection().removeAllRanges(); getSelection().addRange(range); }"""
    )
    page.keyboard.press("-")
    expect(page.locator("#marks-list q")).to_have_text("Reply")
    page.keyboard.press("Backspace")
    expect(page.locator("#marks-list q")).to_have_count(0)


def test_notes_and_ratings_when_the_project_asks_never_hold_a_vote_back(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    asked = Guidelines(text="Be **strict**.", criteria=["Clear", "True"], asks_rationale=True)
    settings.save_guidelines(studio.db, asked)
    page = open_page(studio)
    expect(page.locator("#panel-note")).to_be_visible()
    press(page, "1")  # the fast path stays one key
    page.keyboard.press("n")
    page.keyboard.type("It is shorter, 1 2 t x.")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.get_by_role("group", name="Clear, reply 1").get_by_label("4").focus()
    page.keyboard.press("Space")
    page.get_by_role("group", name="True, reply 2").get_by_label("1").focus()
    page.keyboard.press("ArrowRight")
    saved(page)
    press(page, "t")
    row = last(studio)
    assert row.rationale == "It is shorter, 1 2 t x."
    by_place = {name: [ratings[index] for index in row.shown_order] for name, ratings in (row.criteria or {}).items()}
    assert by_place == {"Clear": [4, None], "True": [None, 2]}
    assert row.guidelines == 1
    assert page.locator("#note-text").input_value() == ""


def test_ratings_are_given_by_digits_and_never_judge_the_pair_behind(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    settings.save_guidelines(studio.db, Guidelines(text="Be strict.", criteria=["Clear", "True"]))
    page = open_page(studio)
    before = lease_of(page)
    page.keyboard.press("c")
    for key in ("4", "9", "2", "5"):  # there is no nine
        page.keyboard.press(key)
    expect(page.get_by_role("group", name="True, reply 1").get_by_label("5")).to_be_checked()
    expect(page.locator(".tools [data-action=criteria]")).to_have_class(re.compile("is-set"))
    assert lease_of(page) == before
    saved(page)
    press(page, "t")
    row = last(studio)
    by_place = {name: [ratings[index] for index in row.shown_order] for name, ratings in (row.criteria or {}).items()}
    assert by_place == {"Clear": [4, 2], "True": [5, None]}
    assert len(judgments_of(studio, before)) == 1


def test_a_note_that_came_back_is_in_sight_and_one_that_is_asked_for_can_be_closed(
    studio: Studio, open_page: OpenPage
) -> None:
    put_pairs(studio.db, 3)
    for number in range(3):  # an emptied pool counts from 1 again, and the server knows a version by its number
        settings.save_guidelines(studio.db, Guidelines(text=f"Be strict, {number}."))
    page = open_page(studio)
    expect(page.locator("#panel-note")).to_be_hidden()
    page.keyboard.press("n")
    page.keyboard.type("Half a thought")
    saved(page)
    page.reload()
    page.wait_for_selector("#pair .pair")
    expect(page.locator("#panel-note")).to_be_visible()
    expect(page.locator("#note-text")).to_have_value("Half a thought")
    page.locator("#panel-note .panel-close").click()
    expect(page.locator("#panel-note")).to_be_hidden()
    expect(page.locator(".tools [data-action=note]")).to_have_class(re.compile("is-set"))
    press(page, "1")
    assert last(studio).rationale == "Half a thought"
    expect(page.locator("#panel-note")).to_be_hidden()
    settings.save_guidelines(studio.db, Guidelines(text="Be strict.", asks_rationale=True))
    press(page, "1")
    expect(page.locator("#panel-note")).to_be_visible()
    page.locator("#panel-note .panel-close").click()
    expect(page.locator("#panel-note")).to_be_hidden()


def test_the_second_half_of_a_double_click_judges_nothing(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 4)
    page = open_page(studio)
    before, box = lease_of(page), page.locator("#vote-left").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 8, box["y"] + 8)
    until(page, lambda: lease_of(page) != before)
    unread = lease_of(page)
    page.mouse.down(click_count=2)
    page.mouse.up(click_count=2)
    page.wait_for_timeout(500)
    assert lease_of(page) == unread and len(judgments_of(studio, before)) == 1
    page.mouse.click(box["x"] + 8, box["y"] + 8)
    until(page, lambda: judgments_of(studio, unread))


def test_guidelines_stand_beside_the_task_and_tell_that_they_changed(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 5)
    settings.save_guidelines(studio.db, Guidelines(text="Be **strict**."))
    page = open_page(studio, viewport={"width": 1280, "height": 800})
    expect(page.locator("#guidelines-version")).to_have_text("version 1")
    expect(page.locator("#guidelines-news")).to_be_hidden()
    page.keyboard.press("g")
    expect(page.locator("#guidelines-body strong")).to_have_text("strict")
    page.keyboard.press("g")
    expect(page.locator("#guidelines-body")).to_be_hidden()
    settings.save_guidelines(studio.db, Guidelines(text="Be kind."))
    press(page, "1")
    expect(page.locator("#guidelines-news")).to_be_visible()
    page.keyboard.press("g")
    expect(page.locator("#guidelines-body")).to_contain_text("Be kind.")
    expect(page.locator("#guidelines-news")).to_be_hidden()
    press(page, "1")
    assert [row.guidelines for row in list_judgments(studio.db)][-2:] == [1, 2]
    wide = open_page(studio, viewport={"width": 1600, "height": 800})
    expect(wide.locator("#guidelines-body")).to_be_visible()
    beside, pair = wide.locator("#guidelines").bounding_box(), wide.locator("#pair").bounding_box()
    assert beside and pair and beside["x"] >= pair["x"] + pair["width"]


def test_keys_are_shown_can_be_changed_and_outlive_a_reload(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 4)
    page = open_page(studio)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    page.keyboard.press("1")  # nothing is judged behind the overlay
    dialog.get_by_role("button", name="Change the key of: Left is better").press("Enter")
    page.keyboard.press("a")
    expect(page.locator("#vote-left kbd")).to_have_text("A")
    dialog.get_by_role("button", name="Change the key of: Tie: equally good").press("Enter")
    page.keyboard.press("x")  # taken by "both bad": the two change places
    expect(page.locator("#vote-tie kbd")).to_have_text("X")
    expect(page.locator("#vote-both-bad kbd")).to_have_text("T")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.reload()
    page.wait_for_selector("#pair .pair")
    expect(page.locator("#vote-left kbd")).to_have_text("A")
    before = lease_of(page)
    page.keyboard.press("1")
    page.wait_for_timeout(300)
    assert lease_of(page) == before
    wanted = shown_texts(page)[0]
    press(page, "a")
    row = last(studio)
    assert stored_texts(studio, row)[0 if row.verdict is Verdict.first else 1] == wanted
    press(page, "x")
    assert last(studio).verdict is Verdict.tie
    page.keyboard.press("?")
    page.locator("#keys-reset").press("Enter")
    expect(page.locator("#vote-left kbd")).to_have_text("1")
    dialog.get_by_role("button", name="Change the key of: Left is better").click()
    dialog.get_by_role("button", name="Change the key of: Tie: equally good").click()
    expect(dialog.get_by_text("Press a key …")).to_have_count(1)
    dialog.locator(".dialog-close").click()  # no key was chosen: the next one is a verdict again
    press(page, "x")
    assert last(studio).verdict is Verdict.both_bad
    expect(page.locator("#vote-left kbd")).to_have_text("1")


def test_a_key_that_marks_or_makes_a_blank_can_be_chosen_too(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 4)
    page = open_page(studio)
    for key, shown in (("+", "+"), (" ", "Space")):
        page.keyboard.press("?")
        page.get_by_role("button", name="Change the key of: Tie: equally good").press("Enter")
        page.keyboard.press(key)
        expect(page.locator("#vote-tie kbd")).to_have_text(shown)
        page.keyboard.press("Escape")
        press(page, key)
        assert last(studio).verdict is Verdict.tie


def test_digits_are_read_from_their_place_on_a_keyboard_with_shifted_digits(
    studio: Studio, open_page: OpenPage
) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio)
    before = lease_of(page)
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: '&', code: 'Digit1', bubbles: true}))")
    page.wait_for_function("b => document.querySelector('#pair [data-lease]')?.dataset.lease !== b", arg=before)
    assert last(studio).verdict in (Verdict.first, Verdict.second)


def test_focus_is_never_trapped(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio)
    for opener in ("?", "e", "n", "f", "m", "p"):
        page.keyboard.press(opener)
        inside = "document.activeElement.closest('dialog, .panel')"
        for _ in range(80):
            page.keyboard.press("Tab")
            if not page.evaluate(f"Boolean({inside})"):
                break
        assert not page.evaluate(f"Boolean({inside})"), f"Tab does not leave what {opener} opened"
        page.keyboard.press("Escape")
        assert page.locator("dialog[open], .panel:visible").count() == 0, f"Escape does not close what {opener} opened"


def test_several_judgments_are_undone_one_by_one_and_come_back_with_their_remarks(
    studio: Studio, open_page: OpenPage
) -> None:
    put_pairs(studio.db, 5)
    page = open_page(studio)
    seen, before = [], len(list_judgments(studio.db))
    counted = count_judgments(studio.db)
    for note in ("first", "second", "third"):
        seen.append(shown_texts(page))
        page.keyboard.press("n")
        page.keyboard.type(note)
        page.keyboard.press("Escape")
        press(page, "1")
    for texts, note in zip(reversed(seen), ("third", "second", "first"), strict=True):
        press(page, "u")
        assert shown_texts(page) == texts
        expect(page.locator("#note-text")).to_have_value(note)
    assert count_judgments(studio.db) == counted
    press(page, "2")
    rows = list_judgments(studio.db)[before:]
    assert len(rows) == 4 and sum(row.state is JudgmentState.withdrawn for row in rows) == 3
    assert (last(studio).rationale, last(studio).revision) == ("first", 2)


def test_what_undo_passed_by_comes_again_the_same_way_round(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 6)
    page = open_page(studio)
    seen = []
    for _ in range(5):
        seen.append(shown_texts(page))
        press(page, "1")
    seen.append(shown_texts(page))
    for _ in range(5):
        press(page, "u")
    for number, texts in enumerate(seen):
        assert shown_texts(page) == texts, f"pair {number} is mirrored"
        press(page, "2")


@pytest.mark.slow
def test_what_is_typed_survives_reload_restart_and_kill(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    page.keyboard.press("n")
    page.keyboard.type("typed before the reload")
    saved(page)
    page.evaluate("localStorage.removeItem('rlhf-studio-draft')")  # the server has it, not only this browser
    page.reload()
    page.wait_for_selector("#pair .pair")
    expect(page.locator("#note-text")).to_have_value("typed before the reload")
    expect(page.locator("#draft-state")).to_have_text("Draft restored")
    page.keyboard.press("n")
    studio.stop(9)
    # At once: Gradio loads a page whose server is gone anew, and keys would go nowhere meanwhile.
    page.locator("#note-text").fill("typed before the reload, and while it was dead")
    context = page.context
    page.close()
    page = open_page(studio.start("--no-worker"), context=context)
    expect(page.locator("#note-text")).to_have_value("typed before the reload, and while it was dead")
    saved(page)
    page.keyboard.press("Escape")
    press(page, "1")
    assert last(studio).rationale == "typed before the reload, and while it was dead"


def test_a_task_stays_with_whoever_is_at_work_on_it(studio: Studio, open_page: OpenPage) -> None:
    """An edit may take longer than a lease lasts; and what was fetched ahead is older than its time on the screen."""
    put_pairs(studio.db, 4)
    page = open_page(studio)
    page.wait_for_function("studio.deck().length === 2")
    soon = ends_in(studio, 60)
    page.mouse.move(200, 300)
    until(page, lambda: all(end > soon + timedelta(minutes=20) for end in ends(studio)))
    assert len(ends(studio)) == 2


def test_a_task_that_went_back_is_replaced_before_work_goes_into_it(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 4)
    page = open_page(studio)
    before = lease_of(page)
    page.evaluate("studio.openPanel('note', 'note-text')")
    page.evaluate("""() => { const note = document.getElementById('note-text');
        note.value = 'half a thought'; note.dispatchEvent(new Event('input', { bubbles: true })); }""")
    saved(page)
    ends_in(studio, -1)
    page.mouse.move(200, 300)
    expect(page.locator("#label-says")).to_contain_text("went back to the pool")
    assert lease_of(page) != before
    assert page.evaluate("studio.work().rationale") == "half a thought", "nobody took it: it came back with its draft"
    press(page, "1")
    assert last(studio).rationale == "half a thought"


def ends(studio: Studio) -> list[datetime]:
    """When the leases that are out end."""
    with studio.db.read() as session:
        rows = session.exec(select(LeaseRow).where(LeaseRow.state == LeaseState.leased)).all()
    return [row.expires_at for row in rows]


def ends_in(studio: Studio, seconds: float) -> datetime:
    """Let all leases that are out end then."""
    moment = now() + timedelta(seconds=seconds)
    with studio.db.write() as session:
        session.execute(update(LeaseRow).where(LeaseRow.state == LeaseState.leased).values(expires_at=moment))
    return moment


def test_a_vote_that_cannot_reach_the_studio_is_told_and_can_be_pressed_again(
    studio: Studio, open_page: OpenPage
) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    page.route("**/api/label/**", lambda route: route.abort())
    before = lease_of(page)
    with page.expect_event("requestfailed"):
        page.keyboard.press("1")
    expect(page.locator("#label-says")).to_contain_text("not saved yet", timeout=6_000)
    page.unroute_all(behavior="wait")
    assert lease_of(page) == before
    press(page, "1")
    assert [row.lease_id for row in list_judgments(studio.db)].count(before) == 1
    assert last(studio).lease_id == before


def test_a_vote_that_waits_for_the_database_says_so(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    before = lease_of(page)
    busy = json.dumps({"detail": "The database is locked; ask again in 2 seconds."})
    page.route("**/api/label/vote", lambda route: route.fulfill(status=503, body=busy), times=1)
    page.keyboard.press("1")
    expect(page.locator("#label-says")).to_have_text("The database is locked; ask again in 2 seconds.")
    assert lease_of(page) == before
    press(page, "1")
    assert last(studio).lease_id == before


@pytest.mark.slow
def test_an_answer_that_comes_after_it_was_given_up_still_counts(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 3)
    page = open_page(studio)
    before, held = lease_of(page), []
    page.route("**/api/label/vote", lambda route: held.append((route, route.fetch())), times=1)
    page.keyboard.press("1")
    expect(page.locator("#label-says")).to_contain_text("not saved yet", timeout=15_000)
    route, answer = held[0]
    route.fulfill(response=answer)
    expect(page.locator("#label-says")).to_contain_text("Saved: left.")
    assert lease_of(page) != before and last(studio).lease_id == before


def test_only_active_time_is_measured(studio: Studio, open_page: OpenPage, browser) -> None:
    put_pairs(studio.db, 3)
    context = browser.new_context()
    page = context.new_page()
    page.clock.install()
    page.goto(f"{studio.url}/#label")
    page.wait_for_selector("#pair .pair")
    for _ in range(8):
        page.clock.run_for(1_000)
        page.mouse.move(100 + _, 200)
    page.clock.run_for(600_000)  # gone for ten minutes
    before = len(list_judgments(studio.db))
    page.keyboard.press("1")
    page.clock.run_for(2_000)
    until(page, lambda: len(list_judgments(studio.db)) > before)
    context.close()
    row = last(studio)
    assert row.active_ms is not None
    assert 8_000 <= row.active_ms <= 8_000 + 31_000 + 5_000, "thirty seconds without a sign of life, then none"


def test_progress_and_own_figures_are_shown(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 6)
    page = open_page(studio)
    figures = page.get_by_role("dialog", name="Your progress")

    def read() -> dict[str, str]:
        page.evaluate("document.getElementById('figures-body').innerHTML = ''")  # what an earlier look has left
        page.keyboard.press("p")
        figures.get_by_text("Left was better").wait_for()
        names, values = figures.locator("dt").all_inner_texts(), figures.locator("dd").all_inner_texts()
        page.keyboard.press("Escape")
        expect(figures).to_be_hidden()
        return dict(zip(names, values, strict=True))

    press(page, "1")
    before = read()
    for key in ("1", "t", "s"):
        press(page, key)
    after = read()
    more = {
        name: int(after[name].split()[0]) - int(before[name].split()[0])
        for name in ("Judged in all", "Ties", "Skipped")
    }
    assert more == {"Judged in all": 2, "Ties": 1, "Skipped": 1}
    left, _, sided = after["Left was better"].partition(" of ")
    assert int(left) == int(before["Left was better"].split()[0]) + 1 <= int(sided)
    expect(page.locator(".count-done")).to_have_text(f"{after['Judged in all']} judged by you")


def test_the_key_that_opens_a_dialog_closes_it_again(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio)
    before = lease_of(page)
    figures, keys = (page.get_by_role("dialog", name=name) for name in ("Your progress", "Keys"))
    for key, dialog in (("p", figures), ("?", keys)):
        page.keyboard.press(key)
        expect(dialog).to_be_visible()
        page.keyboard.press("1")
        page.keyboard.press(key)
        expect(dialog).to_be_hidden()
    page.keyboard.press("p")
    page.keyboard.press("?")  # from one to the other
    expect(keys).to_be_visible()
    expect(figures).to_be_hidden()
    page.keyboard.press("p")
    expect(figures.get_by_text("Left was better")).to_be_visible()
    page.keyboard.press("p")
    expect(figures).to_be_hidden()
    assert lease_of(page) == before and not judgments_of(studio, before)
    press(page, "1")


def test_a_ranking_is_all_bad_where_a_pair_is_both_bad(studio: Studio, open_page: OpenPage) -> None:
    put(studio.db, ["one", "two", "three"])
    put_pairs(studio.db, 1)
    page = open_page(studio)
    button = page.locator("#vote-both-bad")
    for name, short in (("All bad", "All bad"), ("Both bad", "Bad")):
        page.set_viewport_size({"width": 390, "height": 780})
        expect(button.locator(".short-words")).to_have_text(short, use_inner_text=True)
        assert button.evaluate("e => e.scrollWidth <= e.clientWidth")
        look(page, f"390-{short}")
        page.set_viewport_size({"width": 1280, "height": 780})
        expect(button.locator(".long-words")).to_have_text(name, use_inner_text=True)
        expect(page.get_by_role("button", name=name)).to_be_visible()
        look(page, f"1280-{short}")
        press(page, "x")
        assert last(studio).verdict is Verdict.both_bad and last(studio).ranking is None


def test_nothing_moves_while_it_is_read(studio: Studio, open_page: OpenPage) -> None:
    put(studio.db, [FORMATTED * 3, "Short."])
    put_pairs(studio.db, 3)
    page = open_page(studio, viewport={"width": 1280, "height": 700})
    page.evaluate("scrollTo({top: 400, behavior: 'instant'})")
    where = "[...document.querySelectorAll('.reply-card, #vote-left')].map(e => e.getBoundingClientRect().top)"
    before = pytest.approx(page.evaluate(where), abs=1)  # a line's height differs by parts of a pixel among fonts
    page.keyboard.press("f")
    page.keyboard.press("1")  # a flag: a panel opens and closes, a draft is saved, a note is said
    saved(page)
    page.keyboard.press("n")
    page.keyboard.type("A note.")
    saved(page)
    page.keyboard.press("Escape")
    assert page.evaluate(where) == before
    page.evaluate("window.studio.acts.refresh()")
    page.wait_for_timeout(500)
    assert page.evaluate(where) == before, "an answer about the same pair does not draw it anew"


def test_a_next_pair_begins_at_its_top(studio: Studio, open_page: OpenPage) -> None:
    for number in range(3):
        put(studio.db, [f"Long {number}. " * 900, f"Long too {number}. " * 900], f"Request {number}?")
    page = open_page(studio, viewport={"width": 1280, "height": 700})
    page.evaluate("scrollTo({top: 1500, behavior: 'instant'})")
    press(page, "1")
    top = page.evaluate("document.querySelector('#pair').getBoundingClientRect().top")
    assert -2 < top < 400


def test_a_toolbar_is_one_stop_for_tab_and_arrows_walk_in_it(studio: Studio, open_page: OpenPage) -> None:
    put_pairs(studio.db, 2)
    page = open_page(studio)
    page.locator(".tools [data-action=diff]").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.action") == "raw"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.dataset.action") == "keys"
    page.keyboard.press("Tab")
    assert not page.evaluate("Boolean(document.activeElement.closest('.tools'))")


def test_a_name_typed_while_the_datasets_tab_opens_stays(studio: Studio, open_page: OpenPage) -> None:
    page = open_page(studio)
    page.route("**/run/predict", lambda route: (page.wait_for_timeout(800), route.continue_()))
    open_tab(page, "Datasets")
    page.locator("#dataset-name textarea").fill("mine")
    expect(page.locator("#datasets-table")).not_to_be_empty()
    page.wait_for_timeout(1_500)
    page.unroute_all(behavior="wait")
    expect(page.locator("#dataset-name textarea")).to_have_value("mine")


@pytest.mark.slow
def test_reasoning_unfolds_and_keeps_neither_the_focus_nor_the_marks(studio: Studio, open_page: OpenPage) -> None:
    row = put(studio.db, ["Yes, it is.", "No, it is not."])
    thought = "<b>Let me see.</b>"
    with studio.db.write() as session:
        own = update(GenerationRow).where(GenerationRow.id.in_(row.generation_ids))  # type: ignore[attr-defined]
        session.execute(own.values(reasoning=thought))
    put(studio.db, ["Next, first.", "Next, second."])
    page = open_page(studio)
    assert {text for text in shown_texts(page)} == {"Yes, it is.", "No, it is not."}
    folded = page.locator("#pair .reasoning")
    expect(folded).to_have_count(2)
    expect(folded.first.locator(".reasoning-text")).to_be_hidden()
    folded.first.locator("summary").click()
    expect(folded.first.locator(".reasoning-text")).to_have_text(thought)
    lease = lease_of(page)
    press(page, "1")
    until(page, lambda: judgments_of(studio, lease))
    assert judgments_of(studio, lease)[0].verdict is not None
