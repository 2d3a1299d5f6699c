"""May this verdict or ranking be saved, and what does it say in stored order; undo.

The screen speaks of left and right, storage of first and second: ``stored_verdict`` and ``stored_ranking`` are
the only two places where one becomes the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.labeling.assignment import LEASE_SECONDS, Task, task_of
from feedback.rules.annotations import MAX_TEXT, to_shown, to_stored
from feedback.store.labeling import drafts, judgments
from feedback.store.labeling.submission import open_submission
from feedback.store.rows import value_of
from feedback.tables import LeaseRow, MatchupRow
from feedback.types import Judgment, MatchupKind, ShownVerdict, Verdict, now


@dataclass(frozen=True)
class Submitted:
    """The judgment a lease led to; ``created`` is False when the same lease had been submitted before."""

    judgment_id: str
    created: bool


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
    guidelines: int | None = None,
    at: datetime | None = None,
    **remarks: Any,
) -> Submitted:
    """Judge the matchup a lease is about, in shown order; give exactly one of verdict, ranking, skip_reason.

    ``remarks`` are ``edited``, ``spans``, ``criteria``, ``flag`` and ``active_ms``, see ``feedback.rules.annotations``;
    ``guidelines`` is the version that was on the screen. The same lease again returns the first judgment, whatever
    it now says. Raises InvalidInput for a judgment that
    says nothing, two things or something the matchup does not allow; NotFound for an unknown lease; LeaseLost
    for one that is expired, released or somebody else's. A refused judgment leaves the lease and the draft as
    they were; a saved one ends both.
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
    if skip_reason is not None and not 0 < len(skip_reason.strip()) <= MAX_TEXT:
        raise InvalidInput(f"skip_reason says why, in 1 to {MAX_TEXT} characters, not {len(skip_reason.strip())}.")

    with open_submission(db, lease_id, annotator, at=at or now()) as submission:
        if submission.earlier is not None:
            return Submitted(submission.earlier, created=False)
        lease, matchup = submission.lease, submission.matchup
        said = to_stored(
            {"rationale": rationale, **remarks},
            lease.shown_order,
            [submission.texts[index] for index in lease.shown_order],
        )
        judgment = value_of(
            Judgment,
            matchup_id=matchup.id,
            lease_id=lease.id,
            annotator=annotator,
            source=lease.source,
            verdict=_verdict(verdict, skip_reason, matchup, lease),
            ranking=None if ranking is None else _ranking(ranking, matchup, lease),
            strength=_strength(strength),
            shown_order=lease.shown_order,
            skip_reason=skip_reason,
            guidelines=guidelines,
            **said,
        )
        return Submitted(submission.save(judgment), created=True)


def undo_last(
    db: Database, annotator: str, *, session: str | None = None, lease_seconds: float = LEASE_SECONDS
) -> Task | None:
    """Take back the annotator's last judgment, of this browser session first, and show its matchup again."""
    at = now()
    lease = judgments.withdraw_last_judgment(
        db, annotator, session_key=session, expires_at=at + timedelta(seconds=lease_seconds), at=at
    )
    return None if lease is None else task_of(db, lease)


def save_draft(db: Database, lease_id: str, annotator: str, content: dict[str, Any]) -> datetime | None:
    """Keep remarks and an unfinished ranking, in shown order, until the lease's matchup is judged.

    Gives the moment they were kept, None when there was nothing to keep. Raises InvalidInput, NotFound and
    LeaseLost as ``submit`` does.
    """

    at = now()
    with drafts.open_draft(db, lease_id, annotator, at=at) as draft:
        order = draft.lease.shown_order
        kept = to_stored(content, order, [draft.texts[index] for index in order])
        draft.save(kept)
    return at if kept else None


def draft_of(db: Database, task: Task) -> dict[str, Any]:
    """What the person left unfinished about the matchup on their screen, in shown order."""
    row = drafts.get_draft(db, task.matchup_id, task.annotator)
    return {} if row is None else to_shown(row.content, task.shown_order)


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
    try:
        shown = ShownVerdict(verdict)
    except ValueError as error:
        raise InvalidInput(f"{verdict!r} is not a verdict; valid: {', '.join(ShownVerdict)}.") from error
    # Of a ranking, too, it can be said that no reply is usable.
    if matchup.kind is not MatchupKind.pair and shown is not ShownVerdict.both_bad:
        raise InvalidInput(
            f"This task ranks {len(matchup.generation_ids)} replies; give a ranking, not the verdict {shown.value!r}."
        )
    return stored_verdict(shown, lease.shown_order)


def _strength(strength: Any) -> int | None:
    """As given; ``true`` and ``"2"`` would pass for 1 and 2 where the judgment is made."""
    if isinstance(strength, bool) or not isinstance(strength, int | None):
        raise InvalidInput(f"strength must be 1, 2 or 3, not {strength!r}.")
    return strength


def _ranking(ranking: Sequence[int], matchup: MatchupRow, lease: LeaseRow) -> list[int]:
    size = len(matchup.generation_ids)
    if len(ranking) != size:
        raise InvalidInput(f"The ranking needs {size} numbers, one per reply, not {len(ranking)}.")
    if any(isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= size for rank in ranking):
        raise InvalidInput(f"Ranks go from 1 (best) to {size}, equal numbers tie; {list(ranking)} does not.")
    return stored_ranking(ranking, lease.shown_order)
