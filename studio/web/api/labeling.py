"""Tasks, judgments and guidelines, for programs that label.

What goes to an annotator is built field by field in ``dependencies``, so that nothing that names a policy can slip in.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from feedback.store.rows import value_of
from feedback.types import Guidelines
from studio.services.labeling import LOCAL_ANNOTATOR
from studio.web.api.dependencies import Given, Name, task_json
from studio.web.api.schemas import GuidelinesIn, JudgmentIn, PageIn, TaskIn

router = APIRouter(prefix="/api")

_GUIDELINE_FIELDS = {"version", "text", "criteria", "asks_rationale"}


@router.post("/tasks/next", tags=["labeling"], response_model=None)
async def next_task(services: Given, body: TaskIn | None = None, name: Name = None) -> Response:
    """Lease the next matchup to the caller; every call gives another one, 204 when none is left for them."""
    annotator = (body and body.annotator) or name or LOCAL_ANNOTATOR
    task, asked = await services.in_turn(services.labeling.lease_with_guidelines, annotator)
    return Response(status_code=204) if task is None else JSONResponse(task_json(task, asked))


@router.post("/judgments", status_code=201, tags=["labeling"], response_model=None)
async def judge(body: JudgmentIn, services: Given, name: Name = None) -> Response:
    """Record a judgment in shown order; the same lease again answers 200 with the same id."""
    said = body.model_dump(exclude={"lease", "annotator"}, exclude_none=True)
    annotator = body.annotator or name or LOCAL_ANNOTATOR
    submitted = await services.in_turn(partial(services.labeling.judge, body.lease, annotator, **said))
    return JSONResponse({"judgment_id": submitted.judgment_id}, status_code=201 if submitted.created else 200)


@router.post("/tasks/leave", status_code=204, tags=["labeling"])
def leave(body: PageIn, services: Given, name: Name = None) -> Response:
    """Say that a page of the studio is being closed: what it holds may go to another page at once."""
    services.labeling.leave(body.session, name or LOCAL_ANNOTATOR)
    return Response(status_code=204)


@router.get("/guidelines", tags=["labeling"])
def get_guidelines(services: Given) -> dict[str, Any]:
    """What annotators are asked now; version 0 are the product's own words."""
    return services.labeling.guidelines().model_dump(include=_GUIDELINE_FIELDS)


@router.post("/guidelines", status_code=201, tags=["labeling"])
def save_guidelines(body: GuidelinesIn, services: Given) -> dict[str, Any]:
    """Add a version of the guidelines; one that changes nothing gives the present version back."""
    value = value_of(Guidelines, **body.model_dump())
    return services.labeling.save_guidelines(value).model_dump(include=_GUIDELINE_FIELDS)
