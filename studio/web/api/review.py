"""REST for reviewers: the quality report, the judgments behind it, acts, batches, gold and the adjudication queue.

Only ``/tasks/…``, ``/disputes/next`` and ``/messages`` may be shown to whoever judges: everything else tells checks
from other tasks.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from feedback.rules.annotations import to_shown
from feedback.store.labeling.batches import BatchSummary
from feedback.store.reports.evidence import Evidence
from feedback.store.rows import value_of
from feedback.tables import ReviewRow
from feedback.types import MAX_PRIORITY, Batch, Checks, MatchupState, Purpose
from studio.services.labeling import LOCAL_ANNOTATOR
from studio.web.api.dependencies import Given, Name, task_json
from studio.web.api.schemas import Body, Integer, Real, Reason

router = APIRouter(prefix="/api")

_REMARKS = ("edited", "spans", "criteria", "flag")
"""What a judgment carries beside the answer; indices and ratings in shown order, as ``responses`` are."""

Count = Annotated[int, Query(ge=1, le=500)]


class ExcludeIn(Reason):
    """Why a judgment is taken out, and whether another opinion is asked for in its place."""

    requeue: bool = False


class GoldIn(Body):
    """The known answer in stored order: ``{"verdict": "first"}`` or ``{"ranking": [2, 1, 3]}``."""

    gold: dict[str, Any]


class MessageIn(Body):
    """A message to an annotator."""

    annotator: str = Field(min_length=1, max_length=80)
    text: str


class BatchIn(Body):
    """A batch, and what goes into it: these matchups, or the next ``count`` of the pool."""

    name: str
    purpose: Purpose = Purpose.collect
    priority: Integer = Field(0, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    required: Integer = 1
    max_required: Integer = 0
    note: str = Field("", max_length=2000)
    matchups: list[str] | None = Field(None, min_length=1, max_length=100_000)
    count: Integer | None = Field(None, ge=1, le=1_000_000)


class ChecksIn(Body):
    """Shares of the tasks, 0 (off) to 0.5, and seconds until a repeat; what is left out stays as it is."""

    gold_share: Real | None = None
    repeat_share: Real | None = None
    repeat_after: Real | None = None


class PriorityIn(Body):
    """A new place in the queue; higher comes first."""

    priority: Integer = Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)


# Tasks at hand --------------------------------------------------------------------------------------------


@router.post("/tasks/{lease}/heartbeat", tags=["labeling"])
def heartbeat(lease: str, services: Given, name: Name = None) -> dict[str, str]:
    """Keep a task a while longer; 409 when it has gone back to the pool."""
    return {"expires_at": services.labeling.extend(lease, name or LOCAL_ANNOTATOR).isoformat()}


@router.post("/tasks/{lease}/release", tags=["labeling"])
def release(lease: str, services: Given, name: Name = None) -> dict[str, bool]:
    """Give a task back unjudged."""
    return {"released": services.labeling.release(lease, name or LOCAL_ANNOTATOR)}


@router.get("/messages", tags=["labeling"])
def messages(services: Given, name: Name = None) -> dict[str, Any]:
    """What reviewers wrote to the caller."""
    rows = services.review.messages_for(name or LOCAL_ANNOTATOR)
    return {"messages": [{"text": row.reason, "at": row.created_at.isoformat()} for row in rows]}


# Review ---------------------------------------------------------------------------------------------------


@router.get("/review", tags=["review"])
def quality_report(services: Given) -> dict[str, Any]:
    """Agreement, the ceiling it implies, and one line per annotator; what is undefined says why in ``note``."""
    return services.review.report().as_json()


@router.get("/review/judgments", tags=["review"])
def list_evidence(
    services: Given,
    annotator: str | None = None,
    matchup: str | None = None,
    state: MatchupState | None = None,
    limit: Count = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> dict[str, Any]:
    """Judgments with their texts and what others said, newest first."""
    found = services.review.list_evidence(
        annotator=annotator, matchup_id=matchup, state=state, limit=limit, offset=offset
    )
    return {"judgments": [_evidence(item) for item in found]}


@router.get("/review/judgments/{judgment_id}/lineage", tags=["review"])
def lineage(judgment_id: str, services: Given) -> dict[str, Any]:
    """What was made with a judgment: the datasets that froze it, reward models trained on those, and policies."""
    return services.review.lineage(judgment_id)


@router.post("/review/judgments/{judgment_id}/exclude", tags=["review"])
def exclude(judgment_id: str, body: ExcludeIn, services: Given, name: Name = None) -> dict[str, Any]:
    """Take a judgment out of everything derived from judgments; it is kept, marked, with the reason."""
    actor = name or LOCAL_ANNOTATOR
    return _review(services.review.exclude(judgment_id, actor, body.reason, requeue=body.requeue))


@router.post("/review/judgments/{judgment_id}/restore", tags=["review"])
def restore(judgment_id: str, body: Reason, services: Given, name: Name = None) -> dict[str, Any]:
    """Let an excluded judgment count again."""
    return _review(services.review.restore(judgment_id, name or LOCAL_ANNOTATOR, body.reason))


@router.post("/review/matchups/{matchup_id}/requeue", tags=["review"])
def requeue(matchup_id: str, body: Reason, services: Given, name: Name = None) -> dict[str, Any]:
    """Ask for one more opinion on a matchup."""
    return _review(services.review.requeue(matchup_id, name or LOCAL_ANNOTATOR, body.reason))


@router.post("/review/matchups/{matchup_id}/gold", status_code=201, tags=["review"])
def make_gold(matchup_id: str, body: GoldIn, services: Given) -> dict[str, str]:
    """Put a matchup with its known answer before every annotator, in the form of any other task."""
    return {"matchup_id": services.review.make_gold(matchup_id, body.gold).id}


@router.post("/review/messages", status_code=201, tags=["review"])
def send_message(body: MessageIn, services: Given, name: Name = None) -> dict[str, Any]:
    """Leave a message for an annotator."""
    return _review(services.review.message(body.annotator, name or LOCAL_ANNOTATOR, body.text))


@router.get("/review/acts", tags=["review"])
def list_acts(services: Given, limit: Count = 50) -> dict[str, Any]:
    """What reviewers did, newest first."""
    return {"acts": [_review(row) for row in services.review.list_acts(limit)]}


@router.post("/disputes/next", tags=["review"], response_model=None)
def next_dispute(services: Given, name: Name = None) -> Response:
    """Lease a matchup that annotators disagree about, blind; its judgment settles it. 204 when there is none."""
    task = services.review.next_dispute(name or LOCAL_ANNOTATOR)
    return (
        Response(status_code=204)
        if task is None
        else JSONResponse(task_json(task, services.labeling.guidelines().text))
    )


# Checks ---------------------------------------------------------------------------------------------------


@router.get("/checks", tags=["review"])
def get_checks(services: Given) -> dict[str, Any]:
    """How many tasks are gold or repeats now; version 0 are the product's own shares."""
    return _checks(services.labeling.checks())


