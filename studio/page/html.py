"""Safe HTML from plain values: the only place where text becomes markup.

Everything a model, a prompt file or a person wrote passes ``escape``: no tag, no attribute, no entity and no
markdown of theirs survives, so nothing they wrote can run, load or style anything. ``Html`` marks what is
already safe; every other value that reaches a builder below is escaped there.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

# A lone surrogate cannot be sent, a NUL is dropped by parsers, and the rest can hide or reverse what follows.
_UNSAFE = {code: "\N{REPLACEMENT CHARACTER}" for code in range(32) if chr(code) not in "\t\n"}
_UNSAFE |= {code: "\N{REPLACEMENT CHARACTER}" for code in range(0x7F, 0xA0)}
_UNSAFE |= {code: "\N{REPLACEMENT CHARACTER}" for code in range(0xD800, 0xE000)}
_UNSAFE |= {code: "" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
# The page's template engines look for these in what they are given; as entities they are only characters.
_TEMPLATE = {ord("{"): "&#123;", ord("}"): "&#125;", ord("$"): "&#36;", ord("`"): "&#96;", ord("@"): "&#64;"}


class Html(str):
    """Markup that is already safe to show; made only by the builders of this module and of ``views``."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Any value as text that shows exactly what it says; text already marked as ``Html`` is left alone."""
    if isinstance(value, Html):
        return value
    text = str(value).replace("\r\n", "\n").replace("\r", "\n").translate(_UNSAFE)
    return Html(html.escape(text, quote=True).translate(_TEMPLATE))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Several values in a row, each escaped, with ``between`` (plain text) between them."""
    return Html(escape(between).join(escape(part) for part in parts))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """``<tag …>children</tag>`` with every child and attribute value escaped.

    ``class_`` and ``for_`` lose their underscore, other underscores become dashes; None and False leave an
    attribute out, True writes it alone.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    spelled = name.rstrip("_").replace("_", "-")
    return f" {spelled}" if value is True else f' {spelled}="{escape(value)}"'


def plain_text(text: str, class_: str = "model-text") -> Html:
    """Text written by a model or a person: line breaks kept, direction found from the text itself."""
    return element("div", text, class_=class_, dir="auto")


def badge(text: str, tone: str = "neutral") -> Html:
    """A small label; ``tone`` is neutral, good, busy, warn or bad and only colours what the words say."""
    return element("span", text, class_=f"badge badge-{tone}")


def notice(title: object, *lines: object, tone: str = "neutral") -> Html:
    """A framed message: what is the case, then what to do about it."""
    body = [element("p", line) for line in lines if line]
    return element("div", element("h3", title), *body, class_=f"notice notice-{tone}", role="status")


def progress_bar(fraction: float, label: str) -> Html:
    """A bar filled from 0 to 1, readable by a screen reader through ``label``."""
    percent = round(100 * min(max(fraction, 0.0), 1.0))
    fill = element("div", class_="bar-fill", style=f"width:{percent}%")
    return element(
        "div", fill, class_="bar", role="progressbar", aria_label=label,
        aria_valuenow=percent, aria_valuemin=0, aria_valuemax=100,
    )  # fmt: skip


def range_plot(low: float, value: float, high: float, *, title: str, said: str, marks: Iterable[float] = ()) -> Html:
    """A dot with its interval on a line from 0 to 1, read out as ``said``; ``marks`` are lines to read it by."""
    return element(
        "span",
        *(element("span", class_="range-mark", style=f"left:{100 * mark:.0f}%") for mark in marks),
        element("span", class_="range-span", style=f"left:{100 * low:.1f}%;width:{100 * max(0.01, high - low):.1f}%"),
        element("span", class_="range-dot", style=f"left:{100 * value:.1f}%"),
        class_="range",
        role="img",
        aria_label=f"{title}: {said}",
        title=said,
    )


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    caption: str,
    keys: Sequence[str] = (),
    selected: str | None = None,
) -> Html:
    """A table that scrolls sideways in itself. With ``keys`` each row's first cell is a button that picks it.

    Cells carry their column's name, so that a narrow screen can show each row as a small card.
    """
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in headers)))
    body = [_table_row(headers, row, keys[index] if keys else None, selected) for index, row in enumerate(rows)]
    # What scrolls must be within reach of the keyboard: by the buttons in it, or else by itself.
    reach: dict[str, object] = {} if keys else {"tabindex": 0, "role": "group", "aria_label": caption}
    return element(
        "div",
        element("table", element("caption", caption, class_="unseen"), head, element("tbody", *body)),
        class_="table-wrap",
        **reach,
    )


def _table_row(headers: Sequence[str], row: Sequence[object], key: str | None, selected: str | None) -> Html:
    cells = list(row)
    picked = key is not None and key == selected
    if key is not None:
        cells[0] = element(
            "button",
            cells[0],
            type="button",
            class_="pick",
            data_pick=key,
            aria_pressed="true" if picked else "false",
        )
    shown = [element("td", cell, data_label=name) for name, cell in zip(headers, cells, strict=True)]
    return element("tr", *shown, class_="picked" if picked else None)


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Names and values under each other, as a description list; empty values are left out."""
    items = [
        element("div", element("dt", name), element("dd", value)) for name, value in pairs if value not in (None, "")
    ]
    return element("dl", *items, class_="facts")
