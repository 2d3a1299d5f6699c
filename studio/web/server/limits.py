"""How many bytes the body of a request may have, by route, and how long it may take to arrive.

A limit holds before anything is parsed, whether the length is declared or the body comes in chunks.
"""

from __future__ import annotations

KIB, MIB = 1024, 1024 * 1024

FORM_BYTES = 16 * KIB
"""A name and a password."""

ACT_BYTES = 256 * KIB
"""One act of one person: a vote with its remarks (texts of 20,000 characters, 200 spans), a user, a review act."""

TEXT_BYTES = MIB
"""Acts that carry a long text or many ids: guidelines, a batch, a conversation, an event of the page."""

BULK_BYTES = 64 * MIB
"""Many rows in one request."""

ACT_SECONDS = 30.0
BULK_SECONDS = 300.0

BULK_ROUTES = frozenset({"/api/prompts"})
_FORMS = frozenset({"/login", "/logout", "/account"})
_TEXTS = frozenset({"/api/guidelines", "/api/batches", "/api/generations"})
_PAGES = ("/gradio_api/", "/api/label/")


def body_bytes(path: str) -> int:
    """The most bytes that the body of a request to ``path`` (without the prefix of a proxy) may have."""
    if path in BULK_ROUTES:
        return BULK_BYTES
    if path in _FORMS:
        return FORM_BYTES
    return TEXT_BYTES if path in _TEXTS or path.startswith(_PAGES) else ACT_BYTES


def body_seconds(path: str) -> float:
    """The longest time, in seconds, that the body of a request to ``path`` may take to arrive."""
    return BULK_SECONDS if path in BULK_ROUTES else ACT_SECONDS


def shown(size: int) -> str:
    """A limit in bytes as people read it."""
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB" if size >= KIB else f"{size} bytes"
