"""How values read: moments, spans, shares, figures, errors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from feedback.errors import StudioError
from studio.page.commands import on_the_page
from studio.page.html import escape

ABBREVIATIONS = {"kl": "KL", "lora": "LoRA", "simpo": "SimPO"}


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that says enough."""
    if moment is None:
        return "not yet"
    seconds = (now - moment).total_seconds()
    if seconds < 60:
        return "just now"
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def duration(start: datetime | None, end: datetime) -> str:
    """A span as ``48 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if start is None:
        return "—"
    seconds = max(0, round((end - start).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3_600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3_600} h {seconds % 3_600 // 60} min"


def label_of(name: str) -> str:
    """A name from the code as a label: ``both_bad`` reads *Both bad*, ``kl_per_token`` *KL per token*."""
    spaced = " ".join(ABBREVIATIONS.get(word, word) for word in name.replace("_", " ").replace("/", " · ").split(" "))
    return spaced[:1].upper() + spaced[1:]


def figure(value: Any) -> str:
    """Any value of a result or a configuration, short enough to read at a glance."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "—"}[value]
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"  # -0.0 is 0
    if isinstance(value, Mapping):
        return ", ".join(f"{label_of(str(name))}: {figure(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(figure(item) for item in value)
    return str(value)


def share(value: float, digits: int = 0) -> str:
    """A share of 1 as per cent."""
    return f"{100 * value:.{digits}f} %"


def number(value: Any) -> str:
    """Three digits of a number, or a dash where there is none."""
    return f"{value:.3g}" if isinstance(value, int | float) else "—"


def error_text(error: Exception) -> str:
    """What a toast says: the error's own sentence, or where to look when it was not foreseen."""
    if isinstance(error, StudioError):
        return str(escape(on_the_page(str(error))))
    return "Something went wrong that was not foreseen; the window in which the studio runs shows the details."
