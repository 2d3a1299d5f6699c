"""The binarized UltraFeedback format: whole conversations with a score on each side.

``prompt`` is the last thing the user said, ``messages`` repeats ``chosen``. The scores are the shares of decisive votes
for each reply: they add up to 1, and 0.5 never occurs, since such pairs are conflicts. The original's splits
``train_prefs`` and ``test_prefs`` are the two sides of the dataset's split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from feedback.database.engine import Database
from feedback.formats.base.format import Export, Format, Row
from feedback.formats.base.importing import Incoming, LeftOut, read_votes, replies_after
from feedback.store.datasets.exports import iterate_pair_records

_READ = ("prompt", "chosen", "rejected", "messages")


def rows(export: Export) -> Iterator[Row]:
    """One object per pair."""
    for pair in iterate_pair_records(export.db, export.dataset.id, split=export.split):
        chosen = [*pair.messages, {"role": "assistant", "content": pair.chosen}]
        yield {
            "prompt": pair.messages[-1]["content"],
            "prompt_id": pair.prompt_id,
            "chosen": chosen,
            "rejected": [*pair.messages, {"role": "assistant", "content": pair.rejected}],
            "messages": chosen,
            "score_chosen": round(pair.agreement, 6),
            "score_rejected": round(1 - pair.agreement, 6),
        }


def read(db: Database, path: Path) -> dict[str, int]:
    """Pairs as imported judgments; where both scores are equal there is no preference, and the line is left out.

    What a line calls chosen is believed also against its scores (in relabeled copies people overruled them), and
    counted as ``scores_contradict``.
    """
    return read_votes(db, path, _incoming, known=_READ)


def _incoming(fields: Row) -> Incoming:
    scores = (fields.get("score_chosen"), fields.get("score_rejected"))
    if None not in scores and scores[0] == scores[1]:
        raise LeftOut("equal_scores")
    vote = replies_after(None, fields["chosen"], fields["rejected"])
    one, other = scores
    is_odd = isinstance(one, int | float) and isinstance(other, int | float) and one < other
    return replace(vote, counted=("scores_contradict",)) if is_odd else vote


FORMAT = Format(
    name="ultrafeedback",
    sentence="Whole conversations with a score on each side, as in binarized UltraFeedback.",
    rows=rows,
    read=read,
)
