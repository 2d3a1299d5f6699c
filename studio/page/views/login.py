"""The sign-in and account pages: whole documents in the studio's look, without a script and with nothing to load."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path

from studio.page.html import Html, element, join

_STYLE = (Path(__file__).resolve().parents[3] / "assets" / "sign_in.css").read_text(encoding="utf-8")
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

SIGN_IN_CONTENT_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; img-src 'self' data:"
)
"""What these pages may do: show themselves and send their form. There is no script for a script to hide in."""


def sign_in_page(name: str = "", error: str = "", note: str = "", *, action: str | None = None) -> str:
    """The form for name and password, with what went wrong before.

    At its own address it needs no ``action``, and what follows ``#`` there, the tab to open, outlives the sign-in.
    """
    return _document(
        "Sign in",
        _told(error, note),
        element(
            "form",
            _field("Name", "name", autocomplete="username", value=name[:80], autofocus=not name),
            _field("Password", "password", type="password", autocomplete="current-password", autofocus=bool(name)),
            element("button", "Sign in", type="submit"),
            method="post",
            action=action,
        ),
        element(
            "p", "No account, or the password is lost? An admin of this studio makes you a new one.", class_="quiet"
        ),
    )


def account_page(name: str, role: str, error: str = "") -> str:
    """Who one is here, and the form for another password."""
    return _document(
        "Your account",
        element("p", "Signed in as ", element("strong", name), f", {role}."),
        _told(error),
        element(
            "form",
            _field("Present password", "current", type="password", autocomplete="current-password"),
            _field("New password", "wanted", type="password", autocomplete="new-password"),
            _field("New password again", "again", type="password", autocomplete="new-password"),
            element("p", "10 characters or more; a few plain words do well.", class_="quiet"),
            element("button", "Change the password", type="submit"),
            method="post",
            action="account",
        ),
        element("form", element("button", "Sign out", type="submit", class_="plain"), method="post", action="logout"),
        element("p", element("a", "Back to the studio", href="./")),
    )


def _told(error: str, note: str = "") -> Html:
    if error:
        return element("div", error, class_="told told-bad", role="alert")
    return element("div", note, class_="told told-good", role="status") if note else Html("")


def _field(label: str, name: str, **attributes: object) -> Html:
    kept = {"type": "text", "required": True, **attributes}
    return element("label", element("span", label), _void("input", name=name, id=name, **kept))


def _void(tag: str, **attributes: object) -> Html:
    """An element that has no end tag."""
    return Html(str(element(tag, **attributes)).removesuffix(f"</{tag}>"))


def _document(title: str, *parts: object) -> str:
    head = join(
        [
            _void("meta", charset="utf-8"),
            _void("meta", name="viewport", content="width=device-width, initial-scale=1"),
            _void("meta", name="color-scheme", content="light dark"),
            _void("meta", name="robots", content="noindex"),
            element("title", f"{title} · RLHF Studio"),
            Html(f"<style>{_STYLE}</style>"),
        ]
    )
    brand = element(
        "header",
        element("h1", "RLHF Studio"),
        element("p", "Rank what a model says; train it into what you prefer."),
    )
    body = element("main", brand, element("section", element("h2", title), *parts, class_="card"))
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>'
