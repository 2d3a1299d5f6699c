"""A reply that an endpoint streams, and what happens where it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from feedback.errors import EndpointFailed
from feedback.types import SamplingSettings
from tests.training.served import Answer, Body, Served, reply_to, serving
from training.generation.endpoint import KEY_VARIABLE, Endpoint
from training.generation.replies import Said
from training.generation.sampling import sample_one

MESSAGES = [{"role": "user", "content": "Say it."}]
QUICK = SamplingSettings(max_new_tokens=8)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serving("lab/chatty-7B") as server:
        yield server


def streamed(*deltas: dict[str, str], reason: str = "stop") -> Answer:
    pieces = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    pieces.append({"choices": [{"delta": {}, "finish_reason": reason}]})
    pieces.append({"choices": [], "usage": {"completion_tokens": len(deltas)}})
    lines = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
    return 200, ": a comment\n\n" + "".join(lines) + "data: [DONE]\n\n", {"Content-Type": "text/event-stream"}


def test_the_pieces_are_heard_and_make_the_reply(served: Served) -> None:
    served.behave = lambda body, before: streamed({"content": "Good "}, {"content": "morning, "}, {"content": "Ada."})
    heard: list[Said] = []
    reply = sample_one(Endpoint(served.base), MESSAGES, QUICK, 3, heard.append)
    assert [one.text for one in heard][:3] == ["Good", "Good morning,", "Good morning, Ada."]
    assert (reply.text, reply.finish_reason, reply.tokens, reply.seed) == ("Good morning, Ada.", "stop", 3, 3)
    assert served.bodies[0]["stream"] is True and served.bodies[0]["seed"] == 3


def test_reasoning_is_kept_apart(served: Served) -> None:
    served.behave = lambda body, before: streamed({"reasoning_content": "Hm. "}, {"content": "Yes."})
    heard: list[Said] = []
    reply = sample_one(Endpoint(served.base), MESSAGES, QUICK, 3, heard.append)
    assert heard[0].reasoning == "Hm." and heard[0].text == ""
    assert (reply.text, reply.reasoning) == ("Yes.", "Hm.")


def test_a_stop_string_ends_the_reply(served: Served) -> None:
    served.behave = lambda body, before: streamed({"content": "One. END"}, {"content": " two."}, reason="length")
    reply = sample_one(Endpoint(served.base), MESSAGES, SamplingSettings(max_new_tokens=8, stop=["END"]), 3)
    assert (reply.text, reply.finish_reason) == ("One.", "stop")


def test_a_server_that_does_not_stream_is_asked_for_the_whole(served: Served) -> None:
    def behave(body: Body, before: int) -> Answer:
        return (400, {"error": {"message": "'stream' is not supported"}}, {}) if body.get("stream") else reply_to(body)

    served.behave = behave
    assert sample_one(Endpoint(served.base), MESSAGES, QUICK, 3).text == "Say it. 3"
    assert [bool(body.get("stream")) for body in served.bodies] == [True, False]


def test_what_is_no_reply_is_refused_with_its_words(served: Served) -> None:
    served.behave = lambda body, before: (200, "data: {nothing}\n\n", {"Content-Type": "text/event-stream"})
    with pytest.raises(EndpointFailed, match="streams what is no reply"):
        sample_one(Endpoint(served.base), MESSAGES, QUICK, 3)
