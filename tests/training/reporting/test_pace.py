"""Pace: the share drawn, tokens per second and time left in words, by a clock that the tests turn."""

from __future__ import annotations

import pytest

from training.reporting import pace as module
from training.reporting.pace import DrawingPace, spelled


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_drawing_tells_its_share_speed_and_what_is_left(clock: Clock) -> None:
    pace = DrawingPace(10)
    assert (pace.share, pace.words) == (0.0, "")
    clock.at += 2
    pace.look(0.5, 40)
    assert (pace.share, pace.words) == (0.05, ", 20 tokens/s, 38 s left")
    clock.at += 0.1
    pace.look(1.0, 90)
    assert (pace.share, pace.words) == (0.1, ", 20 tokens/s, 38 s left"), "words change once a second"
    pace.finish(2)
    assert pace.share == 0.2
    clock.at += 1.9
    pace.look(2.0, 110)
    assert pace.share == 0.4
    assert pace.words == ", 50 tokens/s, 6 s left"  # 200 tokens and 4 replies in 4 s


def test_the_speed_is_that_of_the_last_seconds(clock: Clock) -> None:
    pace = DrawingPace(1000)
    for second in range(1, 40):
        clock.at += 1
        pace.look(
            second if second < 20 else 20 + 10 * (second - 20), second if second < 20 else 20 + 100 * (second - 20)
        )
    assert pace.words == ", 100 tokens/s, 79 s left"


def test_a_server_that_counts_no_tokens_is_given_no_speed(clock: Clock) -> None:
    pace = DrawingPace(4)
    clock.at += 2
    pace.look(2, 0)
    assert pace.words == ", 2 s left"


def test_a_run_without_replies_is_never_over_done(clock: Clock) -> None:
    pace = DrawingPace(0)
    pace.look(3, 3)
    assert pace.share == 1.0


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (89, "89 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_a_span_is_spelled_in_its_largest_unit(seconds: float, words: str) -> None:
    assert spelled(seconds) == words
