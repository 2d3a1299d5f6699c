"""Remarks: what a judge adds beside the verdict, in shown order on the screen and in stored order at rest.

An edit is the better wording of one reply. A span marks characters of a reply's raw text, good or bad, with a
reason; ``start`` and ``end`` count code points of the text as generated, so they hold whatever the screen rendered.
Ratings give each criterion one number per reply. ``to_stored`` and ``to_shown`` are each other's inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from feedback.errors import InvalidInput

MAX_TEXT = 20_000
MAX_SPANS = 200
MARKS = ("good", "bad")
SKIP_REASONS = {
    "not_said": "No reason given",
    "not_my_field": "I do not know enough about it",
    "unclear": "The request is unclear",
    "language": "I do not read this language",
    "same": "The replies say the same",
    "unpleasant": "I would rather not read this",
}
FLAG_REASONS = {
    "unsafe": "Unsafe or illegal",
    "personal": "Names a private person",
    "broken": "Text is broken or cut off",
    "language": "Wrong language",
    "duplicate": "Seen before",
    "other": "Something else",
}
_MAX_ACTIVE_MS = 24 * 60 * 60 * 1000


def to_stored(content: Mapping[str, Any], shown_order: Sequence[int], texts: Sequence[str]) -> dict[str, Any]:
    """Checked remarks in stored order; ``texts`` are the replies as shown. Empty parts are left out.

    Raises InvalidInput for an index, a span or a rating that the replies on the screen do not have.
    """
    return _mapped(_checked(content, texts), lambda place: shown_order[place], shown_order)


def to_shown(content: Mapping[str, Any], shown_order: Sequence[int]) -> dict[str, Any]:
    """Remarks in stored order as the screen that showed ``shown_order`` holds them."""
    places = {index: place for place, index in enumerate(shown_order)}
    inverse = [places[index] for index in range(len(shown_order))]
    return _mapped(content, lambda index: places[index], inverse)


def _mapped(content: Mapping[str, Any], index_of: Callable[[int], int], order: Sequence[int]) -> dict[str, Any]:
    """Move every index; a list with one entry per reply is laid out anew, entry ``i`` going to ``order[i]``."""

    def laid_out(values: Sequence[Any]) -> list[Any]:
        moved: list[Any] = [None] * len(order)
        for place, value in enumerate(values):
            moved[order[place]] = value
        return moved

    mapped = dict(content)
    if content.get("edited"):
        mapped["edited"] = {**content["edited"], "index": index_of(content["edited"]["index"])}
    if content.get("spans"):
        mapped["spans"] = [{**span, "index": index_of(span["index"])} for span in content["spans"]]
    if content.get("criteria"):
        mapped["criteria"] = {name: laid_out(values) for name, values in content["criteria"].items()}
    if content.get("ranking"):
        mapped["ranking"] = laid_out(content["ranking"])
    return mapped


def _checked(content: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    unknown = set(content) - {"rationale", "edited", "spans", "criteria", "flag", "ranking", "active_ms"}
    if unknown:
        raise InvalidInput(f"{min(unknown)!r} is not among the remarks a judgment can carry.")
    checked = {
        "rationale": _text("rationale", content.get("rationale")),
        "edited": _edit(content.get("edited"), texts),
        "spans": _spans(content.get("spans"), texts),
        "criteria": _criteria(content.get("criteria"), len(texts)),
        "flag": _text("flag", content.get("flag")),
        "ranking": _partial_ranking(content.get("ranking"), len(texts)),
        "active_ms": _active(content.get("active_ms")),
    }
    return {name: value for name, value in checked.items() if value not in (None, "", [], {})}


def _text(name: str, text: Any) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidInput(f"{name} must be text, not {text!r}.")
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"{name} may have {MAX_TEXT} characters, not {len(text)}.")
    return text


def _place(name: str, index: Any, size: int) -> int:
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < size:
        raise InvalidInput(f"{name}.index names a shown reply, 0 to {size - 1}, not {index!r}.")
    return index


def _edit(edited: Any, texts: Sequence[str]) -> dict[str, Any] | None:
    if not edited:
        return None
    if not isinstance(edited, Mapping):
        raise InvalidInput(f"edited has the index of a reply and its better text; {edited!r} does not.")
    index, text = _place("edited", edited.get("index"), len(texts)), edited.get("text")
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput("edited.text must be the edited reply, not empty.")
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"edited.text may have {MAX_TEXT} characters, not {len(text)}.")
    return {"index": index, "text": text}


def _spans(spans: Any, texts: Sequence[str]) -> list[dict[str, Any]] | None:
    if not spans:
        return None
    if not isinstance(spans, list) or len(spans) > MAX_SPANS:
        raise InvalidInput(f"spans is a list of at most {MAX_SPANS} marks.")
    return [_span(span, texts) for span in spans]


def _span(span: Any, texts: Sequence[str]) -> dict[str, Any]:
    if not isinstance(span, Mapping):
        raise InvalidInput(f"A span has index, start, end, mark and perhaps a reason; {span!r} does not.")
    index = _place("span", span.get("index"), len(texts))
    start, end, size = span.get("start"), span.get("end"), len(texts[index])
    if not _is_whole(start) or not _is_whole(end) or not 0 <= start < end <= size:
        raise InvalidInput(f"A span lies within the {size} characters of its reply; {start!r} to {end!r} does not.")
    if span.get("mark") not in MARKS:
        raise InvalidInput(f"{span.get('mark')!r} is not a mark; valid: {', '.join(MARKS)}.")
    reason = _text("reason", span.get("reason"))
    marked = {"index": index, "start": start, "end": end, "mark": span["mark"]}
    return {**marked, "reason": reason} if reason else marked


def _criteria(criteria: Any, size: int) -> dict[str, list[int | None]] | None:
    if not criteria:
        return None
    if not isinstance(criteria, Mapping):
        raise InvalidInput("criteria gives each criterion a list with one rating per reply.")
    for name, ratings in criteria.items():
        allowed = isinstance(ratings, list) and len(ratings) == size
        if not allowed or not all(map(_is_rating, ratings)):
            raise InvalidInput(f"{name!r} needs {size} ratings, 1 to 5 or null, one per reply; {ratings!r} does not.")
    return {str(name): list(ratings) for name, ratings in criteria.items() if any(ratings)}


def _is_whole(number: Any) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool)


def _is_rating(rating: Any) -> bool:
    return rating is None or (_is_whole(rating) and 1 <= rating <= 5)


def _partial_ranking(ranking: Any, size: int) -> list[int | None] | None:
    if not ranking or not any(ranking):
        return None
    if not isinstance(ranking, list) or len(ranking) != size:
        raise InvalidInput(f"The ranking needs {size} numbers, one per reply.")
    if any(rank is not None and (isinstance(rank, bool) or rank not in range(1, size + 1)) for rank in ranking):
        raise InvalidInput(f"Ranks go from 1 (best) to {size}, equal numbers tie; {ranking!r} does not.")
    return list(ranking)


def _active(milliseconds: Any) -> int | None:
    """Time on task as the browser measured it; never negative, at most a day."""
    if milliseconds is None:
        return None
    numeric = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    if not numeric or not -math.inf < milliseconds < math.inf:
        raise InvalidInput(f"active_ms counts milliseconds, not {milliseconds!r}.")
    return min(max(int(milliseconds), 0), _MAX_ACTIVE_MS)
