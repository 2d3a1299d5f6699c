"""A server of chat completions on this machine, which says what a test has it say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Answer = tuple[int, Body | str, dict[str, str]]  # status, body, headers


class Server(ThreadingHTTPServer):
    """Holds the connections of every request in flight: beyond its queue, 5 by default, a connection may be reset."""

    request_queue_size = 128


class Served:
    """What was asked of the server, and how it answers: ``behave`` takes a request's body and how many came before."""

    def __init__(self, models: list[str]) -> None:
        self.models = models
        self.bodies: list[Body] = []
        self.keys: list[str | None] = []
        self.behave: Callable[[Body, int], Answer] = lambda body, before: reply_to(body)
        self.url = ""
        self.lock = threading.Lock()

    @property
    def base(self) -> str:
        """The base of a policy that replies from here."""
        return f"{self.url}#{self.models[0]}"


def reply_to(body: Body, text: str | None = None, reason: str = "stop") -> Answer:
    """A completion in the usual form; its text tells the prompt and the seed apart."""
    said = f"{body['messages'][-1]['content']} {body.get('seed')}" if text is None else text
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": reason}
    return 200, {"choices": [choice], "usage": {"completion_tokens": len(said.split())}}, {}


def complaint(status: int, text: str, **headers: str) -> Answer:
    """An error in the usual form."""
    return status, {"error": {"message": text}}, headers


@contextmanager
def serving(*models: str) -> Iterator[Served]:
    """A server on a free port of this machine, for the time of the block."""
    served = Served(list(models))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._note_key()
            listed = {"data": [{"id": name} for name in served.models]}
            self._send((200, listed, {}) if self.path == "/v1/models" and served.models else (404, "nothing here", {}))

        def do_POST(self) -> None:
            self._note_key()
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                return self._send((404, "nothing here", {}))
            with served.lock:
                before = len(served.bodies)
                served.bodies.append(body)
            self._send(served.behave(body, before))

        def _note_key(self) -> None:
            served.keys.append(self.headers["Authorization"])

        def _send(self, answer: Answer) -> None:
            status, body, headers = answer
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *values: Any) -> None:
            return None

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
