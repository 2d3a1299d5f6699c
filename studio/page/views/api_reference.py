"""The reference of the REST routes as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.page.html import element, table


def api_reference(described: Mapping[str, Any]) -> str:
    """The routes of an OpenAPI description as one page that needs nothing from elsewhere."""
    rows = [
        [
            element("code", method.upper()),
            element("code", path),
            route.get("summary", ""),
            route.get("description", ""),
        ]
        for path, methods in described.get("paths", {}).items()
        for method, route in methods.items()
    ]
    listed = table(("Method", "Path", "Route", "What it does"), rows, caption="REST routes")
    style = "body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;line-height:1.5}"
    style += "td,th{text-align:left;padding:.35rem .8rem;vertical-align:top}.unseen{display:none}"
    style += ":root{color-scheme:light dark}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>RLHF Studio: REST</title><style>{style}</style></head><body>'
        f"<h1>REST</h1><p>The full description, with every field, is at "
        f'<a href="openapi.json">openapi.json</a>.</p>{listed}</body></html>'
    )
