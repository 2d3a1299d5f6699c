"""REST under /api: the services as JSON. A route does: body → one service call → JSON.

Routes are plain functions, so FastAPI runs them in threads and a database wait never blocks the page; the two that
run per vote hand their work to one thread that keeps the order (``Services.in_turn``). Errors
are ``{"detail": "one sentence"}``. What goes to an annotator (``/tasks/next``) is built field by field in
``api_shapes``, so that nothing that names a policy can slip in.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from feedback.datasets.split_size import split_notes
from feedback.errors import (
    Conflict,
    DatabaseDamaged,
    EndpointFailed,
    InvalidInput,
    LockedOut,
    NotAllowed,
    NotEnoughData,
    NotFound,
    NotSignedIn,
    StudioError,
    Unavailable,
)
from feedback.labeling.run_replies import USUAL_LIMIT
from feedback.store.content.prompts import SavedPrompts
from feedback.store.rows import value_of
from feedback.tables import RunRow
from feedback.types import DatasetFilters, Guidelines, Prompt, RunState, Split
from studio import __version__, api_benchmarks, api_label, api_review, present
from studio.api_shapes import Given, Name, task_json
from studio.curves import metric_lines
from studio.on_demand import OnDemand
from studio.refusals import shortened, tell_failure, unavailable
from studio.schemas import BaseIn, DatasetIn, GenerationsIn, GuidelinesIn, JudgmentIn, PageIn, PromptsIn, RunIn, TaskIn
from studio.services import LOCAL_ANNOTATOR, PolicySummary, RunsAsked, Services
from training.runs.reproduce import command_of, spec_of

router = APIRouter(prefix="/api")

_STATUS: list[tuple[type[StudioError], int]] = [
    (NotFound, 404),
    (Conflict, 409),
    (NotSignedIn, 401),
    (NotAllowed, 403),
    (LockedOut, 429),
    (InvalidInput, 422),
    (NotEnoughData, 422),
    (EndpointFailed, 502),
    (DatabaseDamaged, 500),
]
# What no database can hold, wherever in a request it stood; as a key to look up it matches nothing anywhere.
_BEYOND: list[tuple[type[Exception], str]] = [
    (OverflowError, "A number is larger than any database can hold; give a smaller one."),  # than 64 bits
    (
        UnicodeEncodeError,  # JSON can name half of a pair, UTF-8 cannot
        "A text holds half of a surrogate pair, which no database can hold; send whole Unicode characters.",
    ),
]
# What FastAPI calls an error in parsing, whatever it was; of two that fit, the first is the reason.
_UNREADABLE: list[tuple[type[Exception], str]] = [
    (RecursionError, "it is nested too deeply; send an object with fewer levels"),
    (UnicodeDecodeError, "it is not UTF-8; encode it as UTF-8"),
    (ValueError, f"a number in it has more than {sys.get_int_max_str_digits()} digits; give a smaller one"),
]
TOLD: tuple[type[Exception], ...] = (StudioError, *(kind for kind, _ in _BEYOND))
_GUIDELINE_FIELDS = {"version", "text", "criteria", "asks_rationale"}
_METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
_CHUNK_CHARACTERS = 64 * 1024


def add_api(app: FastAPI, services: Services) -> None:
    """Give an app the routes of this module and the way their errors are told."""
    app.state.services = services
    app.state.on_demand = OnDemand()
    app.router.on_shutdown.insert(0, app.state.on_demand.close)
    app.include_router(router)
    app.include_router(api_label.router)
    app.include_router(api_review.router)
    app.include_router(api_benchmarks.router)
    app.add_exception_handler(RequestValidationError, tell_invalid)
    app.add_exception_handler(HTTPException, _tell_unreadable)
    for kind in TOLD:
        app.add_exception_handler(kind, tell)
    app.add_exception_handler(Exception, tell_failure)


def add_last(app: FastAPI) -> None:
    """Tell what asks /api for something there is not, before the page, which answers every path, is asked for it."""

    def refuse(request: Request) -> JSONResponse:
        path = request.url.path
        before = list(itertools.takewhile(lambda route: getattr(route, "endpoint", None) is not refuse, app.routes))
        ways = [way for way in _METHODS if any(_answers(route, dict(request.scope, method=way)) for route in before)]
        if not ways:
            detail = f"There is nothing at {shortened(path, 200)}. What there is: /api/docs."
            return JSONResponse({"detail": detail}, 404)
        detail = f"{shortened(path, 200)} is not asked with {request.method} but with {' or '.join(ways)}."
        return JSONResponse({"detail": detail}, 405, {"Allow": ", ".join(ways)})

    app.router.add_route("/api/{rest:path}", refuse, methods=_METHODS, include_in_schema=False)


def _answers(route: BaseRoute, scope: Scope) -> bool:
    return route.matches(scope)[0] is Match.FULL


# Health and reference -------------------------------------------------------------------------------------


@router.get("/health", tags=["studio"])
async def health() -> dict[str, str]:
    """Whether the studio answers, and which release it is."""
    return {"status": "ok", "version": __version__}


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> dict[str, Any]:
    """The OpenAPI description of every route."""
    described: dict[str, Any] = request.app.openapi()
    return described


@router.get("/docs", include_in_schema=False)
def reference(request: Request) -> HTMLResponse:
    """The routes as a page that loads nothing from elsewhere."""
    return HTMLResponse(present.api_reference(request.app.openapi()))


# Prompts --------------------------------------------------------------------------------------------------


@router.post("/prompts", tags=["prompts"])
def add_prompts(body: PromptsIn, services: Given) -> dict[str, Any]:
    """Add prompts; one whose content is known already counts as a duplicate.

    A stored work prompt that comes as an evaluation prompt is one from then on: ``changed`` counts those, and
    ``still_in_datasets`` names the datasets frozen before that hold judgments of them.
    """
    return add_read_prompts(body, services.add_prompts)


def add_read_prompts(body: PromptsIn, add: Callable[[list[Prompt]], SavedPrompts]) -> dict[str, Any]:
    """What ``POST /api/prompts`` does with a body once it is read."""
    saved = add([_prompt(i, item.plain(), item.tags, item.split) for i, item in enumerate(body.prompts)])
    changed = {"changed": len(saved.marked), "still_in_datasets": saved.still_in} if saved.marked else {}
    return {"added": saved.added, "duplicates": saved.duplicates, **changed}


@router.get("/prompts", tags=["prompts"])
def list_prompts(
    services: Given, split: Split | None = None, limit: Annotated[int, Query(ge=1, le=100_000)] = 1000
) -> dict[str, Any]:
    """Prompts of one split or of both."""
    rows = services.list_prompts(split, limit)
    return {
        "prompts": [
            {"id": row.id, "messages": row.messages, "tags": row.tags, "split": row.split.value} for row in rows
        ]
    }


# Runs -----------------------------------------------------------------------------------------------------


@router.post("/runs", status_code=202, tags=["runs"])
def submit_run(body: RunIn, services: Given) -> dict[str, str]:
    """Queue a background job: generate, evaluate, benchmark or a training method."""
    return {"run_id": services.submit_run(body.method, body.config, after=body.after, priority=body.priority).id}


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
    page = services.page_of_runs(RunsAsked(method, state, name or None, before), limit)
    return {"runs": [_run(row) for row in page.runs], "next": page.older, "total": page.total}


@router.get("/runs/{run_id}", tags=["runs"])
def get_run(run_id: str, services: Given) -> dict[str, Any]:
    """One run; ``metrics`` holds the latest value of each."""
    run = services.get_run(run_id)
    again = {"command": command_of(run), "spec": spec_of(run)}
    return _run(run) | {"metrics": present.latest_metrics(services.run_metrics(run.id)), "reproduce": again}


@router.post("/runs/{run_id}/cancel", tags=["runs"])
def cancel_run(run_id: str, services: Given) -> dict[str, Any]:
    """Take a run out of the queue, or ask it to stop at its next step."""
    return _run(services.cancel_run(run_id))


@router.post("/runs/{run_id}/annotate", status_code=201, tags=["runs"])
def annotate_run(
    run_id: str, services: Given, limit: Annotated[int, Query(ge=1, le=10_000)] = USUAL_LIMIT
) -> dict[str, int]:
    """Put what a run's policy replied while it learnt before the annotators, as up to ``limit`` pairs."""
    return {"matchups": len(services.annotate_run(run_id, limit))}


