"""Chats of the playground, under /api/chats. A reply comes as JSON lines while it is drawn.

Lines of a reply: ``{"loading": true}`` while the policy is loaded, ``{"text", "reasoning"}`` with all that was said so
far, and at the end ``{"reply": …}`` as it is kept, or ``{"error": …}``. Whoever leaves ends the drawing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.concurrency import iterate_in_threadpool

from feedback.chat_tables import ChatRow
from feedback.tables import GenerationRow
from feedback.types import ShownVerdict, Side
from studio.page.views.playground import reply_body
from studio.services.facade import Services
from studio.services.playground import Reply
from studio.web.api.dependencies import Given
from studio.web.api.schemas import MAX_CONTENT, Body, Integer

router = APIRouter(prefix="/api/chats", tags=["playground"])


class ChatIn(Body):
    """A chat to start: one policy, or two; ``blind`` hides which is which until a reply is preferred."""

    left: str
    right: str | None = None
    blind: bool = False
    system: str = Field("", max_length=MAX_CONTENT)
    sampling: dict[str, Any] = Field(default_factory=dict)


class PoliciesIn(Body):
    """Policies that will be asked soon."""

    policies: list[str] = Field(min_length=1, max_length=2)


class SamplingIn(Body):
    """How the next replies are drawn."""

    sampling: dict[str, Any]


class SaidIn(Body):
    """What a person says."""

    text: str = Field(max_length=MAX_CONTENT)


class ReplyIn(Body):
    """Which reply is wanted; without a seed one is drawn."""

    turn: Integer
    side: Side = Side.left
    seed: Integer | None = None


class PreferenceIn(Body):
    """Which of the two replies of a turn is better."""

    turn: Integer
    verdict: ShownVerdict
    strength: Integer | None = None


class EditIn(Body):
    """What a reply should have said."""

    turn: Integer
    side: Side = Side.left
    text: str = Field(max_length=MAX_CONTENT)


class TurnIn(Body):
    """One turn of a chat, counted from 0."""

    turn: Integer


@router.post("", status_code=201)
def start_chat(body: ChatIn, services: Given) -> dict[str, Any]:
    """Start a chat."""
    row = services.playground.start(body.left, body.right, blind=body.blind, system=body.system, sampling=body.sampling)
    return chat_json(services, row)


@router.get("")
def list_chats(
    services: Given,
    search: str = "",
    archived: bool = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    """One's own chats, the one used last first."""
    rows = services.playground.list_chats(search, archived=archived, limit=limit, offset=offset)
    names = services.runs.names()
    return {
        "chats": [
            {
                "id": row.id,
                "title": row.title,
                "policies": _policies(row, names),
                "turns": len(row.turns),
                "updated_at": row.updated_at.isoformat(),
            }
            for row in rows
        ]
    }


@router.post("/preload", status_code=202)
def preload(body: PoliciesIn, services: Given) -> dict[str, Any]:
    """Load policies, so that the first reply begins at once; the answer does not wait for it."""
    services.playground.preload(*body.policies)
    return {"loading": body.policies}


@router.get("/{key}")
def get_chat(key: str, services: Given) -> dict[str, Any]:
    """A chat with everything that was said."""
    return chat_json(services, services.playground.get_chat(key))


@router.post("/{key}/messages")
def say(key: str, body: SaidIn, services: Given) -> dict[str, Any]:
    """Say something; each side's reply is then asked for."""
    return chat_json(services, services.playground.say(key, body.text))


@router.post("/{key}/sampling")
def set_sampling(key: str, body: SamplingIn, services: Given) -> dict[str, Any]:
    """Draw the next replies in another way."""
    return chat_json(services, services.playground.set_sampling(key, body.sampling))


@router.post("/{key}/replies", response_class=StreamingResponse)
async def reply(key: str, body: ReplyIn, services: Given) -> StreamingResponse:
    """Draw the reply of one side to the last message, replacing the reply that is there."""
    begun = await run_sync(services.playground.reply, key, body.turn, body.side, body.seed)
    return StreamingResponse(
        _lines(services, begun), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"}
    )


