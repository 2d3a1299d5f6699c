"""TRL's unpaired preference format: ``prompt``, ``completion`` and a ``label`` that says whether it is wanted.

What ``KTOTrainer`` reads, with the examples that this studio's own KTO learns from (``feedback.datasets.examples``):
a chosen reply and one that a person wrote are wanted, a rejected one is not, nor are the replies of a pair that most
called both bad, which no paired format can say. Every reply to a prompt is a row or counted, by its reason, as left
out.
"""

from __future__ import annotations

from collections.abc import Iterator

from feedback.datasets.examples import labelled
from feedback.formats.base.format import Export, Format, Row, dropped_by_filters


def rows(export: Export) -> Iterator[Row]:
    """One object per reply to a prompt, in the conversational layout."""
    for prompt in export.prompts():
        labels, left_out = labelled(prompt.matchups, export.dataset.filters["min_agreement"])
        export.dropped.update(left_out)
        for text, good in labels.items():
            yield {
                "prompt": prompt.messages,
                "completion": [{"role": "assistant", "content": text}],
                "label": good,
            }


FORMAT = Format(
    name="trl-kto",
    sentence="TRL replies with a label, wanted or not: what `KTOTrainer` reads; both-bad counts against both.",
    rows=rows,
    dropped=dropped_by_filters,
)