@router.post("/runs/{run_id}/resume", status_code=202, tags=["runs"])
def resume_run(run_id: str, services: Given) -> dict[str, Any]:
    """Queue an ended run again under the same id."""
    return _run(services.resume_run(run_id))


@router.get("/runs/{run_id}/metrics", tags=["runs"], response_model=None)
def run_metrics(
    run_id: str, services: Given, format_name: Annotated[str | None, Query(alias="format")] = None
) -> list[dict[str, Any]] | StreamingResponse:
    """Every metric point in the order written; as a file with ``format`` csv or jsonl."""
    points = services.run_metrics(run_id)
    if format_name is not None:
        headers = {"Content-Disposition": f'attachment; filename="{run_id}.{format_name}"'}
        kind = "text/csv" if format_name == "csv" else "application/x-ndjson"
        return StreamingResponse(iter(metric_lines(points, format_name)), media_type=kind, headers=headers)
    return [{"step": point.step, "name": point.name, "value": point.value} for point in points]


@router.get("/runs/{run_id}/log", tags=["runs"])
def run_log(run_id: str, services: Given) -> dict[str, str]:
    """The end of a run's log."""
    return {"log": services.log_tail(run_id, 64 * 1024)}


# Labeling -------------------------------------------------------------------------------------------------


@router.post("/tasks/next", tags=["labeling"], response_model=None)
async def next_task(services: Given, body: TaskIn | None = None, name: Name = None) -> Response:
    """Lease the next matchup to the caller; every call gives another one, 204 when none is left for them."""
    annotator = (body and body.annotator) or name or LOCAL_ANNOTATOR
    task, asked = await services.in_turn(services.lease_with_guidelines, annotator)
    return Response(status_code=204) if task is None else JSONResponse(task_json(task, asked))


