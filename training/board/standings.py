"""What a board holds: the standing of each policy, the win rates it rests on, and who judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from feedback.database.engine import Database
from feedback.store.models.policies import get_champion, get_policy
from feedback.tables import PolicyRow
from training.board.bradley_terry import Strength
from training.board.distances import DistancePoint
from training.evaluation.people import PEOPLE

FEWEST_PROMPTS = 10  # fewest prompts from which a strength is estimated


@dataclass(frozen=True)
class Standing:
    """One policy on the board; ``strength`` is the log-odds over the reference, None where ``unknown`` says why.

    ``votes`` counts judgments of people, or verdicts of a rule or reward model, and ``prompts`` what they were on; of
    evaluations, which ask the same prompts, those of the largest. ``at_equal_length`` is the strength between replies
    of equal length. ``votes_to_reverse`` is how few votes, dropped, would put the next policy level with it: None where
    no 50 do, or where no policy follows. A board by a rule or a reward model has neither of the two, since scorecards
    hold no single verdicts.
    """

    policy: str
    votes: int
    prompts: int
    strength: Strength | None = None
    at_equal_length: Strength | None = None
    unknown: str = ""
    votes_to_reverse: int | None = None


@dataclass(frozen=True)
class Board:
    """The policies that one judge compared, strongest first, then the unknown.

    ``by`` is the judge and ``judges`` lists every judge there is a board of: ``people``, ``oracle:RULE``,
    ``reward:NAME``. ``wins[a][b]`` are a's figures over b, ``distances`` the policies by KL and win rate.
    """

    reference: str
    by: str = PEOPLE
    judges: list[str] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    wins: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    distances: list[DistancePoint] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The board as plain JSON."""
        return asdict(self)


def reference_of(db: Database, policies: Iterable[PolicyRow], wanted: str | None) -> PolicyRow | None:
    """The policy of strength 0: the one named, else the champion, else the oldest; None without policies.

    NotFound for a name that does not exist.
    """
    if wanted is not None:
        return get_policy(db, wanted)
    return get_champion(db) or min(policies, key=lambda row: row.created_at, default=None)
