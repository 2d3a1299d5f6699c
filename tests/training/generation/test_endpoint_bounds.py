"""What an endpoint sends is bounded in time and size, whatever it sends."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from feedback.errors import EndpointFailed
from feedback.types import SamplingSettings
from tests.training.served import reply_to, serving
from training.generation import endpoint as module
from training.generation.endpoint import Endpoint, check_endpoint
from training.generation.sampling import sample
from training.generation.stopping import stoppable
from training.runs.launch import ray_jobs
from training.runs.launch.ray_jobs import ClusterAway, RayJobs

MESSAGES = [{"role": "user", "content": "Say it."}]
QUICK = SamplingSettings(max_new_tokens=8)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def talking(talk: Talk) -> Iterator[str]:
    """A server that takes a request and then says what ``talk`` has it say, until nobody listens."""

    def serve(one: socket.socket) -> None:
        with contextlib.suppress(OSError), one:
            one.recv(65536)
            talk(one)

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def drip(one: socket.socket) -> None:
    one.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    while True:
        one.sendall(b" ")
        time.sleep(0.05)


def drip_in_the_head(one: socket.socket) -> None:
    one.sendall(HEAD + b"X: ")
    while True:
        one.sendall(b"y")
        time.sleep(0.05)


def silence(one: socket.socket) -> None:
    time.sleep(600)


def endless(one: socket.socket) -> None:
    one.sendall(HEAD + b"\r\n")
    while True:
        one.sendall(b"x" * 65536)


def bomb(one: socket.socket) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    packed = b"".join(packer.compress(b" " * 1_000_000) for _ in range(200)) + packer.flush()
    one.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)


def other_packing(one: socket.socket) -> None:
    one.sendall(HEAD + b"Content-Encoding: br\r\nContent-Length: 4\r\n\r\nabcd")


@pytest.mark.parametrize("talk", [drip, drip_in_the_head, silence])
def test_an_answer_has_a_deadline(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPT_SECONDS", 0.5)
    monkeypatch.setattr(module, "TOTAL_SECONDS", 0.0)
    with talking(talk) as url, pytest.raises(EndpointFailed, match="No reply from .*"):
        sample(Endpoint(f"{url}#m"), [MESSAGES], 1, QUICK)


@pytest.mark.parametrize(("talk", "said"), [(endless, "longer than"), (bomb, "longer than"), (other_packing, "br")])
def test_an_answer_has_a_size(talk: Talk, said: str) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with talking(talk) as url, pytest.raises(EndpointFailed, match=f"No reply from .*{said}"):
        sample(Endpoint(f"{url}#m", pause=lambda seconds: None), [MESSAGES], 1, QUICK)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@pytest.mark.parametrize("talk", [drip, endless, bomb, silence])
def test_a_list_of_models_has_bounds_too(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIST_SECONDS", 0.5)
    with talking(talk) as url, pytest.raises(EndpointFailed):
        check_endpoint(url)


def test_a_packed_answer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    body = gzip.compress(b'{"choices": [{"message": {"content": "Packed."}, "finish_reason": "stop"}]}')

    def packed(one: socket.socket) -> None:
        one.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with talking(packed) as url:
        assert sample(Endpoint(f"{url}#m"), [MESSAGES], 1, QUICK)[0][0].text == "Packed."


def test_a_reply_beyond_its_limit_is_cut_and_called_so() -> None:
    with serving("m") as served:
        served.behave = lambda body, before: reply_to(body, "word " * 600_000)
        reply = sample(Endpoint(served.base), [MESSAGES], 1, QUICK)[0][0]
        assert (len(reply.text) <= 2000, reply.finish_reason) == (True, "length")
        assert reply.tokens <= QUICK.max_new_tokens
        served.behave = lambda body, before: reply_to(body, "word " * 300)
        assert sample(Endpoint(served.base), [MESSAGES], 1, QUICK)[0][0].finish_reason == "stop"


def test_whoever_asked_can_stop_it() -> None:
    class Enough(Exception):
        pass

    end = time.monotonic() + 0.5

    def check() -> None:
        if time.monotonic() > end:
            raise Enough

    with talking(silence) as url, pytest.raises(Enough), stoppable(check):
        sample(Endpoint(f"{url}#m"), [MESSAGES], 3, QUICK)


@pytest.mark.parametrize("talk", [drip, endless, bomb])
def test_a_cluster_has_bounds_too(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "SECONDS", 0.5)
    monkeypatch.setattr(ray_jobs, "MOST_BYTES", 1_000_000)
    with talking(talk) as url, pytest.raises(ClusterAway, match="cannot be reached"):
        RayJobs(url).version()