@router.post("/judgments", status_code=201, tags=["labeling"], response_model=None)
async def judge(body: JudgmentIn, services: Given, name: Name = None) -> Response:
    """Record a judgment in shown order; the same lease again answers 200 with the same id."""
    said = body.model_dump(exclude={"lease", "annotator"}, exclude_none=True)
    annotator = body.annotator or name or LOCAL_ANNOTATOR
    submitted = await services.in_turn(partial(services.judge, body.lease, annotator, **said))
    return JSONResponse({"judgment_id": submitted.judgment_id}, status_code=201 if submitted.created else 200)


@router.post("/tasks/leave", status_code=204, tags=["labeling"])
def leave(body: PageIn, services: Given, name: Name = None) -> Response:
    """Say that a page of the studio is being closed: what it holds may go to another page at once."""
    services.leave(body.session, name or LOCAL_ANNOTATOR)
    return Response(status_code=204)


@router.get("/guidelines", tags=["labeling"])
def get_guidelines(services: Given) -> dict[str, Any]:
    """What annotators are asked now; version 0 are the product's own words."""
    return services.guidelines().model_dump(include=_GUIDELINE_FIELDS)


@router.post("/guidelines", status_code=201, tags=["labeling"])
def save_guidelines(body: GuidelinesIn, services: Given) -> dict[str, Any]:
    """Add a version of the guidelines; one that changes nothing gives the present version back."""
    value = value_of(Guidelines, **body.model_dump())
    return services.save_guidelines(value).model_dump(include=_GUIDELINE_FIELDS)


# Datasets -------------------------------------------------------------------------------------------------


@router.post("/datasets", status_code=201, tags=["datasets"])
def freeze_dataset(body: DatasetIn, services: Given) -> dict[str, Any]:
    """Freeze the judgments that pass the filters; ``same_as`` names an older one that holds the same, or is null.

    ``notes`` say what the split came to where that is not what was asked for, or too little to measure anything on.
    """
    row = services.freeze(body.name, body.filters)
    return {
        "dataset_id": row.id,
        "name": row.name,
        "hash": row.hash,
        "counts": row.counts,
        "dropped": row.dropped,
        "same_as": services.twin_of(row),
        "notes": split_notes(row.counts, body.filters.test_share if body.filters else DatasetFilters().test_share),
    }


@router.get("/datasets", tags=["datasets"])
def list_datasets(services: Given) -> dict[str, Any]:
    """All datasets, newest first."""
    return {"datasets": [_dataset(row) for row in services.list_datasets()]}


@router.get("/datasets/{key}", tags=["datasets"])
def get_dataset(key: str, services: Given) -> dict[str, Any]:
    """One dataset by id or name."""
    return _dataset(services.get_dataset(key))


@router.get("/datasets/{key}/export", tags=["datasets"])
def export_dataset(
    key: str,
    services: Given,
    format_name: Annotated[str, Query(alias="format")] = "trl-preference",
    split: str | None = None,
) -> StreamingResponse:
    """A dataset, or its train or test side, streamed; ``X-Dropped`` tells what it left out and why."""
    export, chosen, lines = services.export(key, format_name, split)
    parts = (export.dataset.name, split, chosen.name, chosen.extension)
    name = ".".join(dict.fromkeys(part for part in parts if part))
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Dropped": json.dumps(services.count_dropped(key, format_name, split)),
        "X-Dataset-Hash": export.dataset.hash,
    }
    return StreamingResponse(_in_chunks(lines), media_type=chosen.media_type, headers=headers)


# Policies and replies -------------------------------------------------------------------------------------


@router.get("/policies", tags=["policies"])
def list_policies(services: Given) -> dict[str, Any]:
    """All policies, newest first, with parent, dataset and newest win rate."""
    return {"policies": [_policy(summary) for summary in services.list_policies()]}


@router.get("/policies/{key}", tags=["policies"])
def get_policy(key: str, services: Given) -> dict[str, Any]:
    """One policy by id or name."""
    return _policy(services.get_policy(key))


