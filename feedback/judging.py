"""May this verdict or ranking be saved, and what does it say in stored order; undo.

The screen speaks of left and right, storage of first and second: ``stored_verdict`` and ``stored_ranking`` are
the only two places where one becomes the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from feedback.assignment import LEASE_SECONDS, Task, task_of
from feedback.db import Database
from feedback.errors import InvalidInput
from feedback.store import judgments
from feedback.store.judgments import Submitted
from feedback.store.rows import reason_of
from feedback.tables import LeaseRow, MatchupRow
from feedback.types import Judgment, MatchupKind, ShownVerdict, Verdict, now

__all__ = ["Submitted", "stored_ranking", "stored_verdict", "submit", "undo_last"]

MAX_TEXT = 20_000


def submit(
    db: Database,
    lease_id: str,
    annotator: str,
    *,
    verdict: ShownVerdict | str | None = None,
    ranking: Sequence[int] | None = None,
    strength: int | None = None,
    skip_reason: str | None = None,
    rationale: str | None = None,
    edited: dict[str, Any] | None = None,
    at: datetime | None = None,
) -> Submitted:
    """Judge the matchup a lease is about, in shown order; give exactly one of verdict, ranking, skip_reason.

    The same lease again returns the first judgment, whatever it now says. Raises InvalidInput for a judgment that
    says nothing, two things or something the matchup does not allow; NotFound for an unknown lease; LeaseLost
    for one that is expired, released or somebody else's. A refused judgment leaves the lease as it was.
    """
    given = [
        name
        for name, value in (("verdict", verdict), ("ranking", ranking), ("skip_reason", skip_reason))
        if value is not None
    ]
    if len(given) != 1:
        raise InvalidInput(
            f"Give exactly one of verdict, ranking and skip_reason, not {' and '.join(given) or 'none'}."
        )
    for name, text in (("skip_reason", skip_reason), ("rationale", rationale)):
        if text is not None and len(text) > MAX_TEXT:
            raise InvalidInput(f"{name} may have {MAX_TEXT} characters, not {len(text)}.")

    def build(lease: LeaseRow, matchup: MatchupRow) -> Judgment:
        try:
            return Judgment(
                matchup_id=matchup.id,
                lease_id=lease.id,
                annotator=annotator,
                source=lease.source,
                verdict=_verdict(verdict, skip_reason, matchup, lease),
                ranking=None if ranking is None else _ranking(ranking, matchup, lease),
                strength=strength,
                shown_order=lease.shown_order,
                skip_reason=skip_reason,
                rationale=rationale,
                edited=None if edited is None else _edit(edited, lease),
            )
        except ValidationError as error:
            raise InvalidInput(reason_of(error)) from error

    return judgments.save_judgment(db, lease_id, annotator, build, at=at or now())


def undo_last(
    db: Database, annotator: str, *, session: str | None = None, lease_seconds: float = LEASE_SECONDS
) -> Task | None:
    """Take back the annotator's last judgment (of this browser session) and put its matchup on the screen again."""
    at = now()
    lease = judgments.withdraw_last_judgment(
        db, annotator, session_key=session, expires_at=at + timedelta(seconds=lease_seconds), at=at
    )
    return None if lease is None else task_of(db, lease)


def stored_verdict(shown: ShownVerdict, shown_order: Sequence[int]) -> Verdict:
    """What a verdict on the screen says of the stored order."""
    if shown in (ShownVerdict.tie, ShownVerdict.both_bad):
        return Verdict(shown.value)
    place = 0 if shown is ShownVerdict.left else 1
    return Verdict.first if shown_order[place] == 0 else Verdict.second


def stored_ranking(ranking: Sequence[int], shown_order: Sequence[int]) -> list[int]:
    """Ranks by place on the screen → ranks by stored index."""
    by_index = dict(zip(shown_order, ranking, strict=True))
    return [by_index[index] for index in range(len(shown_order))]


def _verdict(
    verdict: ShownVerdict | str | None, skip_reason: str | None, matchup: MatchupRow, lease: LeaseRow
) -> Verdict | None:
    if skip_reason is not None:
        return Verdict.skip
    if verdict is None:
        return None
    if matchup.kind is not MatchupKind.pair:
        raise InvalidInput(
            f"This task ranks {len(matchup.generation_ids)} replies; give a ranking, not the verdict {verdict!r}."
        )
    try:
        shown = ShownVerdict(verdict)
    except ValueError as error:
        raise InvalidInput(f"{verdict!r} is not a verdict; valid: {', '.join(ShownVerdict)}.") from error
    return stored_verdict(shown, lease.shown_order)


def _ranking(ranking: Sequence[int], matchup: MatchupRow, lease: LeaseRow) -> list[int]:
    size = len(matchup.generation_ids)
    if len(ranking) != size:
        raise InvalidInput(f"The ranking needs {size} numbers, one per reply, not {len(ranking)}.")
    if any(isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= size for rank in ranking):
        raise InvalidInput(f"Ranks go from 1 (best) to {size}, equal numbers tie; {list(ranking)} does not.")
    return stored_ranking(ranking, lease.shown_order)


def _edit(edited: dict[str, Any], lease: LeaseRow) -> dict[str, Any]:
    index, text = edited.get("index"), edited.get("text")
    size = len(lease.shown_order)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < size:
        raise InvalidInput(f"edited.index names a shown reply, 0 to {size - 1}, not {index!r}.")
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput("edited.text must be the edited reply, not empty.")
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"edited.text may have {MAX_TEXT} characters, not {len(text)}.")
    return {"index": lease.shown_order[index], "text": text}
