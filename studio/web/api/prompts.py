"""Prompts, and replies on demand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request

from feedback.errors import InvalidInput
from feedback.store.content.prompts import SavedPrompts
from feedback.store.rows import value_of
from feedback.types import Prompt, Split
from studio.services.policies import Policies
from studio.web.api.dependencies import Given
from studio.web.api.schemas import GenerationsIn, PromptsIn, PromptsNamed
from studio.web.server.on_demand import OnDemand

router = APIRouter(prefix="/api")


@router.post("/prompts", tags=["prompts"])
def add_prompts(body: PromptsIn, services: Given) -> dict[str, Any]:
    """Add prompts; one whose content is known already counts as a duplicate.

    A stored work prompt that comes as an evaluation prompt is one from then on: ``changed`` counts those, and
    ``still_in_datasets`` names the datasets frozen before that hold judgments of them. ``retired`` counts those that
    are retired and stay so.
    """
    return add_read_prompts(body, services.prompts.add_prompts)


def add_read_prompts(body: PromptsIn, add: Callable[[list[Prompt]], SavedPrompts]) -> dict[str, Any]:
    """What ``POST /api/prompts`` does with a body once it is read."""
    saved = add([_prompt(i, item.plain(), item.tags, item.split) for i, item in enumerate(body.prompts)])
    changed = {"changed": len(saved.marked), "still_in_datasets": saved.still_in} if saved.marked else {}
    retired = {"retired": saved.retired} if saved.retired else {}
    return {"added": saved.added, "duplicates": saved.duplicates, **changed, **retired}


@router.get("/prompts", tags=["prompts"])
def list_prompts(
    services: Given,
    split: Split | None = None,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 1000,
    tag: Annotated[list[str] | None, Query()] = None,
    retired: bool = False,
) -> dict[str, Any]:
    """Prompts of one split or of both that carry every ``tag``; those in use, or with ``retired`` the others."""
    rows = services.prompts.list_prompts(split, limit, tags=tag or (), retired=retired)
    return {
        "prompts": [
            {"id": row.id, "messages": row.messages, "tags": row.tags, "split": row.split.value} for row in rows
        ]
    }


@router.post("/prompts/retire", tags=["prompts"])
def retire(body: PromptsNamed, services: Given) -> dict[str, Any]:
    """Draw nothing for these prompts from now on, and ask nobody about them; what was judged on them stays.

    ``already`` counts those that were retired before, ``withdrawn`` the open matchups that left the pool.
    """
    done = services.prompts.retire(body.ids, body.tag)
    return {"retired": done.changed, "already": done.already, "withdrawn": done.matchups}


@router.post("/prompts/restore", tags=["prompts"])
def restore(body: PromptsNamed, services: Given) -> dict[str, Any]:
    """Take retired prompts back into use; ``reopened`` counts their matchups that are open again."""
    done = services.prompts.restore(body.ids, body.tag)
    return {"restored": done.changed, "already": done.already, "reopened": done.matchups}


@router.post("/generations", tags=["policies"])
async def generate(body: GenerationsIn, services: Given, request: Request) -> dict[str, Any]:
    """Sample replies at once; the first call for a policy waits until it is loaded. 503 when too many wait already."""
    messages = _prompt(0, [message.model_dump() for message in body.messages], [], Split.work).messages
    sampling = body.model_dump(include={"temperature", "top_p", "max_new_tokens", "stop", "seed"}, exclude_none=True)
    on_demand: OnDemand = request.app.state.on_demand
    await run_sync(services.policies.require, Policies.generate)  # a refusal is written down, which may take a while
    rows = await on_demand.run(request, partial(services.policies.generate, body.policy, messages, body.n, **sampling))
    return {
        "generations": [
            {"id": row.id, "text": row.text} | ({"reasoning": row.reasoning} if row.reasoning else {}) for row in rows
        ]
    }


def _prompt(index: int, messages: list[dict[str, str]], tags: list[str], split: Split) -> Prompt:
    try:
        return value_of(Prompt, messages=messages, tags=tags, split=split)
    except InvalidInput as error:
        raise InvalidInput(f"Prompt {index + 1} cannot be used: {error}. Nothing was added.") from error