@router.post("/policies/{key}/promote", tags=["policies"])
def promote(key: str, services: Given) -> dict[str, Any]:
    """Make a policy the champion; the next pairs come from it. Undone by promoting ``previous``."""
    promotion = services.promote(key)
    run_id = promotion.run.id if promotion.run else None
    return {
        "id": promotion.policy.id,
        "name": promotion.policy.name,
        "champion": True,
        "previous": promotion.previous,
        "run_id": run_id,
    }


@router.post("/policies/{key}/rebase", tags=["policies"])
def rebase(key: str, body: BaseIn, services: Given) -> dict[str, Any]:
    """Say where the base of a policy lies now, for every policy and reward model on it; proved by its hash."""
    return services.rebase(key, body.base).as_json()


@router.get("/policies/{key}/lineage", tags=["policies"])
def lineage(key: str, services: Given) -> dict[str, Any]:
    """Everything a policy came from, back to its base model."""
    return services.lineage(key)


@router.post("/generations", tags=["policies"])
async def generate(body: GenerationsIn, services: Given, request: Request) -> dict[str, Any]:
    """Sample replies at once; the first call for a policy waits until it is loaded. 503 when too many wait already."""
    messages = _prompt(0, [message.model_dump() for message in body.messages], [], Split.work).messages
    sampling = body.model_dump(include={"temperature", "top_p", "max_new_tokens", "seed"}, exclude_none=True)
    on_demand: OnDemand = request.app.state.on_demand
    act = await run_sync(getattr, services, "generate")  # a refusal is written down, which may wait for the database
    rows = await on_demand.run(request, partial(act, body.policy, messages, body.n, **sampling))
    return {"generations": [{"id": row.id, "text": row.text} for row in rows]}


# Shapes ---------------------------------------------------------------------------------------------------


def _prompt(index: int, messages: list[dict[str, str]], tags: list[str], split: Split) -> Prompt:
    try:
        return value_of(Prompt, messages=messages, tags=tags, split=split)
    except InvalidInput as error:
        raise InvalidInput(f"Prompt {index + 1} cannot be used: {error}. Nothing was added.") from error


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


def _dataset(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "hash": row.hash,
        "counts": row.counts,
        "dropped": row.dropped,
        "filters": row.filters,
        "created_at": row.created_at.isoformat(),
    }


def _policy(summary: PolicySummary) -> dict[str, Any]:
    policy, card = summary.policy, summary.win_rate
    return {
        "id": policy.id,
        "name": policy.name,
        "champion": summary.is_champion,
        "base": policy.base,
        "parent": summary.parent,
        "dataset": summary.dataset,
        "run_id": policy.run_id,
        "checkpoint_id": policy.checkpoint_id,
        "win_rate": {**card.figures, "against": summary.against, "settings": card.settings} if card else None,
        "created_at": policy.created_at.isoformat(),
    }


def _in_chunks(lines: Iterable[str]) -> Iterator[str]:
    """Lines gathered into larger pieces: each piece costs a hop between threads."""
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _CHUNK_CHARACTERS:
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)


# Errors ---------------------------------------------------------------------------------------------------


def tell(_request: Request, error: Exception) -> JSONResponse:
    """A mistake of whoever asked, in the sentence it came with, or in ours where the driver found it.

    What cannot be done right now is nobody's mistake: 503, and when to ask again.
    """
    if not isinstance(error, StudioError):
        return JSONResponse({"detail": next(said for kind, said in _BEYOND if isinstance(error, kind))}, 422)
    if isinstance(error, Unavailable):
        return unavailable(error)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
    return JSONResponse({"detail": shortened(str(error))}, status_code=status)


async def _tell_unreadable(request: Request, error: Exception) -> Response:
    """Why a body could not be read and what to send; FastAPI's other errors as it tells them itself."""
    cause = error.__cause__
    for kind, reason in _UNREADABLE:
        if isinstance(cause, kind):
            return JSONResponse({"detail": f"The body cannot be read: {reason}."}, 400)
    return await http_exception_handler(request, error)  # type: ignore[arg-type]


def tell_invalid(_request: Request, error: Exception) -> JSONResponse:
    """The first complaint about a body or a parameter, in one sentence."""
    found = list(error.errors()) if isinstance(error, RequestValidationError) else []
    first: dict[str, Any] = found[0] if found else {"loc": (), "msg": str(error)}
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header"))
    said = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    given = first.get("input")
    if first.get("type") == "json_invalid":
        where, said = "", f"The body is not JSON: {first['ctx']['error']} (at character {first['loc'][-1]})"
        given = None
    shown = f" (it was {json.dumps(given)[:120]})" if isinstance(given, str | int | float | bool) else ""
    detail = f"{where}: {said}{shown}." if where else f"{said}{shown}."
    return JSONResponse({"detail": shortened(detail)}, status_code=422)
