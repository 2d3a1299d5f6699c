"""Cards over the page: a reviewer's message, and words that came too late for a judgment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback.rules.annotations import FLAG_REASONS
from feedback.tables import ReviewRow
from studio.page.html import Html, element, plain_text


def message_card() -> Html:
    """Where a reviewer's message stands: over the page, read out when it comes, and never focused by itself."""
    return element(
        "aside",
        element("h3", "A reviewer wrote to you", id="reviewer-message-head"),
        element("div", "", id="reviewer-message-text", tabindex=0, role="group", aria_label="The message"),
        element(
            "button",
            element("kbd", "I", data_key_of="message-away", aria_hidden="true"),
            "Put away",
            type="button",
            data_action="message-away",
        ),
        id="reviewer-message",
        role="status",
        aria_live="polite",
        aria_label="A message from a reviewer",
        hidden=True,
    )


def late_card() -> Html:
    """Where words stand that came too late for a judgment, until they are added to it or dropped."""
    return element(
        "aside",
        element("h3", "Not saved with your judgment", id="late-words-head"),
        element("p", "You judged this pair in another window, and that judgment was kept. You had also typed here:"),
        element("div", "", id="late-words-text", tabindex=0, role="group", aria_label="What you had typed"),
        element(
            "div",
            element("button", "Add it to the saved judgment", type="button", id="late-words-add", class_="panel-main"),
            element("button", "Leave it out", type="button", id="late-words-drop"),
            class_="panel-acts",
        ),
        id="late-words",
        role="status",
        aria_live="polite",
        aria_label="Words that are not saved with your judgment",
        hidden=True,
    )


def late_words(said: Mapping[str, Any]) -> Html:
    """Remarks that a saved judgment lacks, each in a line."""
    lines: list[tuple[str, object]] = [("Note", said.get("rationale"))]
    if said.get("edited"):
        lines.append((f"Edit of reply {said['edited']['index'] + 1}", said["edited"]["text"]))
    for span in said.get("spans") or ():
        reason = f": {span['reason']}" if span.get("reason") else ""
        lines.append((f"Mark in reply {span['index'] + 1}", f"{span['mark']}{reason}"))
    for name, ratings in (said.get("criteria") or {}).items():
        lines.append((name, ", ".join("not rated" if rating is None else str(rating) for rating in ratings)))
    lines.append(("Flag", FLAG_REASONS.get(str(said.get("flag")), said.get("flag"))))
    shown = [
        element("li", element("strong", f"{name}: "), element("span", words, dir="auto"))
        for name, words in lines
        if words
    ]
    return element("ul", *shown, class_="told")


def messages(rows: Sequence[ReviewRow]) -> list[dict[str, str]]:
    """What reviewers wrote to an annotator, as the page's script takes it; who wrote it is not told."""
    return [{"id": row.id, "html": plain_text(row.reason)} for row in rows]
