"""Background jobs: submit, watch, cancel, resume."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from feedback.labeling.run_replies import USUAL_LIMIT
from feedback.tables import RunRow
from feedback.types import RunState
from studio.metrics_export import metric_lines
from studio.page.views.training import runs as runs_view
from studio.services.runs import RunsAsked
from studio.web.api.dependencies import Given
from studio.web.api.schemas import RunIn
from training.runs.reproduce import command_of, spec_of

router = APIRouter(prefix="/api")


@router.post("/runs", status_code=202, tags=["runs"])
def submit_run(body: RunIn, services: Given) -> dict[str, str]:
    """Queue a background job: generate, evaluate, benchmark or a training method."""
    return {"run_id": services.runs.submit_run(body.method, body.config, after=body.after, priority=body.priority).id}


@router.get("/runs", tags=["runs"])
def list_runs(
    services: Given,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: str | None = None,
    method: str | None = None,
    state: RunState | None = None,
    name: Annotated[str | None, Query(max_length=200)] = None,
) -> dict[str, Any]:
    """The newest runs, without their curves; ``next`` is the ``before`` of the page after, null on the last.

    ``name`` is a part of a run's name, of the name of what it made, or of its id; ``total`` counts all that fit.
    """
    states = None if state is None else (state,)
    page = services.runs.page_of_runs(RunsAsked(method, states, name or None, before), limit)
    return {"runs": [_run(row) for row in page.runs], "next": page.older, "total": page.total}


@router.get("/runs/{run_id}", tags=["runs"])
def get_run(run_id: str, services: Given) -> dict[str, Any]:
    """One run; ``metrics`` holds the latest value of each."""
    run = services.runs.get_run(run_id)
    again = {"command": command_of(run), "spec": spec_of(run)}
    return _run(run) | {"metrics": runs_view.latest_metrics(services.runs.run_metrics(run.id)), "reproduce": again}


@router.post("/runs/{run_id}/cancel", tags=["runs"])
def cancel_run(run_id: str, services: Given) -> dict[str, Any]:
    """Take a run out of the queue, or ask it to stop at its next step."""
    return _run(services.runs.cancel_run(run_id))


@router.post("/runs/{run_id}/annotate", status_code=201, tags=["runs"])
def annotate_run(
    run_id: str, services: Given, limit: Annotated[int, Query(ge=1, le=10_000)] = USUAL_LIMIT
) -> dict[str, int]:
    """Put what a run's policy replied while it learnt before the annotators, as up to ``limit`` pairs."""
    return {"matchups": len(services.runs.annotate_run(run_id, limit))}


@router.post("/runs/{run_id}/resume", status_code=202, tags=["runs"])
def resume_run(run_id: str, services: Given) -> dict[str, Any]:
    """Queue an ended run again under the same id."""
    return _run(services.runs.resume_run(run_id))


@router.get("/runs/{run_id}/metrics", tags=["runs"], response_model=None)
def run_metrics(
    run_id: str, services: Given, format_name: Annotated[str | None, Query(alias="format")] = None
) -> list[dict[str, Any]] | StreamingResponse:
    """Every metric point in the order written; as a file with ``format`` csv or jsonl."""
    points = services.runs.run_metrics(run_id)
    if format_name is not None:
        headers = {"Content-Disposition": f'attachment; filename="{run_id}.{format_name}"'}
        kind = "text/csv" if format_name == "csv" else "application/x-ndjson"
        return StreamingResponse(iter(metric_lines(points, format_name)), media_type=kind, headers=headers)
    return [{"step": point.step, "name": point.name, "value": point.value} for point in points]


@router.get("/runs/{run_id}/log", tags=["runs"])
def run_log(run_id: str, services: Given) -> dict[str, str]:
    """The end of a run's log."""
    return {"log": services.runs.log_tail(run_id, 64 * 1024)}


def _run(run: RunRow) -> dict[str, Any]:
    return {
        "id": run.id,
        "method": run.method,
        "state": run.state.value,
        "progress": run.progress,
        "progress_text": run.progress_text,
        "metrics": {},
        "error": run.error,
        "result": run.result,
        "config": run.config,
        "attempt": run.attempt,
        "after": run.after,
        "priority": run.priority,
        "created_at": run.created_at.isoformat(),
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
    }
