"""The header of the page."""

from __future__ import annotations

from studio.page.html import Html, element


def header() -> Html:
    """The product's name and what it is for. No policy is named: this stands above the blind tab too."""
    return element(
        "div",
        element("h1", "RLHF Studio"),
        element("p", "Rank what a model says; train it into what you prefer."),
        class_="studio-header",
    )
