"""How fast a run goes, and how long it still takes, in the words of its progress."""

from __future__ import annotations

import time
from collections import deque

LOOK_SECONDS = 1.0  # words change no more often
LOOKS = 10  # by so many looks the present speed is known


class Pace:
    """How fast a run goes: tokens per second since the last look, and seconds left at the mean speed so far."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None

    def begin(self, step: float) -> None:
        """The step after ``step`` is about to be taken."""
        if self._began is None:
            self._began = time.monotonic(), step
            self._last = None

    def tokens_per_second(self, tokens: float) -> float | None:
        """Since the last look, which must have seen fewer ``tokens``; None on the first."""
        at, last = time.monotonic(), self._last
        self._last = at, tokens
        if last is None or at <= last[0] or tokens <= last[1]:
            return None
        return (tokens - last[1]) / (at - last[0])

    def seconds_left(self, step: float, steps: int) -> float | None:
        """Until the last step, at the mean speed since the first began; a step may be done in part."""
        if self._began is None or step <= self._began[1]:
            return None
        each = (time.monotonic() - self._began[0]) / (step - self._began[1])
        return each * max(0, steps - step)


def spelled(seconds: float) -> str:
    """A span in its largest unit that says enough: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class DrawingPace:
    """How far a run that draws so many replies by several calls is: their share, tokens per second, time left.

    Speeds are those of the last seconds, because a small batch is slower than a large one.
    """

    def __init__(self, replies: int) -> None:
        self.replies = replies
        self._before = (0.0, 0)  # replies and tokens of the calls that are over
        self._now = (0.0, 0)
        self._looks = deque([(time.monotonic(), 0.0, 0)], maxlen=LOOKS)
        self._words = ""

    def look(self, drawn: float, tokens: int) -> None:
        """The present call has drawn so many replies, those under way in part, and so many tokens."""
        self._now = self._before[0] + drawn, self._before[1] + tokens
        at, last = time.monotonic(), self._looks[-1][0]
        if at - last < LOOK_SECONDS:
            return
        began, replies, earlier = self._looks[0]
        self._looks.append((at, *self._now))
        words = []
        if self._now[1] > earlier:
            words.append(f"{(self._now[1] - earlier) / (at - began):.0f} tokens/s")
        if self._now[0] > replies:
            left = (self.replies - self._now[0]) * (at - began) / (self._now[0] - replies)
            words.append(f"{spelled(max(0.0, left))} left")
        self._words = "".join(f", {word}" for word in words)

    def finish(self, replies: int) -> None:
        """The present call is over: it drew so many replies."""
        self._before = self._before[0] + replies, max(self._now[1], self._before[1])
        self._now = self._before

    @property
    def share(self) -> float:
        """How much is drawn, from 0 to 1."""
        return min(1.0, self._now[0] / max(1, self.replies))

    @property
    def words(self) -> str:
        """Tokens per second and time left, each after a comma; empty in the first second."""
        return self._words
