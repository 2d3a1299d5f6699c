"""Words that came too late for a judgment: which of them it lacks, and how they are added to it.

Two windows can show the same pair. The one that answers second changes nothing, so what was typed there would be lost;
it is compared with the saved judgment, and a person may have it added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.rules.annotations import MAX_TEXT, to_shown, to_stored
from feedback.store.labeling import amendments
from feedback.tables import JudgmentRow
from feedback.types import now

REMARKS = ("rationale", "edited", "spans", "criteria", "flag")


def missing_remarks(db: Database, lease_id: str, annotator: str, said: Mapping[str, Any]) -> dict[str, Any] | None:
    """What of ``said`` (in shown order) this person's saved judgment of the lease's matchup lacks.

    None where they have judged it nowhere; empty where the judgment has it all. Raises NotFound for an unknown lease
    and InvalidInput for remarks that do not fit the replies.
    """
    found = amendments.find_judged(db, lease_id, annotator)
    if found is None:
        return None
    judgment, texts = found
    changed = _merged(judgment, texts, said)
    stored = _stored(judgment, texts, said)
    return to_shown({name: stored[name] for name in changed}, judgment.shown_order)


def add_remarks(db: Database, lease_id: str, annotator: str, said: Mapping[str, Any]) -> str:
    """Add remarks (in shown order) to this person's saved judgment as its next revision; the id of that judgment.

    Raises Conflict where there is no judgment to add to. An edit and a flag replace those of the revision before, which
    stays on record; a note is appended, marks and ratings are put beside the others.
    """
    with amendments.open_amendment(db, lease_id, annotator, at=now()) as amendment:
        return amendment.save(_merged(amendment.judgment, amendment.texts, said))


def _stored(judgment: JudgmentRow, texts: Sequence[str], said: Mapping[str, Any]) -> dict[str, Any]:
    content = {name: said[name] for name in REMARKS if said.get(name)}
    return to_stored(content, judgment.shown_order, [texts[index] for index in judgment.shown_order])


def _merged(judgment: JudgmentRow, texts: Sequence[str], said: Mapping[str, Any]) -> dict[str, Any]:
    """The remarks that differ once ``said`` is added, in stored order."""
    added = _stored(judgment, texts, said)
    merged = {
        "rationale": _appended(judgment.rationale, added.get("rationale")),
        "edited": added.get("edited") or judgment.edited,
        "spans": _joined(judgment.spans, added.get("spans")),
        "criteria": _rated(judgment.criteria, added.get("criteria")),
        "flag": added.get("flag") or judgment.flag,
    }
    return {name: value for name, value in merged.items() if value != getattr(judgment, name)}


def _appended(kept: str | None, added: str | None) -> str | None:
    if not added or added.strip() in (kept or ""):
        return kept
    text = f"{kept}\n{added}" if kept else added
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"The note may have {MAX_TEXT} characters, not {len(text)} with this; shorten it.")
    return text


def _joined(kept: list[dict[str, Any]] | None, added: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    new = [span for span in added or [] if span not in (kept or [])]
    return [*(kept or []), *new] if new else kept


def _rated(
    kept: dict[str, list[int | None]] | None, added: dict[str, list[int | None]] | None
) -> dict[str, list[int | None]] | None:
    if not added:
        return kept
    merged = {name: list(values) for name, values in (kept or {}).items()}
    for name, values in added.items():
        before = merged.get(name, [None] * len(values))
        merged[name] = [new if new is not None else old for old, new in zip(before, values, strict=True)]
    return merged
