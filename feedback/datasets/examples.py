"""A frozen dataset beyond its pairs: replies to imitate, replies that are good or bad by themselves, and rankings.

Nothing here is stored: a dataset froze its judgments, judgments are never overwritten, so all of this follows from
the dataset for ever and its hash needs no new word. Splits are those of the dataset's pairs. Where an adjudicator
settled a matchup, that answer stands and the annotators' verdicts do not; what anybody wrote is still an edit,
unless they skipped.

    edited reply, winner, undefeated in a ranking   →  Demonstration
    winners and losers, both replies of a both-bad  →  LabelledReply
    one person's order of k replies, ties allowed   →  Ranking
    two replies most people call equally good       →  Ranking of two that tie

Our own methods and the exports ask the same two functions, ``imitable`` and ``labelled``, about one prompt at a time:
what a file teaches is what a run here learns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, groupby
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from feedback.database.engine import Database
from feedback.datasets.freeze import split_of
from feedback.rules import votes as ranking
from feedback.store.datasets.datasets import JudgedMatchup, get_dataset, list_frozen_matchups
from feedback.types import DatasetFilters, Message, Part, Verdict

SplitName = Literal["train", "test"]
Origin = Literal["edited", "chosen"]


class Statement(ranking.Voted, ranking.Edited, Protocol):
    """A judgment with all that an example is derived from."""

    @property
    def id(self) -> str: ...

    @property
    def part(self) -> Part: ...


StatementT = TypeVar("StatementT", bound=Statement)


class Judged(Protocol):
    """A matchup with a dataset's judgments on it, as training reads it or as an export does."""

    @property
    def texts(self) -> Sequence[str]: ...

    @property
    def judgments(self) -> Sequence[Statement]: ...


class _Example(BaseModel):
    """What every example has; in a subclass ``cut`` tells of a reply that ends where its length limit was."""

    model_config = ConfigDict(frozen=True)

    prompt_id: str
    messages: tuple[Message, ...]
    split: SplitName = "train"


class Demonstration(_Example):
    """A reply worth imitating: one a person *edited*, or one that people *chose* over every other they saw."""

    reply: str
    origin: Origin
    cut: bool = False


class LabelledReply(_Example):
    """A reply that is good or bad by itself."""

    reply: str
    good: bool
    cut: bool = False


class Ranking(_Example):
    """One judgment of k replies: ``ranks`` are 1 for the best, equal ranks tie; ``strength`` as in a pair, else 0."""

    matchup_id: str
    replies: tuple[str, ...]
    ranks: tuple[int, ...]
    strength: float = 0.0
    weight: float = 1.0
    cut: tuple[bool, ...] = ()


def list_demonstrations(db: Database, dataset: str, *, split: SplitName | None = None) -> list[Demonstration]:
    """Replies worth imitating, each text once per prompt, the edited ones first."""
    found = [
        Demonstration.model_validate({**common, "reply": text, "origin": origin, "cut": text in cut})
        for matchups, filters, common in _judged_prompts(db, dataset, split)
        for cut in [cut_texts(matchups)]
        for text, origin in imitable(matchups, filters.min_agreement)[0].items()
    ]
    return sorted(found, key=lambda example: example.origin != "edited")


def list_labelled_replies(db: Database, dataset: str, *, split: SplitName | None = None) -> list[LabelledReply]:
    """Replies called good or bad, each text once per prompt; one called both as often as the other is left out."""
    return [
        LabelledReply.model_validate({**common, "reply": text, "good": good, "cut": text in cut})
        for matchups, filters, common in _judged_prompts(db, dataset, split)
        for cut in [cut_texts(matchups)]
        for text, good in labelled(matchups, filters.min_agreement)[0].items()
    ]


def cut_texts(matchups: Sequence[JudgedMatchup]) -> set[str]:
    """The texts that only ever ended at a length limit: no reply ended so by itself, and nobody wrote it."""
    replies = [reply for matchup in matchups for reply in matchup.generations]
    written = {text for matchup in matchups for _, _, text in ranking.edits_of(matchup.judgments)}
    return {reply.text for reply in replies if reply.is_cut} - {r.text for r in replies if not r.is_cut} - written


def imitable(matchups: Iterable[Judged], min_agreement: float) -> tuple[dict[str, Origin], Counter[str]]:
    """The texts worth imitating among all that was shown and written for a prompt; the others counted by reason.

    Where somebody typed what another reply already said, the person's word counts. The reasons are ``edited`` (its
    edit stands for it), ``rejected`` (another was preferred, or it was called bad) and those of ``labelled``.
    """
    written: dict[str, Origin] = {}
    chosen: dict[str, Origin] = {}
    others: list[tuple[str, str]] = []
    for matchup in matchups:
        improved = set()
        for _, index, text in ranking.edits_of(matchup.judgments):
            improved.add(index)
            written[text] = "edited"
        for index, (text, fate) in enumerate(zip(matchup.texts, _fates(matchup, min_agreement), strict=True)):
            if index in improved:
                others.append((text, "edited"))
            elif fate is True:
                chosen.pop(text, None)  # a text stands where it was chosen last
                chosen[text] = "chosen"
            else:
                others.append((text, fate or "rejected"))
    found = chosen | written
    return found, _left_out(found, others)


