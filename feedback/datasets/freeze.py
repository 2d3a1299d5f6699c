"""Judgments → a frozen dataset: which votes count, how disagreement is resolved, the split, the hash, the drops.

A dataset never changes. Its hash covers the filters, the judgments and the derived pairs with their texts, in
an order that does not depend on when rows were written: freezing the same judgments twice gives the same hash.
The split is by prompt, from the prompt's own hash: every pair of a prompt lies on one side, in every dataset
frozen with the same seed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from feedback.database.engine import Database
from feedback.quality.ballots import Unit, ballots_of
from feedback.rules import votes as ranking
from feedback.rules.votes import Tally, Vote
from feedback.store.datasets import datasets as store
from feedback.store.datasets.datasets import JudgedMatchup
from feedback.store.labeling.judgments import check_annotators
from feedback.store.reports.opinions import list_opinions
from feedback.tables import DatasetRow
from feedback.types import (
    CUT_REPLY,
    Dataset,
    DatasetFilters,
    Message,
    Part,
    PreferencePair,
    Purpose,
    Verdict,
    Weighting,
    content_hash,
    usable_name,
)

if TYPE_CHECKING:
    from feedback.quality.annotator_model import Reliability

UNDECIDED = 0.05
"""A pair whose better side is known by less than this (0 a coin, 1 a certainty) teaches nothing."""


_CUT = {"chosen_cut", "rejected_cut"}


@dataclass(frozen=True)
class Derivation:
    """What filters make of judgments: the judgments taken, the pairs, and what was left out and why."""

    judgment_ids: list[str]
    pairs: list[PreferencePair]
    dropped: dict[str, int]

    def counts(self) -> dict[str, int]:
        """The sizes shown with a dataset."""
        splits = Counter(pair.split for pair in self.pairs)
        edits = sum(pair.edited_by is not None for pair in self.pairs)
        return ({"edits": edits} if edits else {}) | {
            "judgments": len(self.judgment_ids),
            "pairs": len(self.pairs),
            "train": splits["train"],
            "test": splits["test"],
            "prompts": len({pair.prompt_id for pair in self.pairs}),
        }


def freeze(db: Database, name: str, filters: DatasetFilters | None = None) -> DatasetRow:
    """Freeze the judgments that pass the filters, with the pairs derived from them, under a name.

    A dataset may be empty of pairs (all ties, say): its drop report says why. Raises Conflict when the name is
    taken, InvalidInput when it cannot be a name.
    """
    usable_name(name, "dataset")
    chosen = filters or DatasetFilters()
    derivation = preview(db, chosen)
    value = Dataset(
        name=name,
        filters=chosen.model_dump(mode="json"),
        hash=dataset_hash(chosen, derivation),
        counts=derivation.counts(),
        dropped=derivation.dropped,
    )
    return store.save_dataset(db, value, derivation.judgment_ids, derivation.pairs)


def preview(db: Database, filters: DatasetFilters | None = None) -> Derivation:
    """What ``freeze`` would take and leave out, without keeping anything.

    Raises NotFound for a policy that is not there and an annotator who never judged: a misspelt name, and an empty
    dataset under a name that is then taken for ever.
    """
    chosen = filters or DatasetFilters()
    if chosen.annotators:
        check_annotators(db, chosen.annotators)
    judged, dropped = store.list_judged_matchups(db, chosen)
    model = fit_annotators(db, judged, chosen) if chosen.weighting is Weighting.reliability else None
    return derive(judged, chosen, dropped, model)


def fit_annotators(db: Database, judged: Sequence[JudgedMatchup], filters: DatasetFilters) -> Reliability:
    """How far each annotator can be believed, from the judgments a dataset takes and from gold."""
    taken = {judgment.id for matchup in judged for judgment in matchup.judgments}
    known = list_opinions(db, sources=filters.sources, purposes=(Purpose.collect, Purpose.gold, Purpose.playground))
    used = [opinion for opinion in known if opinion.judgment_id in taken or opinion.purpose is Purpose.gold]
    from feedback.quality import annotator_model  # numpy and scipy: half a second that only weighing needs

    return annotator_model.fit(ballots_of(used))


def derive(
    judged: Sequence[JudgedMatchup],
    filters: DatasetFilters,
    dropped: dict[str, int] | None = None,
    model: Reliability | None = None,
) -> Derivation:
    """Pairs from judged matchups, pure. With a ``model`` of the annotators it decides and weighs each pair.

    Reasons in the drop report count judgments (``tie``, ``both_bad``, ``skip``, and what the filters refused)
    or matchup pairs (``conflict``: sides equal; ``below_agreement``; ``identical``; ``duplicate``: the same
    two texts for the same prompt were judged before). ``cut_reply`` counts pairs that are kept although a reply was
    cut at its length limit: it is taught without an end.
    """
    drops: Counter[str] = Counter(dropped or {})
    judgment_ids: list[str] = []
    pairs: list[PreferencePair] = []
    seen: set[tuple[str, str, str]] = set()
    for matchup in sorted(judged, key=lambda item: item.place):
        judgment_ids.extend(judgment.id for judgment in matchup.judgments)
        for judgment in matchup.judgments:
            if judgment.verdict in (Verdict.tie, Verdict.both_bad, Verdict.skip):
                drops[judgment.verdict.value] += 1
        for pair in (*_pairs_of(matchup, filters, drops, model), *_edits_of(matchup, filters, drops)):
            low, high = sorted((pair.chosen, pair.rejected))
            key = (pair.prompt_id, low, high)
            if key in seen:
                drops["duplicate"] += 1
            else:
                seen.add(key)
                pairs.append(pair)
                drops.update([CUT_REPLY] if pair.is_cut else [])
    return Derivation(sorted(judgment_ids), pairs, dict(sorted(drops.items())))


def dataset_hash(filters: DatasetFilters, derivation: Derivation) -> str:
    """SHA-256 over the filters, the judgment ids and the pairs with their texts, matchup by matchup in order of ids."""
    # A filter that is not used changes no hash: datasets that were frozen before it existed keep theirs.
    weighted = filters.weighting is not Weighting.none
    used = {"weighting": weighted, "batches": bool(filters.batches), "playground": filters.playground}
    unused = {name for name, is_used in used.items() if not is_used}
    return content_hash(
        {
            "filters": filters.model_dump(mode="json", exclude=unused),
            "judgments": derivation.judgment_ids,
            # Without what is not there: a pair without an edit hashes as it did before edits existed. Whether a reply
            # was cut follows from its generation, which is named.
            "pairs": [
                pair.model_dump(mode="json", exclude_none=True, exclude=_CUT if weighted else {"weight", *_CUT})
                for pair in sorted(derivation.pairs, key=lambda pair: pair.matchup_id)
            ],
        }
    )


def split_of(prompt_hash: str, test_share: float, seed: int) -> Literal["train", "test"]:
    """Which side of the split a prompt lies on: its hash, salted with the seed, as a number in [0, 1)."""
    digest = hashlib.sha256(f"{seed}:{prompt_hash}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") / 2**64 < test_share else "train"


@dataclass(frozen=True)
class _Outcome:
    """Which stored index of a pair is preferred to which, on whose word, and how much that is worth."""

    better: int
    worse: int
    votes: list[Vote]
    weight: float
    agreement: float


def _pairs_of(
    matchup: JudgedMatchup, filters: DatasetFilters, drops: Counter[str], model: Reliability | None
) -> list[PreferencePair]:
    settled = [judgment for judgment in matchup.judgments if judgment.part is Part.adjudicator]
    votes = [vote for judgment in settled or matchup.judgments for vote in ranking.votes_of(judgment, judgment.id)]
    pairs = []
    for unit, tally in ranking.tally_votes(votes).items():
        if model is not None and not settled:
            outcome = _believed((matchup.matchup_id, *unit), tally, model)
        else:
            outcome = _elected(tally, filters)
        if isinstance(outcome, str):
            drops[outcome] += 1
            continue
        chosen, rejected = matchup.generations[outcome.better], matchup.generations[outcome.worse]
        if chosen.text == rejected.text:
            drops["identical"] += 1
            continue
        pairs.append(
            PreferencePair(
                prompt_id=matchup.prompt_id,
                matchup_id=matchup.matchup_id,
                messages=tuple(Message.model_validate(message) for message in matchup.messages),
                chosen=chosen.text,
                rejected=rejected.text,
                chosen_generation=chosen.id,
                rejected_generation=rejected.id,
                judgment_ids=tuple(sorted(vote.judgment_id for vote in outcome.votes)),
                margin=ranking.mean_strength(outcome.votes),
                agreement=outcome.agreement,
                split=split_of(matchup.prompt_hash, filters.test_share, filters.split_seed),
                weight=outcome.weight,
                chosen_cut=chosen.is_cut,
                rejected_cut=rejected.is_cut,
            )
        )
    return pairs


def _edits_of(matchup: JudgedMatchup, filters: DatasetFilters, drops: Counter[str]) -> Iterator[PreferencePair]:
    """An edit says that the edited text is better than the reply it was made from."""
    for judgment, index, text in ranking.edits_of(matchup.judgments):
        original = matchup.generations[index]
        if original.text == text:
            drops["identical"] += 1
            continue
        yield PreferencePair(
            prompt_id=matchup.prompt_id,
            matchup_id=matchup.matchup_id,
            messages=tuple(Message.model_validate(message) for message in matchup.messages),
            chosen=text,
            rejected=original.text,
            chosen_generation=original.id,
            rejected_generation=original.id,
            judgment_ids=(judgment.id,),
            split=split_of(matchup.prompt_hash, filters.test_share, filters.split_seed),
            edited_by=judgment.id,
            rejected_cut=original.is_cut,
        )


def _elected(tally: Tally, filters: DatasetFilters) -> _Outcome | str:
    """The larger side's preference, or why there is none."""
    winners = tally.winners()
    if not winners:
        return "conflict"
    if tally.agreement < filters.min_agreement:
        return "below_agreement"
    return _Outcome(winners[0].better, winners[0].worse, winners, 1.0, tally.agreement)


def _believed(unit: Unit, tally: Tally, model: Reliability) -> _Outcome | str:
    """What the model of the annotators holds likely; a preference that nobody expressed is none."""
    chance = model.second_better.get(unit, 0.5)
    votes = tally.for_high if chance > 0.5 else tally.for_low
    weight = round(model.weight(unit), 4)
    if not votes or weight < UNDECIDED:
        return "undecided"
    return _Outcome(votes[0].better, votes[0].worse, votes, weight, len(votes) / tally.total)