@router.post("/checks", status_code=201, tags=["review"])
def save_checks(body: ChecksIn, services: Given, name: Name = None) -> dict[str, Any]:
    """Change what is named and leave the rest; it holds from the next task on."""
    return _checks(services.labeling.change_checks(body.model_dump(exclude_none=True), name or LOCAL_ANNOTATOR))


# Batches --------------------------------------------------------------------------------------------------


@router.post("/batches", status_code=201, tags=["batches"])
def add_batch(body: BatchIn, services: Given) -> dict[str, Any]:
    """Give a part of the pool its own purpose, priority and number of opinions."""
    batch = value_of(Batch, **body.model_dump(exclude={"matchups", "count"}))
    return _batch(services.review.add_batch(batch, matchup_ids=body.matchups, count=body.count))


@router.get("/batches", tags=["batches"])
def list_batches(services: Given) -> dict[str, Any]:
    """All batches, highest priority first, with their progress."""
    return {"batches": [_batch(summary) for summary in services.review.list_batches()]}


@router.post("/batches/{key}/priority", tags=["batches"])
def set_priority(key: str, body: PriorityIn, services: Given) -> dict[str, Any]:
    """Move a batch forward or back in the queue."""
    return _batch(services.review.set_priority(key, body.priority))


# Shapes ---------------------------------------------------------------------------------------------------


def _evidence(item: Evidence) -> dict[str, Any]:
    judgment = item.judgment
    return {
        "judgment_id": judgment.id,
        "matchup_id": judgment.matchup_id,
        "annotator": judgment.annotator,
        "state": judgment.state.value,
        "verdict": judgment.verdict.value if judgment.verdict else None,
        "ranking": judgment.ranking,
        "strength": judgment.strength,
        "shown_order": judgment.shown_order,
        "skip_reason": judgment.skip_reason,
        "rationale": judgment.rationale,
        **to_shown({name: getattr(judgment, name) for name in _REMARKS}, judgment.shown_order),
        "guidelines": judgment.guidelines,
        "active_ms": judgment.active_ms,
        "purpose": item.purpose.value,
        "matchup_state": item.state.value,
        "prompt": item.messages,
        "responses": item.responses,
        "others": item.others,
        "reviews": [_review(row) for row in item.reviews],
        "at": judgment.created_at.isoformat(),
    }


def _review(row: ReviewRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "act": row.act.value,
        "actor": row.actor,
        "reason": row.reason,
        "judgment_id": row.judgment_id,
        "matchup_id": row.matchup_id,
        "annotator": row.annotator,
        "at": row.created_at.isoformat(),
    }


def _checks(checks: Checks) -> dict[str, Any]:
    return {"version": 0, **checks.model_dump(include={"version", "gold_share", "repeat_share", "repeat_after"})}


def _batch(summary: BatchSummary) -> dict[str, Any]:
    batch = summary.batch
    return {
        "id": batch.id,
        "name": batch.name,
        "purpose": batch.purpose.value,
        "priority": batch.priority,
        "required": batch.required,
        "max_required": batch.max_required,
        "note": batch.note,
        "matchups": summary.states,
    }
