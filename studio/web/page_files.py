"""The scripts and style sheets that the page carries, from ``assets``."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "assets"
_LABEL = "transport key_names stage late_words presence ranking text_views annotation_panels messages shortcuts"
_PAGE = "run_card url_state tabs recipe_form"
_PLAYGROUND = "stream turns screen"
SCRIPTS = (  # in the order they build on
    "page/session.js",
    *(f"label/{name}.js" for name in _LABEL.split()),
    *(f"page/{name}.js" for name in _PAGE.split()),
    *(f"playground/{name}.js" for name in _PLAYGROUND.split()),
)
STYLES = tuple(ASSETS / name for name in ("studio.css", "overview.css", "playground.css"))


def scripts() -> list[str]:
    """The studio's own scripts, which the page carries in its head."""
    return [(ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS]
