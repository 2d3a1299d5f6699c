"""A reply process as a studio uses it: real processes, the starter's weights."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.database.engine import Database
from feedback.errors import Unavailable
from feedback.tables import PolicyRow
from feedback.types import SamplingSettings
from studio.background import reply_processes
from studio.background.reply_processes import ReplyProcesses
from tests.factories import make_policy
from training.bundled import STARTER_BASE
from training.checkpoints.opening import open_policy
from training.generation.sampling import sample_one
from training.home import Home
from training.serving.messages import Event

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
MESSAGES = [{"role": "user", "content": "Tell me about the moon."}]
QUICK = SamplingSettings(max_new_tokens=48)
ENDLESS = SamplingSettings(max_new_tokens=400, temperature=5.0)
"""At this temperature the starter hardly ever draws an end token."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def db(home: Home) -> Iterator[Database]:
    database = home.open()
    yield database
    database.dispose()


@pytest.fixture
def starter(db: Database) -> PolicyRow:
    return make_policy(db, "starter", base=STARTER_BASE)


@pytest.fixture
def processes(home: Home, db: Database) -> Iterator[ReplyProcesses]:
    running = ReplyProcesses(home, db)
    yield running
    running.close()


def said(events: list[Event]) -> list[str]:
    return [event["text"] for event in events if "text" in event]


def test_a_reply_grows_and_is_what_its_seed_draws(
    processes: ReplyProcesses, starter: PolicyRow, db: Database, home: Home
) -> None:
    process = processes.load("starter")
    events = list(process.ask(MESSAGES, QUICK, 7).events())
    texts, reply = said(events), events[-1]["reply"]
    assert texts and all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert reply["text"].startswith(texts[-1]) and reply["tokens"] > 0 and not reply["stopped"]
    again = sample_one(open_policy(db, home, "starter"), MESSAGES, QUICK, 7)
    assert (reply["text"], reply["tokens"], reply["finish_reason"]) == (again.text, again.tokens, again.finish_reason)
    assert processes.load(starter.id) is process  # it is loaded once
    other = list(process.ask(MESSAGES, QUICK, 8).events())[-1]["reply"]
    assert other["text"] != reply["text"]


def test_a_stopped_reply_ends_at_once_with_what_it_said(processes: ReplyProcesses, starter: PolicyRow) -> None:
    process = processes.load("starter")
    replying = process.ask(MESSAGES, ENDLESS, 1)
    events, heard = [], 0
    for event in replying.events():
        events.append(event)
        if "text" in event and (heard := heard + 1) == 3:
            replying.stop()
    reply = events[-1]["reply"]
    assert reply["stopped"] and reply["finish_reason"] == "length" and 0 < reply["tokens"] < 400
    replying.close()
    assert process.at_work == 0
    assert list(process.ask(MESSAGES, QUICK, 1).events())[-1]["reply"]["text"]  # and it goes on for the next


def test_who_leaves_ends_the_drawing(processes: ReplyProcesses, starter: PolicyRow) -> None:
    process = processes.load("starter")
    list(process.ask(MESSAGES, QUICK, 1).events())
    leaving = process.ask(MESSAGES, ENDLESS, 1)
    next(leaving.events())
    leaving.close()
    began = time.monotonic()
    list(process.ask(MESSAGES, SamplingSettings(max_new_tokens=1), 1).events())
    assert time.monotonic() - began < 30  # it did not wait for 400 tokens


def test_what_cannot_be_replied_to_is_told_and_the_process_goes_on(
    processes: ReplyProcesses, starter: PolicyRow
) -> None:
    process = processes.load("starter")
    long = [{"role": "user", "content": "word " * 5000}]
    refused = list(process.ask(long, QUICK, 1).events())[-1]
    assert "tokens" in refused["error"]
    assert "reply" in list(process.ask(MESSAGES, QUICK, 1).events())[-1]


def test_a_policy_that_cannot_be_loaded_says_why(processes: ReplyProcesses, db: Database, tmp_path: Path) -> None:
    make_policy(db, "broken", base=str(tmp_path / "nothing-here"))
    event = list(processes.load("broken").ask(MESSAGES, QUICK, 1).events())[-1]
    assert "nothing-here" in event["error"]


def test_a_third_policy_takes_the_place_of_the_one_used_longest_ago(processes: ReplyProcesses, db: Database) -> None:
    names = [make_policy(db, name, base=STARTER_BASE).name for name in ("one", "two", "three")]
    first, second = processes.load(names[0]), processes.load(names[1])
    third = processes.load(names[2], beside=[names[1]])
    assert not first.is_alive and second.is_alive and third.is_alive


def test_a_second_policy_that_does_not_fit_is_refused_in_words(
    processes: ReplyProcesses, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        make_policy(db, name, base=STARTER_BASE)
    processes.load("one")
    monkeypatch.setattr(reply_processes, "_free_bytes", lambda: 100 << 20)
    with pytest.raises(Unavailable, match=r"two needs about 0\.\d GB of memory beside one, and 0\.1 GB are free"):
        processes.load("two", beside=["one", "two"])
    assert processes.load("one").is_alive  # what is loaded stays


def test_the_process_ends_with_its_studio(processes: ReplyProcesses, starter: PolicyRow) -> None:
    process = processes.load("starter")
    list(process.ask(MESSAGES, QUICK, 1).events())
    processes.close()
    assert not process.is_alive
    with pytest.raises(Unavailable):
        process.ask(MESSAGES, QUICK, 1)


def test_a_process_that_dies_while_it_replies_is_told(processes: ReplyProcesses, starter: PolicyRow) -> None:
    process = processes.load("starter")
    list(process.ask(MESSAGES, QUICK, 1).events())
    replying = process.ask(MESSAGES, ENDLESS, 1)
    process._process.kill()
    assert "error" in list(replying.events())[-1]


def test_an_endpoint_needs_no_weights(db: Database) -> None:
    far = make_policy(db, "far", base="http://127.0.0.1:1/v1#any")
    assert reply_processes.needed_bytes(far) == reply_processes.LIBRARIES_BYTES
