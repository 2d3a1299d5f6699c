"""One reply of an OpenAI-compatible server as it is written: server-sent events of ``chat.completion.chunk`` objects.

A server that does not stream, or that would have the request in other words, is asked for the whole reply instead, by
``Endpoint.reply_all``, which knows how to ask again and what a refusal means.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from feedback.errors import EndpointFailed
from feedback.types import SamplingSettings
from training.generation.endpoint import ATTEMPT_SECONDS, MOST_BYTES, Endpoint
from training.generation.endpoint_answers import UNREADABLE, Said, cut_long, cut_stopped, said_of
from training.generation.replies import Said as SaidSoFar
from training.generation.stopping import run_stoppable
from training.models.chat import Messages

_EVENT = "data:"
_LAST = "[DONE]"


def stream_reply(
    endpoint: Endpoint, messages: Messages, seed: int, settings: SamplingSettings, on_said: Callable[[SaidSoFar], None]
) -> Said:
    """The reply; ``on_said`` is given what it says so far with every piece that arrives.

    Raises:
        EndpointFailed: the server gives no reply, or breaks off in the middle of one.
    """
    said = run_stoppable(_streamed(endpoint, messages, seed, settings, on_said))
    return said or endpoint.reply_all([(messages, seed)], settings)[0]


async def _streamed(
    endpoint: Endpoint, messages: Messages, seed: int, settings: SamplingSettings, on_said: Callable[[SaidSoFar], None]
) -> Said | None:
    """The reply; None where the server does not stream one."""
    body = {**endpoint.body(messages, seed, settings), "stream": True}
    answer: dict[str, Any] = {}
    try:
        async with (
            asyncio.timeout(ATTEMPT_SECONDS),
            endpoint.client() as client,
            client.stream("POST", f"{endpoint.url}/chat/completions", json=body) as response,
        ):
            if response.status_code != 200 or "event-stream" not in response.headers.get("content-type", ""):
                return None
            async for answer in _answers(response):
                so_far = cut_stopped(said_of(answer), settings.stop)
                on_said(SaidSoFar(so_far.text, 0, so_far.reasoning, so_far.unfinished))
    except (httpx.RequestError, TimeoutError) as error:
        if not answer:
            return None  # asked for the whole reply, it may still answer, or says why not
        why = str(error).strip() or type(error).__name__
        raise EndpointFailed(f"{endpoint.url} broke off in the middle of its reply ({why}); ask again.") from error
    if not answer:
        return None
    return cut_long(cut_stopped(said_of(answer), settings.stop), settings.max_new_tokens)


async def _answers(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The body that the whole reply would have come in, as far as it has come, after each piece."""
    message, reason, usage = {"content": "", "reasoning_content": ""}, None, None
    received = 0
    async for line in response.aiter_lines():
        received += len(line)
        if received > MOST_BYTES:
            raise EndpointFailed(f"{response.request.url} sends more than {MOST_BYTES} bytes for one reply.")
        data = line.removeprefix(_EVENT).strip()
        if not line.startswith(_EVENT) or data == _LAST:
            continue
        try:
            piece = json.loads(data)
            usage = piece.get("usage") or usage
            for choice in piece["choices"][:1]:
                delta = choice.get("delta") or {}
                message["content"] += delta.get("content") or ""
                message["reasoning_content"] += delta.get("reasoning_content") or delta.get("reasoning") or ""
                reason = choice.get("finish_reason") or reason
        except UNREADABLE as error:
            raise EndpointFailed(f"{response.request.url} streams what is no reply: {data[:200]!r}.") from error
        yield {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}
