"""An oracle as an annotator: it leases, judges and submits like a person, marked as simulated.

Its name is ``oracle:RULE``, so that a dataset can take or leave its judgments by annotator as well as by source.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.labeling.assignment import Task, lease_next
from feedback.labeling.judging import submit
from feedback.store.labeling.batches import get_batch
from feedback.types import Checks, MatchupKind, ShownVerdict, Source
from training.home import Home
from training.rewards.oracles import Judge, get_oracle, judge

# Long enough for a slow reward model, short enough that a killed oracle's lease soon returns to the pool.
LEASE_SECONDS = 300
NO_CHECKS = Checks(gold_share=0.0, repeat_share=0.0)  # they measure people; here they would take the place of pairs


@dataclass(frozen=True)
class AnnotationSession:
    """The result of one session of an oracle; ``judged`` is less than was asked for when the pool ran out."""

    annotator: str
    judged: int
    ties: int


def annotator_name(rule: str) -> str:
    """The name under which an oracle judges."""
    return f"oracle:{rule}"


def annotate(
    db: Database,
    home: Home,
    rule: str,
    count: int,
    *,
    noise: float = 0.0,
    seed: int = 0,
    batch: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> AnnotationSession:
    """Judge up to ``count`` matchups of the pool by a rule, decisive verdicts flipped with probability ``noise``.

    With ``batch`` only matchups of that batch; NotFound where there is none of this name.
    """
    if count < 1:
        raise InvalidInput(f"count must be at least 1, not {count}.")
    if not 0.0 <= noise <= 0.5:
        raise InvalidInput(f"noise must be between 0 and 0.5 (a coin), not {noise}.")
    oracle = get_oracle(rule, db=db, home=home)
    batch_id = get_batch(db, batch).id if batch is not None else None
    rng = random.Random(seed)
    name = annotator_name(rule)
    said: Counter[str] = Counter()
    while said.total() < count:
        task = lease_next(
            db,
            name,
            source=Source.simulated,
            lease_seconds=LEASE_SECONDS,
            rng=rng,
            checks=NO_CHECKS,
            batch_id=batch_id,
        )
        if task is None:
            break
        said[_answer(db, oracle, task, noise, rng)] += 1
        if on_progress is not None:
            on_progress(said.total())
    return AnnotationSession(name, said.total(), said["tie"])


def _answer(db: Database, oracle: Judge, task: Task, noise: float, rng: random.Random) -> str:
    if task.kind is MatchupKind.rank:
        scores = oracle.score_all([(task.messages, reply) for reply in task.responses])
        ranking = [1 + sum(other > score for other in scores) for score in scores]
        submit(db, task.lease_id, task.annotator, ranking=ranking)
        return "tie" if len(set(scores)) == 1 else "decided"
    left, right = task.responses
    verdict = judge(oracle, task.messages, left, right, noise, rng)
    submit(db, task.lease_id, task.annotator, verdict=verdict)
    return "tie" if verdict is ShownVerdict.tie else "decided"
