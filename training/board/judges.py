"""The boards by rules and by reward models, each judge apart, from the win rates of the `evaluate` runs it judged.

The figure of two policies is the one that policy table and gate read: the newest of their first replies. A scorecard
holds a win rate with its interval over prompts and no single verdict, so prompts cannot be resampled: how the intervals
of strengths are gained is told by ``strengths_of_rates``, and neither a strength at equal length nor the number of
votes that would reverse two policies is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from feedback.database.engine import Database
from feedback.errors import NotFound
from feedback.store.models.checkpoints import list_checkpoints
from feedback.store.models.policies import list_policies
from feedback.store.models.scorecards import list_scorecards
from feedback.tables import PolicyRow, ScorecardRow
from training.board.bradley_terry import strengths
from training.board.distances import best_of_points, first_reply_points
from training.board.people import Fit, people_board
from training.board.rates import Rate, strengths_of_rates
from training.board.standings import FEWEST_PROMPTS, Board, Standing, reference_of
from training.evaluation.people import PEOPLE
from training.evaluation.standing import judge_of

Wins = dict[str, dict[str, dict[str, Any]]]


def board_by(db: Database, by: str = PEOPLE, reference: str | None = None, *, fit: Fit = strengths) -> Board:
    """The board by one judge: ``people``, ``oracle:RULE`` or ``reward:NAME``; ``reference`` has strength 0.

    ``fit`` computes the strengths of the board by people. NotFound for a judge that judged no evaluation, and for a
    reference that does not exist.
    """
    by_judge = _by_judge(db)
    judges = [PEOPLE, *sorted(by_judge)]
    if by == PEOPLE:
        board = people_board(db, reference, fit=fit)
    elif by in by_judge:
        board = _board(db, by, by_judge[by], reference)
    else:
        raise NotFound("judge", by, judges, hint="`studio evaluate A B --oracle RULE` or `--reward NAME` asks one.")
    return replace(board, judges=judges)


def _by_judge(db: Database) -> dict[str, list[ScorecardRow]]:
    """The win rates that each judge gave, newest first; a reward model named by its id stands under its name."""
    names = {key: row.name for row in list_checkpoints(db) for key in (row.id, row.name)}
    found: dict[str, list[ScorecardRow]] = {}
    for card in list_scorecards(db):
        if card.kind == "win_rate" and (judge := _judge(card, names)):
            found.setdefault(judge, []).append(card)
    return found


def _judge(card: ScorecardRow, checkpoints: Mapping[str, str]) -> str:
    """The judge of a scorecard as a board names it; empty where the scorecard does not say."""
    judge = judge_of(card)
    kind, _, key = judge.partition(":")
    if kind == "reward":
        return f"reward:{checkpoints.get(key.strip(), key.strip())}"
    return f"oracle:{judge}" if judge else ""


def _board(db: Database, by: str, cards: list[ScorecardRow], reference: str | None) -> Board:
    policies = list_policies(db)
    names = {row.id: row.name for row in policies}
    own = reference_of(db, policies, reference)
    if own is None:
        return Board("", by)
    newest = _newest(card for card in cards if card.subject_id in names and card.against_id in names)
    wins = _both_ways(newest)
    over_own = {policy: over[own.id] for policy, over in wins.items() if own.id in over}
    distances = [
        *first_reply_points(list_scorecards(db), own.id, over_own, names),
        *best_of_points((card for card in cards if _is_usable(card)), own.id, names),
    ]
    return Board(
        own.name,
        by,
        standings=_standings(newest, own, names),
        wins={names[policy]: {names[other]: one for other, one in over.items()} for policy, over in wins.items()},
        distances=distances,
    )


def _is_usable(card: ScorecardRow) -> bool:
    figures = [card.figures.get(name) for name in ("win_rate", "low", "high", "n_prompts")]
    return all(isinstance(figure, int | float) and math.isfinite(figure) for figure in figures)


def _newest(cards: Iterable[ScorecardRow]) -> dict[tuple[str, str], ScorecardRow]:
    """The newest win rate of each policy's first replies over another's, by the two ids; newest first."""
    found: dict[tuple[str, str], ScorecardRow] = {}
    for card in cards:
        if "best_of" not in card.figures and card.subject_id != card.against_id and _is_usable(card):
            found.setdefault((card.subject_id, str(card.against_id)), card)
    return found


def _both_ways(newest: Mapping[tuple[str, str], ScorecardRow]) -> Wins:
    """The figures of each policy over each other; where only the reverse was measured, its complement."""
    wins: Wins = {}
    for (policy, other), card in newest.items():
        wins.setdefault(policy, {})[other] = card.figures
        if (other, policy) not in newest:
            wins.setdefault(other, {})[policy] = _turned(card.figures)
    return wins


def _turned(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the other policy: what they say of wins, and nothing that was measured of one side alone."""
    kept = {name: figures[name] for name in ("ties", "n_prompts", "samples") if name in figures}
    return {"win_rate": 1 - figures["win_rate"], "low": 1 - figures["high"], "high": 1 - figures["low"], **kept}


def _standings(
    newest: Mapping[tuple[str, str], ScorecardRow], own: PolicyRow, names: Mapping[str, str]
) -> list[Standing]:
    """Every policy that was measured; of two that were measured both ways the newer measurement counts."""
    once = {frozenset(pair): pair for pair in reversed(list(newest))}
    met = [(pair, newest[pair].figures) for pair in once.values()]
    prompts = {
        policy: max(one["n_prompts"] for pair, one in met if policy in pair) for pair in newest for policy in pair
    }
    verdicts = {
        policy: sum(one["n_prompts"] * one.get("samples", 1) ** 2 for pair, one in met if policy in pair)
        for policy in prompts
    }
    rates = [
        Rate(pair[0], pair[1], one["n_prompts"], one["win_rate"], one["low"], one["high"])
        for pair, one in met
        if one["n_prompts"] >= FEWEST_PROMPTS
    ]
    found = strengths_of_rates(rates, own.id)
    known = {policy: found[policy] for policy in prompts if policy in found and prompts[policy] >= FEWEST_PROMPTS}
    order = sorted(prompts, key=lambda policy: (policy not in known, -known[policy].value if policy in known else 0.0))
    return [
        Standing(
            names[policy],
            verdicts[policy],
            prompts[policy],
            known.get(policy),
            unknown="" if policy in known else _why_unknown(rates, own, policy, prompts[policy]),
        )
        for policy in order
    ]


def _why_unknown(rates: Iterable[Rate], reference: PolicyRow, policy: str, prompts: int) -> str:
    if prompts < FEWEST_PROMPTS:
        return f"compared on {prompts} prompts, {FEWEST_PROMPTS} are needed"
    own = [
        (rate.value if rate.first == policy else 1 - rate.value)
        for rate in rates
        if policy in (rate.first, rate.second)
    ]
    if own and all(share == 1.0 for share in own):
        return "preferred in every comparison: no upper bound"
    if own and all(share == 0.0 for share in own):
        return "preferred in no comparison: no lower bound"
    return f"no chain of wins and losses connects it with {reference.name}"
