"""Twenty simulated annotators of known character: what the model of annotators must see through."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from feedback.database.engine import Database
from feedback.labeling import assignment, judging
from feedback.quality.agreement import READING_SPEED
from feedback.types import Checks

Behaviour = Callable[[random.Random, float, float], str]
"""From how much better the left reply is and how much longer (log2) to a verdict on the screen."""


def right_with(chance: float) -> Behaviour:
    """Says what is true with this chance, whatever the screen looks like."""

    def judge(rng: random.Random, better: float, _longer: float) -> str:
        return "left" if (better > 0) == (rng.random() < chance) else "right"

    return judge


def always_left(_rng: random.Random, _better: float, _longer: float) -> str:
    """Presses the same key."""
    return "left"


def takes_longer(rng: random.Random, better: float, longer: float) -> str:
    """Takes the longer one, nine times in ten; looks at what they say only when they are of one length."""
    if abs(longer) < 0.05:
        return "left" if better > 0 else "right"
    return "left" if (longer > 0) == (rng.random() < 0.9) else "right"


@dataclass(frozen=True)
class Member:
    """One annotator of the crowd; ``pace`` is the share of the reading time that they take."""

    name: str
    kind: str
    judge: Behaviour
    pace: float = 1.5

    @property
    def is_good(self) -> bool:
        """True for those whose votes are right most of the time."""
        return self.kind in ("good", "noisy")


def make_crowd() -> list[Member]:
    """8 good, 4 noisy, 2 always-left, 2 length-biased, 2 random and 2 fast ones: good are right 92, noisy 75 in 100."""
    kinds: list[tuple[str, int, Behaviour, float]] = [
        ("good", 8, right_with(0.92), 1.5),
        ("noisy", 4, right_with(0.75), 1.5),
        ("always-left", 2, always_left, 1.2),
        ("length-biased", 2, takes_longer, 1.2),
        ("random", 2, right_with(0.5), 1.5),
        ("fast", 2, right_with(0.55), 0.2),
    ]
    return [
        Member(f"{kind}-{number}", kind, judge, pace)
        for kind, count, judge, pace in kinds
        for number in range(1, count + 1)
    ]


def log_ratio(left: str, right: str) -> float:
    """How much longer the left text is, as log2."""
    return math.log2(max(1, len(left)) / max(1, len(right)))


Truth = Callable[[Sequence[dict[str, str]], str], float]
"""How good a reply to a conversation really is."""


def judge_all(db: Database, members: Sequence[Member], truth: Truth, *, start: datetime, seed: int = 0) -> int:
    """Let the members judge, in turns, until nobody is given a task any more; gives the number of judgments.

    Time is simulated: each answer comes as long after its lease as the member takes to read. Gold and repeats are
    mixed in as they are for people, repeats after ten minutes. Their judgments are marked as a person's, for they have
    a pace, which an oracle has not; the database is thrown away.
    """
    rng = random.Random(seed)
    checks = Checks(gold_share=0.06, repeat_share=0.05, repeat_after=600)
    waiting = list(members)
    clock = {member.name: start for member in members}
    made = 0
    while waiting:
        member = rng.choice(waiting)
        at = clock[member.name]
        task = assignment.lease_next(db, member.name, rng=rng, checks=checks, at=at)
        if task is None:
            waiting.remove(member)
            continue
        left, right = task.responses
        better = truth(task.messages, left) - truth(task.messages, right)
        seconds = member.pace * (len(left) + len(right)) / READING_SPEED * rng.uniform(0.8, 1.3)
        said = member.judge(rng, better, log_ratio(left, right))
        clock[member.name] = at + timedelta(seconds=seconds + 1)
        judging.submit(db, task.lease_id, member.name, verdict=said, at=at + timedelta(seconds=seconds))
        made += 1
    return made
