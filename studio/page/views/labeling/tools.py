"""The desk around a pair: verdict buttons with their keys, tools, panels, the key overlay, guidelines, figures.

``ACTIONS`` is the one list of what can be done by key. It is written into the overlay; the scripts in ``assets/``
read it there, so a key shown is the key that works.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from feedback.rules.annotations import FLAG_REASONS, SKIP_REASONS
from feedback.store.labeling.judgments import AnnotatorFigures
from feedback.tables import GuidelinesRow, ReviewRow
from studio.page.html import Html, element, facts, join, plain_text
from studio.page.markdown import formatted
from studio.page.text import ago
from studio.page.views.labeling.cards import late_card, message_card

STRENGTHS = {3: "much", 2: "clearly", 1: "slightly"}

ACTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "A pair": (
        ("left", "1", "Left is better"),
        ("right", "2", "Right is better"),
        ("left-3", "3", "Left is much better"),
        ("left-2", "4", "Left is clearly better"),
        ("left-1", "5", "Left is slightly better"),
        ("right-1", "6", "Right is slightly better"),
        ("right-2", "7", "Right is clearly better"),
        ("right-3", "8", "Right is much better"),
        ("tie", "T", "Tie: equally good"),
    ),
    "A ranking (digits give the next place, Shift and a digit ties it with the one before)": (
        ("rank-submit", "Enter", "Submit the ranking"),
        ("rank-rest", "T", "The rest tie for the last place"),
        ("rank-back", "Backspace", "Take the last place back"),
    ),
    "Both": (
        ("both-bad", "X", "None is usable: both bad, or all bad"),
        ("skip", "S", "Skip"),
        ("skip-why", "Shift+S", "Skip and say why"),
        ("undo", "U", "Undo the last judgment"),
    ),
    "Reading": (
        ("diff", "D", "Mark the words that differ"),
        ("raw", "R", "Raw text instead of formatted"),
        ("guidelines", "G", "Guidelines"),
        ("figures", "P", "Your progress"),
        ("message-away", "I", "Put a reviewer's message away"),
        ("keys", "?", "These keys"),
    ),
    "Remarks": (
        ("edit", "E", "Edit a reply into a better one"),
        ("mark", "M", "Mark words: arrows choose, + good, - bad"),
        ("note", "N", "Note why"),
        ("criteria", "C", "Rate the replies"),
        ("flag", "F", "Flag a problem"),
    ),
}
_KEYS = {action: key for group in ACTIONS.values() for action, key, _ in group}
_WORDS = {action: words for group in ACTIONS.values() for action, _, words in group}


def keycap(action: str) -> Html:
    """The key that does it; the script writes another one if the person changed it."""
    return element("kbd", _KEYS[action], data_key_of=action, aria_hidden="true")


def verdicts() -> Html:
    """The bar that stays in sight: strengths, verdicts, and the buttons of a ranking."""
    strengths = [_strength("left", level) for level in (3, 2, 1)] + [_strength("right", level) for level in (1, 2, 3)]
    return element(
        "div",
        element(
            "div",
            *strengths,
            class_="strengths for-pair",
            id="strengths",
            role="toolbar",
            aria_label="How much better",
        ),
        element(
            "div",
            _verdict("left", "vote-left", "Left is better", "for-pair main-verdict side-left", short="Left"),
            _verdict("right", "vote-right", "Right is better", "for-pair main-verdict side-right", short="Right"),
            _verdict("rank-submit", "rank-submit", "Submit", "for-rank main-verdict"),
            _verdict("rank-rest", "rank-rest", "Rest tie", "for-rank", short="Rest tie"),
            _verdict("rank-back", "rank-back", "Take back", "for-rank", short="Back"),
            _verdict("tie", "vote-tie", "Tie", "for-pair"),
            _verdict("both-bad", "vote-both-bad", _none_usable("Both bad"), "for-any", short=_none_usable("Bad")),
            _verdict("skip", "vote-skip", "Skip", "for-any"),
            _verdict("undo", "vote-undo", "Undo", ""),
            element(
                "button",
                element("span", "How much", class_="long-words"),
                element("span", "⋯", class_="short-words", aria_hidden="true"),
                type="button",
                title="How much better",
                class_="verdict for-pair",
                id="strengths-menu",
                data_action="strengths",
                aria_expanded="false",
                aria_controls="strengths",
            ),
            class_="verdict-row",
            role="group",
            aria_label="Verdict",
        ),
        class_="verdict-bar",
    )


def _strength(side: str, level: int) -> Html:
    """How much better one side is; an arrow says which where the replies stand side by side, else its number."""
    action = f"{side}-{level}"
    return element(
        "button",
        keycap(action),
        element("span", "1" if side == "left" else "2", class_="stack-mark", aria_hidden="true"),
        element("span", "◂", class_="side-mark", aria_hidden="true") if side == "left" else "",
        element(
            "span",
            element("span", f"{side.capitalize()} is ", class_="unseen"),
            STRENGTHS[level],
            element("span", " better", class_="unseen"),
        ),
        element("span", "▸", class_="side-mark", aria_hidden="true") if side == "right" else "",
        type="button",
        class_=f"verdict strength strength-{side} side-{side}",
        id=f"vote-{action}",
        data_action=action,
        title=_WORDS[action],
    )


def _none_usable(of_a_pair: str) -> Html:
    """One verdict, named by how many replies it is about."""
    return join([element("span", of_a_pair, class_="for-pair"), element("span", "All bad", class_="for-rank")])


def _verdict(action: str, elem_id: str, words: str | Html, classes: str, short: str | Html = "") -> Html:
    said = [element("span", words, class_="long-words" if short else None)]
    if short:
        said.append(element("span", short, class_="short-words", aria_hidden="true"))
    return element(
        "button",
        keycap(action),
        *said,
        type="button",
        class_=f"verdict {classes}".strip(),
        id=elem_id,
        data_action=action,
        title=_WORDS[action],
    )


def head() -> Html:
    """Beside the counter: the goal for the day, which a press changes, and the way to the guidelines."""
    goal = element("button", "", type="button", id="goal", title="Your goal for today, skips too: press to change it")
    change = element(
        "input", type="number", id="goal-edit", min=1, max=9999, step=1, inputmode="numeric", hidden=True,
        aria_label="Your goal for a day",
    )  # fmt: skip
    guidelines = element(
        "button", keycap("guidelines"), element("span", "Guidelines"), type="button", id="guidelines-open",
        data_action="guidelines", aria_expanded="false", aria_controls="guidelines-details",
        title=_WORDS["guidelines"],
    )  # fmt: skip
    return element("div", goal, change, guidelines, class_="label-head")


def tools() -> Html:
    """Small buttons for everything beside the verdict."""
    shown: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("diff", "Diff", {"aria_pressed": "false"}),
        ("raw", "Raw", {"aria_pressed": "false"}),
        ("edit", "Edit", {"aria_expanded": "false"}),
        ("mark", "Mark", {"aria_pressed": "false"}),
        ("note", "Note", {"aria_expanded": "false"}),
        ("criteria", "Rate", {"aria_expanded": "false", "hidden": True}),
        ("flag", "Flag", {"aria_expanded": "false"}),
        ("skip-why", "Skip, why", {"aria_expanded": "false"}),
        ("figures", "Progress", {}),
        ("keys", "Keys", {}),
    )
    buttons = [
        element(
            "button", keycap(action), element("span", words), type="button", data_action=action,
            title=_WORDS[action], **state,
        )
        for action, words, state in shown
    ]  # fmt: skip
    # Said beside the tools, which never move: a note that came and went above would push what is being read.
    said = element("p", "", id="label-says", role="status", aria_live="polite")
    # In a low or narrow window the tools are a menu, so that the request and the replies have the room.
    menu = element(
        "button", "Tools", type="button", id="tools-menu", data_action="tools", aria_expanded="false",
        aria_controls="tools-list",
    )  # fmt: skip
    return element(
        "div",
        menu,
        element("div", *buttons, class_="tools", id="tools-list", role="toolbar", aria_label="Reading and remarks"),
        said,
        class_="tool-line",
    )


def panels() -> Html:
    """What opens above the verdict bar; every field has a label, every panel a way out."""
    return element(
        "div",
        _panel("edit", "Edit", _edit_fields()),
        _panel("note", "Note", _note_fields()),
        _panel("criteria", "Ratings, 1 poor to 5 excellent", element("div", id="criteria-table")),
        _panel("marks", "Marks", _mark_fields()),
        _panel("flag", "Flag: what is wrong here?", _reasons(FLAG_REASONS)),
        _panel("skip", "Skip: why?", _reasons(SKIP_REASONS)),
        element("p", "", id="draft-state", role="status", aria_live="off"),
        element("p", "", id="rank-order", class_="for-rank", role="status", aria_live="polite"),
        class_="panels",
    )


def _panel(name: str, title: str, *children: object) -> Html:
    head = element(
        "div",
        element("h3", title),
        element("button", "Close ", element("kbd", "Esc", aria_hidden="true"), type="button", class_="panel-close"),
        class_="panel-head",
    )
    return element("section", head, *children, class_="panel", id=f"panel-{name}", aria_label=title, hidden=True)


def _edit_fields() -> Html:
    fields = element(
        "div",
        element("label", "Your better wording", for_="edit-text", id="edit-label"),
        element("textarea", "", id="edit-text", rows=4, dir="auto", spellcheck="true"),
        element(
            "div",
            element(
                "button", "Keep it and choose this reply ", element("kbd", "Ctrl+Enter", aria_hidden="true"),
                type="button", id="edit-choose", class_="panel-main", data_action="edit-choose",
            ),
            element("button", "Drop the edit", type="button", data_action="edit-drop"),
            class_="panel-acts",
        ),
        element("div", "", id="edit-diff", class_="model-text edit-diff", dir="auto", tabindex=0, role="group",
            aria_label="What you changed"),
        id="edit-fields",
        hidden=True,
    )  # fmt: skip
    return join([element("div", "", id="edit-picks", role="group", aria_label="Which reply"), fields])


def _note_fields() -> Html:
    return join(
        [
            element("label", "Why is it better? (goes with your judgment)", for_="note-text"),
            element("textarea", "", id="note-text", rows=2, dir="auto", spellcheck="true"),
        ]
    )


def _mark_fields() -> Html:
    help_text = (
        "Select words in a reply, or walk with the arrow keys (Shift extends, a digit chooses the reply); "
        "then + marks them good and - bad, Backspace takes the last mark back."
    )
    return join(
        [
            element("p", help_text, class_="quiet"),
            element(
                "div",
                element("button", element("kbd", "+"), " Good", type="button", data_action="mark-good"),
                element("button", element("kbd", "-"), " Bad", type="button", data_action="mark-bad"),
                class_="panel-acts",
            ),
            element("ol", "", id="marks-list"),
        ]
    )


def _reasons(reasons: dict[str, str]) -> Html:
    buttons = [
        element("button", element("kbd", i), element("span", words), type="button", data_reason=name)
        for i, (name, words) in enumerate(reasons.items(), start=1)
    ]
    return element("div", *buttons, class_="reasons")


def overlays() -> Html:
    """The key overlay and the figures; both close with Escape and hold no focus."""
    groups = [
        element(
            "table",
            element("caption", title),
            element("tbody", *(_key_row(*row) for row in rows)),
        )
        for title, rows in ACTIONS.items()
    ]
    foot = element(
        "p",
        "Choose Change, then press the new key. ",
        element("button", "Back to the first keys", type="button", id="keys-reset"),
        element("span", "", id="keys-says", role="status"),
    )
    return join(
        [
            _dialog("keys-dialog", "Keys", element("div", *groups, class_="key-groups"), foot),
            _dialog("figures-dialog", "Your progress", element("div", "", id="figures-body")),
            message_card(),
            late_card(),
        ]
    )


def _key_row(action: str, key: str, words: str) -> Html:
    change = element("button", "Change", type="button", data_change=action, aria_label=f"Change the key of: {words}")
    return element(
        "tr",
        element("td", element("kbd", key, data_key_of=action)),
        element("td", words),
        element("td", change),
        data_action=action,
        data_key=key,
    )


def _dialog(elem_id: str, title: str, *children: object) -> Html:
    close = element("button", "Close ", element("kbd", "Esc", aria_hidden="true"), type="button", class_="dialog-close")
    head = element("div", element("h2", title, id=f"{elem_id}-title"), close, class_="panel-head")
    return element("dialog", head, *children, id=elem_id, aria_labelledby=f"{elem_id}-title")


def guidelines_frame() -> Html:
    """A drawer of guidelines: beside the task where there is room, else over the right side of the page."""
    summary = element(
        "summary",
        "Guidelines ",
        element("span", "", id="guidelines-version", class_="quiet"),
        element("span", "changed", id="guidelines-news", class_="badge badge-warn", hidden=True),
        element(
            "span",
            element("span", "Close", class_="unseen"),
            element("span", "✕ ", aria_hidden="true"),
            element("kbd", "G", data_key_of="guidelines", aria_hidden="true"),
            class_="drawer-close",
        ),
    )
    body = element("div", "", id="guidelines-body", tabindex=0, role="region", aria_label="Guidelines")
    return element("details", summary, body, id="guidelines-details")


def guidelines_text(row: GuidelinesRow) -> Html:
    """The guidelines as they are meant to look."""
    return formatted(row.text) or plain_text(row.text)


def figures(own: AnnotatorFigures, written: Sequence[ReviewRow], now: datetime) -> Html:
    """One person's own work in numbers, and what reviewers wrote to them."""
    left, right = own.sides
    sided = left + right
    seconds = "not measured yet" if own.median_ms is None else f"{own.median_ms / 1000:.1f} s of active time"
    numbers = facts(
        (
            ("Judged in all", f"{own.total - own.verdicts.get('skip', 0):,}"),
            ("In the last 24 hours, skips too", f"{own.recent:,}"),
            ("Half of them took less than", seconds),
            ("Left was better", f"{left:,} of {sided:,}" if sided else "none yet"),
            ("Ties", f"{own.verdicts.get('tie', 0):,}"),
            ("Both bad", f"{own.verdicts.get('both_bad', 0):,}"),
            ("Rankings", f"{own.verdicts.get('rank', 0):,}"),
            ("Skipped", f"{own.verdicts.get('skip', 0):,}"),
            ("Edits", f"{own.edits:,}"),
            ("Flags", f"{own.flags:,}"),
        )
    )
    items = (
        element("li", element("span", ago(row.created_at, now), class_="quiet"), plain_text(row.reason))
        for row in written
    )
    told = join([element("h3", "From reviewers"), element("ul", *items, class_="told")]) if written else ""
    return join([numbers, told])


def criteria_of(text: str) -> Sequence[str]:
    """Criteria as typed, one per comma or line."""
    return [name.strip() for name in text.replace("\n", ",").split(",") if name.strip()]
