"""A frozen dataset beyond its pairs: replies to imitate, replies that are good or bad by themselves, and rankings.

Nothing here is stored: a dataset froze its judgments, judgments are never overwritten, so all of this follows from
the dataset for ever and its hash needs no new word. Splits are those of the dataset's pairs. Where an adjudicator
settled a matchup, that answer stands and the annotators' verdicts do not; what anybody wrote is still an edit,
unless they skipped.

    edited reply, winner, undefeated in a ranking   →  Demonstration
    winners and losers, both replies of a both-bad  →  LabelledReply
    one person's order of k replies, ties allowed   →  Ranking
    two replies most people call equally good       →  Ranking of two that tie
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal

from pydantic import BaseModel, ConfigDict

from feedback import ranking
from feedback.datasets import split_of
from feedback.db import Database
from feedback.store.datasets import JudgedMatchup, get_dataset, list_frozen_matchups
from feedback.tables import JudgmentRow
from feedback.types import DatasetFilters, Message, Part, Verdict

SplitName = Literal["train", "test"]


class _Example(BaseModel):
    model_config = ConfigDict(frozen=True)

    prompt_id: str
    messages: tuple[Message, ...]
    split: SplitName = "train"


class Demonstration(_Example):
    """A reply worth imitating: one a person *edited*, or one that people *chose* over every other they saw."""

    reply: str
    origin: Literal["edited", "chosen"]


class LabelledReply(_Example):
    """A reply that is good or bad by itself."""

    reply: str
    good: bool


class Ranking(_Example):
    """One judgment of k replies: ``ranks`` are 1 for the best, equal ranks tie; ``strength`` as in a pair, else 0."""

    matchup_id: str
    replies: tuple[str, ...]
    ranks: tuple[int, ...]
    strength: float = 0.0
    weight: float = 1.0


def list_demonstrations(db: Database, dataset: str, *, split: SplitName | None = None) -> list[Demonstration]:
    """Replies worth imitating, each text once per prompt; an edit stands for the reply it was made from."""
    judged, filters = _frozen(db, dataset)
    found = [example for matchup in judged for example in _demonstrations(matchup, filters)]
    # The edits first: where somebody typed what another reply already said, the person's word counts
    ordered = sorted(found, key=lambda example: example.origin != "edited")
    unique = {(example.prompt_id, example.reply): example for example in reversed(ordered)}
    kept = list(reversed(unique.values()))
    return [example for example in kept if split in (None, example.split)]


def list_labelled_replies(db: Database, dataset: str, *, split: SplitName | None = None) -> list[LabelledReply]:
    """Replies called good or bad, each text once per prompt; one called both as often as the other is left out."""
    judged, filters = _frozen(db, dataset)
    found: dict[tuple[str, str], LabelledReply] = {}
    balance: Counter[tuple[str, str]] = Counter()
    for matchup in judged:
        for example in _labelled(matchup, filters):
            key = (example.prompt_id, example.reply)
            found.setdefault(key, example)
            balance[key] += 1 if example.good else -1
    kept = [example.model_copy(update={"good": balance[key] > 0}) for key, example in found.items() if balance[key]]
    return [example for example in kept if split in (None, example.split)]


def list_rankings(db: Database, dataset: str, *, split: SplitName | None = None) -> list[Ranking]:
    """Every judgment that puts some reply above another, pairs as rankings of two, in the order of the matchups."""
    judged, filters = _frozen(db, dataset)
    kept = [example for matchup in judged for example in _rankings(matchup, filters)]
    return [example for example in kept if split in (None, example.split)]


def list_ties(db: Database, dataset: str, *, split: SplitName | None = None) -> list[Ranking]:
    """Every two replies that more than half of their judges call equally good, in the order of the matchups.

    Replies that are both bad are not among them: one may still be worse than the other.
    """
    judged, filters = _frozen(db, dataset)
    kept = [example for matchup in judged for example in _ties(matchup, filters)]
    return [example for example in kept if split in (None, example.split)]


def list_judged_prompts(db: Database, dataset: str, *, split: SplitName | None = None) -> list[tuple[Message, ...]]:
    """The conversations a dataset's judgments are about, each once, those without a pair included."""
    judged, filters = _frozen(db, dataset)
    found = {
        matchup.prompt_id: tuple(Message.model_validate(message) for message in matchup.messages)
        for matchup in judged
        if split in (None, split_of(matchup.prompt_hash, filters.test_share, filters.split_seed))
    }
    return list(found.values())


