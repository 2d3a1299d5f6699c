"""TRL's unpaired preference format: ``prompt``, ``completion`` and a ``label`` that says whether it is wanted.

What ``KTOTrainer`` reads. A chosen reply and one that a person wrote are wanted, a rejected one is not; both replies of
a pair that somebody called both bad are unwanted, which no paired format can say. A reply judged more than once, as
the middle ones of a ranking are, gets the label of the greater side; where the sides are equal it is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from feedback.formats.shape import Export, Format, Row
from feedback.ranking import edits_of
from feedback.store.exports import PromptRecord
from feedback.tables import DatasetRow
from feedback.types import Verdict


def rows(export: Export) -> Iterator[Row]:
    """One object per reply to a prompt, in the conversational layout."""
    for prompt in export.prompts():
        for text, standing in standings(prompt).items():
            if standing == 0:
                export.dropped["undecided_reply"] += 1
                continue
            yield {
                "prompt": prompt.messages,
                "completion": [{"role": "assistant", "content": text}],
                "label": standing > 0,
            }


def standings(prompt: PromptRecord) -> dict[str, int]:
    """For each reply, in how many pairs it was chosen less how often it was rejected or called bad."""
    counts: Counter[str] = Counter()
    for chosen, rejected in prompt.pairs:
        counts[chosen] += 1
        counts[rejected] -= 1
    for matchup in prompt.matchups:
        for _, _, text in edits_of(matchup.votes):
            counts[text] += 1
        for vote in matchup.votes:
            if vote.verdict is Verdict.both_bad:
                counts.subtract(dict.fromkeys(matchup.texts, 1))
    return counts


def dropped(dataset: DatasetRow) -> dict[str, int]:
    """What freezing left out, but for both-bad: here it has a meaning."""
    return {reason: count for reason, count in dataset.dropped.items() if reason != "both_bad"}


FORMAT = Format(
    name="trl-kto",
    sentence="TRL replies with a label, wanted or not: what `KTOTrainer` reads; both-bad counts against both.",
    rows=rows,
    dropped=dropped,
)
