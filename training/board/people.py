"""The board of policies by what people said: strengths, and who was preferred to whom how often.

Only pairs of two policies' replies to held-out prompts count, drawn at random and judged blind: those of which the gate
and the policy table tell, so that board, table and gate give the same figure of the same two policies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from feedback.database.engine import Database
from feedback.rules.votes import TIE_SHARE
from feedback.store.models.policies import list_policies
from feedback.store.models.scorecards import list_scorecards
from feedback.store.reports.comparisons import list_comparisons
from feedback.tables import PolicyRow
from feedback.types import Verdict
from training.board.bradley_terry import Strength, Vote, fewest_to_reverse, strengths
from training.board.distances import first_reply_points
from training.board.standings import FEWEST_PROMPTS, Board, Standing, reference_of
from training.evaluation.people import PEOPLE, list_by_people

_SCORE = {Verdict.first: 1.0, Verdict.second: 0.0}
Fit = Callable[..., dict[str, Strength]]
"""What computes strengths, as ``strengths`` does; one that remembers spares the resampling."""


def people_board(db: Database, reference: str | None = None, *, seed: int = 0, fit: Fit = strengths) -> Board:
    """The board by people; ``reference`` has strength 0, left out the champion or else the oldest policy.

    NotFound for a reference that does not exist.
    """
    policies = list_policies(db)
    own = reference_of(db, policies, reference)
    if own is None:
        return Board("")
    names = {row.id: row.name for row in policies}
    figures = {row.id: list_by_people(db, row.id) for row in policies}
    votes = _votes(db, figures)
    met = Counter(policy for vote in votes for policy in (vote.first, vote.second))
    on = {policy: {vote.prompt for vote in votes if policy in (vote.first, vote.second)} for policy in met}
    few = {policy for policy in met if len(on[policy]) < FEWEST_PROMPTS}
    used = [vote for vote in votes if not few & {vote.first, vote.second}]
    plain = fit(used, own.id, seed=seed)
    equal = fit(used, own.id, length_controlled=True, seed=seed)
    order = sorted(met, key=lambda policy: (policy not in plain, -plain[policy].value if policy in plain else 0.0))
    standings = []
    for place, policy in enumerate(order):
        follower = next(iter(order[place + 1 : place + 2]), None)
        known = policy in plain and policy not in few and (policy == own.id or plain[policy].low < plain[policy].high)
        standings.append(
            Standing(
                names[policy],
                met[policy],
                len(on[policy]),
                plain[policy] if known else None,
                equal.get(policy) if known else None,
                "" if known else _why_unknown(used, own, policy, len(on[policy])),
                fewest_to_reverse(used, own.id, policy, follower) if known and follower in plain else None,
            )
        )
    wins = {names[policy]: _named(figures[policy], names) for policy in order}
    told = {policy: over[own.id] for policy, over in figures.items() if over.get(own.id, {}).get("judgments")}
    distances = first_reply_points(list_scorecards(db), own.id, told, names)
    return Board(own.name, PEOPLE, standings=standings, wins=wins, distances=distances)


def _votes(db: Database, figures: dict[str, dict[str, dict[str, Any]]]) -> list[Vote]:
    """Every comparison once. A tie, two bad replies and two identical ones count half, as in a win rate."""
    found: list[Vote] = []
    seen: set[str] = set()
    for policy in (policy for policy, over in figures.items() if over):
        for other, met in list_comparisons(db, policy).items():
            if other in seen or not met.comparisons:
                continue
            for one in met.comparisons:
                second = other if one.first == policy else policy
                score = _SCORE.get(one.verdict, TIE_SHARE)
                found.append(Vote(one.prompt_id, one.first, second, score, one.longer))
            prompts = [f"alike {policy} {other} {number}" for number in range(figures[policy][other]["alike"])]
            found += [Vote(prompt, policy, other, TIE_SHARE) for prompt in prompts]
        seen.add(policy)
    return found


def _why_unknown(votes: list[Vote], reference: PolicyRow, policy: str, prompts: int) -> str:
    if prompts < FEWEST_PROMPTS:
        return f"compared on {prompts} prompts, {FEWEST_PROMPTS} are needed"
    own = [vote if vote.first == policy else _turned(vote) for vote in votes if policy in (vote.first, vote.second)]
    if own and len({vote.score for vote in own}) == 1 and own[0].score == TIE_SHARE:
        return "a tie in every comparison: no interval can be computed"
    if own and all(vote.score == 1.0 for vote in own):
        return "preferred in every comparison: no upper bound"
    if own and all(vote.score == 0.0 for vote in own):
        return "preferred in no comparison: no lower bound"
    return f"no chain of wins and losses connects it with {reference.name}"


def _turned(vote: Vote) -> Vote:
    return Vote(vote.prompt, vote.second, vote.first, 1.0 - vote.score, -vote.longer)


def _named(figures: dict[str, dict[str, Any]], names: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {names[other]: found for other, found in figures.items() if other in names}