def label_noise(db: Database, dataset: str) -> float | None:
    """The share of wrong votes that disagreement between people implies; None where no two judged the same pair.

    Two independent votes, each wrong with probability e, agree with probability p = e² + (1-e)², so
    e = (1 - sqrt(2p - 1)) / 2; agreement at or below chance gives one half.
    """
    same = total = 0
    for matchup in list_frozen_matchups(db, dataset):
        own = [judgment for judgment in matchup.judgments if judgment.part is Part.annotator]
        votes = [vote for judgment in own for vote in ranking.votes_of(judgment, judgment.id)]
        for tally in ranking.tally_votes(votes).values():
            for one, other in combinations([*tally.for_low, *tally.for_high], 2):
                same += one.better == other.better
                total += 1
    if not total:
        return None
    return float((1 - max(0.0, 2 * same / total - 1) ** 0.5) / 2)


def _frozen(db: Database, dataset: str) -> tuple[list[JudgedMatchup], DatasetFilters]:
    row = get_dataset(db, dataset)
    return list_frozen_matchups(db, row.id), DatasetFilters.model_validate(row.filters)


def _common(matchup: JudgedMatchup, filters: DatasetFilters) -> dict[str, object]:
    return {
        "prompt_id": matchup.prompt_id,
        "messages": tuple(Message.model_validate(message) for message in matchup.messages),
        "split": split_of(matchup.prompt_hash, filters.test_share, filters.split_seed),
    }


def _demonstrations(matchup: JudgedMatchup, filters: DatasetFilters) -> Iterator[Demonstration]:
    common = _common(matchup, filters)
    improved = set()
    for _, index, text in ranking.edits_of(matchup.judgments):
        improved.add(index)
        yield Demonstration.model_validate({**common, "reply": text, "origin": "edited"})
    for index in _ends(matchup, filters)[0]:
        if index not in improved:
            yield Demonstration.model_validate({**common, "reply": matchup.generations[index].text, "origin": "chosen"})


def _labelled(matchup: JudgedMatchup, filters: DatasetFilters) -> Iterator[LabelledReply]:
    common = _common(matchup, filters)
    for _, _, text in ranking.edits_of(matchup.judgments):
        yield LabelledReply.model_validate({**common, "reply": text, "good": True})
    good, bad = _ends(matchup, filters)
    said = [judgment for judgment in _deciding(matchup) if judgment.verdict is not Verdict.skip]
    if 2 * sum(judgment.verdict is Verdict.both_bad for judgment in said) > len(said):
        good, bad = [], list(range(len(matchup.generations)))
    for indices, verdict in ((good, True), (bad, False)):
        for index in indices:
            yield LabelledReply.model_validate({**common, "reply": matchup.generations[index].text, "good": verdict})


def _rankings(matchup: JudgedMatchup, filters: DatasetFilters) -> Iterator[Ranking]:
    for judgment in _deciding(matchup):
        if judgment.ranking is not None:
            ranks = tuple(judgment.ranking)
        elif judgment.verdict in (Verdict.first, Verdict.second):
            ranks = (1, 2) if judgment.verdict is Verdict.first else (2, 1)
        else:
            continue
        if len(set(ranks)) > 1:
            yield Ranking.model_validate(
                {
                    **_common(matchup, filters),
                    "matchup_id": matchup.matchup_id,
                    "replies": tuple(generation.text for generation in matchup.generations),
                    "ranks": ranks,
                    "strength": float(judgment.strength or 0),
                }
            )


def _ties(matchup: JudgedMatchup, filters: DatasetFilters) -> Iterator[Ranking]:
    said: defaultdict[tuple[int, int], list[Verdict]] = defaultdict(list)
    for judgment in _deciding(matchup):
        for one, other, verdict in ranking.pairwise_verdicts(judgment.verdict, judgment.ranking):
            if verdict is not Verdict.skip:
                said[one, other].append(verdict)
    for pair, verdicts in sorted(said.items()):
        if 2 * verdicts.count(Verdict.tie) > len(verdicts):
            replies = tuple(matchup.generations[index].text for index in pair)
            common = _common(matchup, filters)
            yield Ranking.model_validate(
                {**common, "matchup_id": matchup.matchup_id, "replies": replies, "ranks": (1, 1)}
            )


def _deciding(matchup: JudgedMatchup) -> list[JudgmentRow]:
    """The judgments whose verdicts count: the adjudicator's where there is one, as for the dataset's pairs."""
    settled = [judgment for judgment in matchup.judgments if judgment.part is Part.adjudicator]
    return settled or matchup.judgments


def _ends(matchup: JudgedMatchup, filters: DatasetFilters) -> tuple[Sequence[int], Sequence[int]]:
    """Stored indices that beat another and were never beaten, and those that were beaten and never beat another."""
    votes = [vote for judgment in _deciding(matchup) for vote in ranking.votes_of(judgment, judgment.id)]
    won, lost = set(), set()
    for tally in ranking.tally_votes(votes).values():
        winners = tally.winners()
        if winners and tally.agreement >= filters.min_agreement:
            won.add(winners[0].better)
            lost.add(winners[0].worse)
    return sorted(won - lost), sorted(lost - won)