@router.post("/{key}/stop")
def stop(key: str, services: Given) -> dict[str, Any]:
    """End the replies that are being drawn; what they said is kept."""
    return {"stopped": services.playground.stop(key)}


@router.post("/{key}/preference")
def prefer(key: str, body: PreferenceIn, services: Given) -> dict[str, Any]:
    """Judge the two replies of a turn; datasets take this judgment only where ``playground`` is set."""
    return chat_json(services, services.playground.prefer(key, body.turn, body.verdict, body.strength))


@router.post("/{key}/reveal")
def reveal(key: str, services: Given) -> dict[str, Any]:
    """Name the policies of a blind chat."""
    return chat_json(services, services.playground.reveal(key))


@router.post("/{key}/edit")
def edit(key: str, body: EditIn, services: Given) -> dict[str, Any]:
    """Put a demonstration in the place of a reply."""
    return chat_json(services, services.playground.edit(key, body.turn, body.side, body.text))


@router.post("/{key}/annotators")
def ask_annotators(key: str, body: TurnIn, services: Given) -> dict[str, Any]:
    """Send a turn to the annotators: a pair where there are two replies, else its prompt."""
    row = services.playground.ask_annotators(key, body.turn)
    return {"matchup_id": None if row is None else row.id}


@router.post("/{key}/archive")
def archive(key: str, services: Given) -> dict[str, Any]:
    """Take a chat out of the list."""
    return chat_json(services, services.playground.archive(key))


@router.post("/{key}/restore")
def restore(key: str, services: Given) -> dict[str, Any]:
    """Put a chat back into the list."""
    return chat_json(services, services.playground.archive(key, archived=False))


def chat_json(services: Services, row: ChatRow) -> dict[str, Any]:
    """A chat as the page and programs see it; no policy is named while it is blind."""
    replies = services.playground.replies(row)
    names = {} if row.hides_names else services.runs.names()
    return {
        "id": row.id,
        "title": row.title,
        "system": row.system,
        "blind": row.blind,
        "hidden": row.hides_names,
        "left": names.get(row.left_id),
        "right": names.get(str(row.right_id)) if row.right_id else None,
        "sides": [side.value for side in ((Side.left, Side.right) if row.right_id else (Side.left,))],
        "sampling": row.sampling,
        "archived": row.archived,
        "turns": [
            {
                "user": turn.user,
                "kept": turn.kept.value,
                "verdict": turn.verdict and turn.verdict.value,
                **{
                    side.value: reply_json(replies[found]) if (found := turn.reply_of(side)) in replies else None
                    for side in Side
                },
            }
            for turn in row.said
        ],
    }


def reply_json(row: GenerationRow) -> dict[str, Any]:
    """A reply as it is kept; ``html`` is its text as safe markup."""
    return {
        "id": row.id,
        "text": row.text,
        "html": reply_body(row.text, row.reasoning),
        "finish_reason": row.finish_reason,
        "tokens": row.tokens,
        "seed": row.seed,
        "edited": row.author is not None,
    }


def _policies(row: ChatRow, names: dict[str, str]) -> list[str]:
    if row.hides_names:
        return []
    return [names.get(key, key) for key in (row.left_id, row.right_id) if key]


async def _lines(services: Services, begun: Reply) -> AsyncIterator[str]:
    """What a reply says, line by line; whatever ends the answer ends the drawing.

    It is closed without waiting: where the client has left, this task is cancelled, and every wait with it.
    """
    try:
        async for event in iterate_in_threadpool(begun.events()):
            if "done" in event:
                event = {"reply": reply_json(event["done"]), "seconds": event["seconds"], "stopped": event["stopped"]}
            yield json.dumps(event) + "\n"
    finally:
        begun.close()