def labelled(matchups: Iterable[Judged], min_agreement: float) -> tuple[dict[str, bool], Counter[str]]:
    """The texts that are good or bad among all that was shown and written for a prompt; the others by reason.

    The reasons are ``undecided_reply`` (called good as often as bad), ``skip`` and ``tie`` (nobody said otherwise),
    ``conflict`` (the sides are equal), ``below_agreement`` and ``in_between`` (it beat one reply and lost to another).
    """
    balance: Counter[str] = Counter()
    others: list[tuple[str, str]] = []
    for matchup in matchups:
        balance.update(text for _, _, text in ranking.edits_of(matchup.judgments))
        fates = zip(matchup.texts, _fates(matchup, min_agreement), strict=True)
        for text, fate in sorted(fates, key=lambda told: told[1] is not True):
            if isinstance(fate, str):
                others.append((text, fate))
            else:
                balance[text] += 1 if fate else -1
    found = {text: count > 0 for text, count in balance.items() if count}
    return found, _left_out(found, [(text, "undecided_reply") for text in balance] + others)


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


def list_judged_prompts(db: Database, dataset: str, *, split: SplitName | None = None) -> list[str]:
    """The ids of the prompts a dataset's judgments are about, each once, those without a pair included."""
    judged, filters = _frozen(db, dataset)
    found = [
        matchup.prompt_id
        for matchup in judged
        if split in (None, split_of(matchup.prompt_hash, filters.test_share, filters.split_seed))
    ]
    return list(dict.fromkeys(found))


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


def _judged_prompts(
    db: Database, dataset: str, split: SplitName | None
) -> Iterator[tuple[list[JudgedMatchup], DatasetFilters, dict[str, object]]]:
    """A dataset's matchups prompt by prompt, with the filters and what every example of the prompt has."""
    judged, filters = _frozen(db, dataset)
    for _, group in groupby(judged, key=lambda matchup: matchup.prompt_id):
        matchups = list(group)
        common = _common(matchups[0], filters)
        if split in (None, common["split"]):
            yield matchups, filters, common


def _rankings(matchup: JudgedMatchup, filters: DatasetFilters) -> Iterator[Ranking]:
    for judgment in _deciding(matchup.judgments):
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
                    "replies": tuple(matchup.texts),
                    "ranks": ranks,
                    "strength": float(judgment.strength or 0),
                    "cut": tuple(reply.is_cut for reply in matchup.generations),
                }
            )


def _ties(matchup: JudgedMatchup, filters: DatasetFilters) -> Iterator[Ranking]:
    said: defaultdict[tuple[int, int], list[Verdict]] = defaultdict(list)
    for judgment in _deciding(matchup.judgments):
        for one, other, verdict in ranking.pairwise_verdicts(judgment.verdict, judgment.ranking):
            if verdict is not Verdict.skip:
                said[one, other].append(verdict)
    for pair, verdicts in sorted(said.items()):
        if 2 * verdicts.count(Verdict.tie) > len(verdicts):
            replies = tuple(matchup.texts[index] for index in pair)
            common = _common(matchup, filters)
            cut = tuple(matchup.generations[index].is_cut for index in pair)
            yield Ranking.model_validate(
                {**common, "matchup_id": matchup.matchup_id, "replies": replies, "ranks": (1, 1), "cut": cut}
            )


def _deciding(judgments: Sequence[StatementT]) -> Sequence[StatementT]:
    """The judgments whose verdicts count: the adjudicator's where there is one, as for the dataset's pairs."""
    return [judgment for judgment in judgments if judgment.part is Part.adjudicator] or judgments


def _fates(matchup: Judged, min_agreement: float) -> list[bool | str]:
    """For each stored index: is the reply good, is it bad, or why do its judges leave that open?

    Good is what beat another and was never beaten, bad what was beaten and never beat another, and every reply of a
    matchup that more than half of its judges call all bad.
    """
    deciding = _deciding(matchup.judgments)
    said = [judgment.verdict for judgment in deciding if judgment.verdict is not Verdict.skip]
    if not said:
        return ["skip"] * len(matchup.texts)
    if 2 * said.count(Verdict.both_bad) > len(said):
        return [False] * len(matchup.texts)
    won, lost = set(), set()
    fates: list[bool | str] = ["conflict" if Verdict.both_bad in said else "tie"] * len(matchup.texts)
    votes = [vote for judgment in deciding for vote in ranking.votes_of(judgment, judgment.id)]
    for places, tally in ranking.tally_votes(votes).items():
        winners = tally.winners()
        if winners and tally.agreement >= min_agreement:
            won.add(winners[0].better)
            lost.add(winners[0].worse)
        else:
            for index in places:
                fates[index] = "below_agreement" if winners else "conflict"
    for index in won | lost:
        fates[index] = "in_between" if index in won and index in lost else index in won
    return fates


def _left_out(found: dict[str, Any], others: Iterable[tuple[str, str]]) -> Counter[str]:
    """How many texts are not among the found, each under the first reason given for it."""
    reasons: dict[str, str] = {}
    for text, reason in others:
        if text not in found:
            reasons.setdefault(text, reason)
    return Counter(reasons.values())
