"""The Playground as HTML: who replies, what was said, what to say. The scripts in ``assets/playground`` fill it in."""

from __future__ import annotations

from feedback.types import SamplingSettings
from studio.page.html import Html, element, join, plain_text
from studio.page.markdown import formatted


def reply_body(text: str, reasoning: str | None = None) -> Html:
    """A reply as safe markup, under its reasoning, which is folded."""
    body = formatted(text) or plain_text(text)
    if not reasoning:
        return body
    thought = element("details", element("summary", "Reasoning"), plain_text(reasoning), class_="reasoning")
    return join([thought, body])


NUMBERS = (
    ("temperature", "Temperature", 0, 5, 0.1),
    ("top_p", "Top p", 0.05, 1, 0.05),
    ("top_k", "Top k (0: off)", 0, 1000, 1),
    ("max_new_tokens", "Longest reply, tokens", 1, 8192, 1),
)
"""Settings of the sampling: name, label, least, most, step."""
USUAL = SamplingSettings(temperature=0.7, top_p=0.95, max_new_tokens=256)


def screen() -> Html:
    """The whole tab."""
    return element("div", _history(), _chat(), id="chat-screen")


def _history() -> Html:
    return element(
        "aside",
        element("button", "New chat", type="button", data_chat="new", class_="button button-primary"),
        element("label", "Search chats", for_="chat-search", class_="unseen"),
        element("input", type="search", id="chat-search", placeholder="Search chats", autocomplete="off"),
        element("ul", id="chat-list", aria_label="Your chats"),
        id="chat-history",
        aria_label="Earlier chats",
    )


def _chat() -> Html:
    return element(
        "section",
        _setup(),
        element("div", id="chat-turns", role="log", aria_label="The chat", aria_live="off", tabindex=0),
        element("p", id="chat-note", role="status", aria_live="polite"),
        _composer(),
        id="chat-main",
        aria_label="Chat",
    )


def _setup() -> Html:
    """Who replies and how. Who replies is fixed once a chat has begun; how can be changed before each reply."""
    blind = element("input", type="checkbox", id="chat-blind", name="blind", disabled=True)
    who = (
        _field("Policy", element("select", id="chat-left", name="left")),
        _field("Compare with", element("select", id="chat-right", name="right")),
        element("label", blind, element("span", "Blind: hide which is which"), class_="chat-check"),
    )
    seed = element(
        "input", type="number", name="seed", id="chat-seed", min=0, max=2**31 - 1, step=1, placeholder="a new one"
    )
    system = element("textarea", name="system", id="chat-system", rows=2, placeholder="None")
    how = (*map(_number, NUMBERS), _field("Seed", seed))
    return element(
        "form",
        element("div", *who, class_="chat-fields"),
        element(
            "details",
            element("summary", "Sampling and system message"),
            element("div", *how, class_="chat-fields"),
            _field("System message", system),
        ),
        id="chat-setup",
        autocomplete="off",
    )


def _number(setting: tuple[str, str, float, float, float]) -> Html:
    name, label, least, most, step = setting
    value = f"{getattr(USUAL, name):g}"
    field = element(
        "input", type="number", name=name, id=f"chat-{name}", value=value, min=least, max=most, step=step, required=True
    )
    return _field(label, field)


def _field(label: str, control: Html) -> Html:
    return element("label", element("span", label), control, class_="chat-field")


def _composer() -> Html:
    hint = "Write a message. Enter sends it, Shift+Enter begins a new line."
    return element(
        "form",
        element("label", "Your message", for_="chat-message", class_="unseen"),
        element("textarea", id="chat-message", rows=2, placeholder=hint),
        element("button", "Send", type="submit", id="chat-send", class_="button button-primary"),
        element("button", "Stop", type="button", data_chat="stop", class_="button button-plain", hidden=True),
        id="chat-composer",
    )
