"""A policy whose weights are elsewhere: an OpenAI-compatible server that replies over HTTP.

vLLM, llama.cpp, Ollama, SGLang and most hosted models speak ``POST /chat/completions``. Such a policy can reply, so
people can judge it; nothing here can train it or say how likely its tokens are. Its base is the server's address
with the model behind a ``#``: ``http://127.0.0.1:8000/v1#Qwen/Qwen2.5-7B-Instruct``. A key, where the server wants
one, is read from ``$STUDIO_ENDPOINT_KEY``, or from a variable for its host alone, and never stored.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from feedback.errors import EndpointFailed, InvalidInput
from feedback.types import ENDPOINT_SCHEMES, SamplingSettings
from training.generation.endpoint_answers import REFUSED, UNREADABLE, Said, cut_long, cut_stopped, said_of
from training.generation.stopping import run_stoppable
from training.http_answers import AnswerTooLong, fetch
from training.models.chat import Messages, readable

KEY_VARIABLE = "STUDIO_ENDPOINT_KEY"
IN_FLIGHT = 16  # requests at once: servers batch them, and hosted ones bear about so many
CONNECT_SECONDS = 10.0
ATTEMPT_SECONDS = 300.0  # from the request to the end of the answer: a reply comes whole, when its last token is drawn
TOTAL_SECONDS = 900.0  # of all attempts for one reply: after this none is begun
LIST_SECONDS = 10.0
MOST_BYTES = 4 * 2**20  # of one answer; 8,192 tokens have some 100 KB
TRIES = 5
LONGEST_PAUSE = 60.0
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_UNUSABLE_KEY = frozenset({401, 403})
_BAD_REQUEST = frozenset({400, 413, 422})
# Hosted models that reason know one limit by another name, and some servers refuse a seed, or to be told what is usual
# with them. A sign must be a name in quotation marks: a server may well say "seed" of a prompt about gardening.
_NEUTRAL = {"temperature": 1.0, "top_p": 1.0}  # left out only where it changes nothing
_DIALECTS: tuple[tuple[str, str | None, re.Pattern[str]], ...] = (
    ("max_tokens", "max_completion_tokens", re.compile("max_completion_tokens")),
    *((name, None, re.compile(f"[\"'`]{name}[\"'`]")) for name in ("seed", "stop", *_NEUTRAL)),
)


class Endpoint:
    """A server's model that can reply; ``pause`` replaces the clock while it waits to ask a busy server again.

    A reply is bounded: in time, in bytes, and in characters by ``max_new_tokens``, beyond which it is cut.
    """

    def __init__(self, base: str, *, pause: Callable[[float], None] | None = None) -> None:
        self.base = base
        self.url, self.model = split_base(base)
        self.last_refusal = ""
        self._pause = pause
        # What this server would not have in a request, once it said so: it is left out, or called by another name.
        self._dialect: dict[str, str | None] = {}

    def reply_all(self, asked: Sequence[tuple[Messages, int]], settings: SamplingSettings) -> list[Said]:
        """One reply for each (messages, seed), many asked for at once; EndpointFailed when the server gives none.

        A prompt that the server refuses, being too long or against its rules, gets an empty reply that ended as
        ``refused``; ``last_refusal`` keeps its words.
        """
        return run_stoppable(self._reply_all(asked, settings))

    def client(self) -> httpx.AsyncClient:
        """A client of this server, with its key."""
        return _client(self.url)

    async def _reply_all(self, asked: Sequence[tuple[Messages, int]], settings: SamplingSettings) -> list[Said]:
        free = asyncio.Semaphore(IN_FLIGHT)

        async def reply(messages: Messages, seed: int) -> Said:
            async with free:
                return await self._reply(client, messages, seed, settings)

        async with _client(self.url) as client:
            tasks = [asyncio.create_task(reply(messages, seed)) for messages, seed in asked]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:  # of a server that failed once nothing else is awaited
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _reply(
        self, client: httpx.AsyncClient, messages: Messages, seed: int, settings: SamplingSettings
    ) -> Said:
        while True:
            body = self.body(messages, seed, settings)
            answer = await self._ask(client, body)
            if answer.status_code not in _BAD_REQUEST:
                break
            if not self._learn(body, answer.text):
                self.last_refusal = f"{self.url} will not reply as {self.model!r}: {_words(answer)}"
                return Said("", REFUSED, 0)
        if answer.status_code == 404:
            raise EndpointFailed(f"{self.url} knows no model {self.model!r}. {await _known(client, self.url)}")
        if answer.status_code != 200:
            raise EndpointFailed(f"{self.url} answers with status {answer.status_code}: {_words(answer)}")
        return cut_long(cut_stopped(self._said(answer), settings.stop), settings.max_new_tokens)

    def body(self, messages: Messages, seed: int, settings: SamplingSettings) -> dict[str, Any]:
        """The request. All settings are named, also where they are the usual ones: a server's own are others."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message["role"], "content": message["content"]} for message in messages],
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_new_tokens,
            "seed": seed,
        }
        if settings.top_k:
            body["top_k"] = settings.top_k
        if settings.stop:
            body["stop"] = settings.stop
        for name, other in self._dialect.items():
            value = body.pop(name, None)
            if other is not None:
                body[other] = value
        return body

    def _learn(self, body: dict[str, Any], complaint: str) -> bool:
        """Whether the complaint is about a name in the request that can be said otherwise, or left out."""
        for name, other, sign in _DIALECTS:
            if name in body and body[name] == _NEUTRAL.get(name, body[name]) and sign.search(complaint):
                self._dialect[name] = other
                return True
        return False

    def _said(self, answer: httpx.Response) -> Said:
        try:
            return said_of(answer.json())
        except UNREADABLE as error:
            said = _without_key(answer, answer.text[:200])
            raise EndpointFailed(
                f"{self.url} does not speak OpenAI's chat completions: {said!r}. Its address usually ends with /v1."
            ) from error

    async def _ask(self, client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
        """Ask, and ask again while the server is busy or away, ever more slowly."""
        end = time.monotonic() + TOTAL_SECONDS
        for attempt in range(TRIES):
            pause = 2.0**attempt
            is_last = attempt == TRIES - 1 or time.monotonic() > end
            try:
                answer = await _post(client, f"{self.url}/chat/completions", body)
            except AnswerTooLong as error:
                raise _too_long(self.url, error) from error
            except httpx.RequestError as error:
                if is_last:
                    raise _unreachable(self.url, error) from error
            else:
                if answer.status_code in _UNUSABLE_KEY:
                    raise _no_entry(self.url, answer)
                if answer.status_code not in _BUSY:
                    return answer
                if is_last:
                    raise EndpointFailed(
                        f"{self.url} was busy {attempt + 1} times in a row (status {answer.status_code}: "
                        f"{_words(answer)}); try again later: what was drawn is kept."
                    )
                pause = _asked_pause(answer, pause)
            await self._wait(min(pause, LONGEST_PAUSE))
        raise AssertionError("the last attempt returns or raises")

    async def _wait(self, seconds: float) -> None:
        if self._pause is None:
            await asyncio.sleep(seconds)
        else:
            self._pause(seconds)


def split_base(base: str) -> tuple[str, str]:
    """The server's address and the model's name; InvalidInput for what names no server or no model."""
    address, _, model = base.partition("#")
    url = httpx.URL(address) if _parses(address) else None
    if url is None or not url.host or url.query:
        raise InvalidInput(
            f"{address!r} is not the address of a server; give one such as http://127.0.0.1:8000/v1#MODEL."
        )
    if url.userinfo:
        raise InvalidInput(f"An address must not hold a password: give the key to {url.host} as ${KEY_VARIABLE}.")
    if not model.strip().isprintable():
        raise InvalidInput(f"The name of a model is one line of signs that can be read, not {model!r}.")
    if not model.strip():
        raise InvalidInput(
            f"{address} is given without a model; name one behind a #, as in {address.rstrip('/')}#MODEL."
        )
    return address.rstrip("/"), model.strip()


def check_endpoint(base: str) -> str:
    """The base as it is stored, after asking the server; a server with one model needs no ``#MODEL``.

    InvalidInput when the server has no such model, EndpointFailed when nobody answers. A server that does not list
    its models is believed.
    """
    address, _, model = base.partition("#")
    url, _ = split_base(f"{address}#{model or 'any'}")
    names = run_stoppable(_ask_for_models(url))
    if not model.strip():
        if len(names) == 1:
            return f"{url}#{names[0]}"
        raise InvalidInput(f"{url} is given without a model; name one behind a #. {_listed(names)}")
    if names and model.strip() not in names:
        raise InvalidInput(f"{url} has no model {model.strip()!r}. {_listed(names)}")
    return f"{url}#{model.strip()}"


def sends_key(base: str) -> bool:
    """Whether a key of this process' environment goes along with what the server of a base is asked."""
    url, _ = split_base(f"{base.partition('#')[0]}#any")
    return bool(_key(httpx.URL(url).host))


async def _post(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> httpx.Response:
    return await fetch(client, "POST", url, json=body, seconds=ATTEMPT_SECONDS, most=MOST_BYTES)


def _client(url: str) -> httpx.AsyncClient:
    """A client with the key, if there is one; InvalidInput where the environment allows none.

    A key that no header can hold is refused here: the error of whoever tries to send it would quote it.
    """
    host = httpx.URL(url).host
    key = _key(host)
    if not all("!" <= sign <= "~" for sign in key):
        raise InvalidInput(
            f"The key for {host} (${KEY_VARIABLE} or ${key_variable(host)}) holds a line break, a space or a sign that "
            "no key has; set it anew."
        )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        patience = httpx.Timeout(ATTEMPT_SECONDS, connect=CONNECT_SECONDS)
        return httpx.AsyncClient(timeout=patience, headers=headers, follow_redirects=False)
    except (ImportError, OSError, ValueError) as error:  # what variables such as ALL_PROXY and SSL_CERT_FILE ask for
        raise InvalidInput(f"The proxy or certificates that the environment names cannot be used: {error}") from error


def key_variable(host: str) -> str:
    """The variable that holds the key for one host alone: ``STUDIO_ENDPOINT_KEY_API_OPENAI_COM``."""
    return f"{KEY_VARIABLE}_{re.sub('[^A-Z0-9]', '_', host.upper())}"


def _key(host: str) -> str:
    """The key for this host: its own, else the one for every server."""
    return (os.environ.get(key_variable(host)) or os.environ.get(KEY_VARIABLE, "")).strip()


def _without_key(answer: httpx.Response, text: str) -> str:
    """What a server says, which may repeat what it was sent."""
    key = _key(answer.request.url.host)
    return text.replace(key, "(the key)") if key else text


async def _ask_for_models(url: str) -> list[str]:
    async with _client(url) as client:
        return await _models(client, url)


async def _models(client: httpx.AsyncClient, url: str) -> list[str]:
    """The models a server lists; none when it does not say."""
    try:
        answer = await fetch(client, "GET", f"{url}/models", seconds=LIST_SECONDS, most=MOST_BYTES)
    except AnswerTooLong as error:
        raise _too_long(url, error) from error
    except httpx.RequestError as error:
        raise _unreachable(url, error) from error
    if answer.status_code in _UNUSABLE_KEY:
        raise _no_entry(url, answer)
    try:
        return [str(model["id"])[:200] for model in answer.json()["data"]]
    except UNREADABLE:
        return []


async def _known(client: httpx.AsyncClient, url: str) -> str:
    try:
        return _listed(await _models(client, url))
    except EndpointFailed:
        return _listed([])


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "It does not list its models; its address usually ends with /v1."
    return f"Its models: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}."


def _unreachable(url: str, error: httpx.RequestError) -> EndpointFailed:
    why = str(error).strip() or type(error).__name__
    return EndpointFailed(f"No reply from {url} ({why}); see whether the server runs, and try again.")


def _too_long(url: str, error: AnswerTooLong) -> EndpointFailed:
    return EndpointFailed(f"No reply from {url} ({error}); see whether its address is that of a model's server.")


def _no_entry(url: str, answer: httpx.Response) -> EndpointFailed:
    held = "the key that it was given" if _key(answer.request.url.host) else "to be given no key"
    own = key_variable(answer.request.url.host)
    return EndpointFailed(
        f"{url} refuses {held} (status {answer.status_code}): set ${KEY_VARIABLE}, or ${own} for this server alone, "
        "where `studio` is started."
    )


def _asked_pause(answer: httpx.Response, usual: float) -> float:
    """How long the server asks to be left alone, in seconds; else the usual."""
    try:
        return max(0.0, float(answer.headers["Retry-After"]))
    except (KeyError, ValueError):
        return usual


def _words(answer: httpx.Response) -> str:
    """What the server says is wrong, in one line."""
    try:
        error = answer.json()["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except UNREADABLE:
        text = answer.text
    return readable(" ".join(_without_key(answer, text).split()))[:300] or "it does not say why"


def _parses(address: str) -> bool:
    try:
        httpx.URL(address)
    except (httpx.InvalidURL, ValueError):
        return False
    return address.startswith(ENDPOINT_SCHEMES) and not any(sign.isspace() for sign in address)
