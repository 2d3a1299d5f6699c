"""TRL's fine-tuning format: ``messages`` that end with the reply to imitate. What ``SFTTrainer`` reads.

The replies are those that this studio's own SFT learns from (``feedback.datasets.examples``): what people wrote, and
what they chose over every other reply they saw. Every reply to a prompt is a row or counted, by its reason, as left
out.
"""

from __future__ import annotations

from collections.abc import Iterator

from feedback.datasets.examples import imitable
from feedback.formats.base.format import Export, Format, Row, dropped_by_filters


def rows(export: Export) -> Iterator[Row]:
    """One object per demonstration."""
    for prompt in export.prompts():
        replies, left_out = imitable(prompt.matchups, export.dataset.filters["min_agreement"])
        export.dropped.update(left_out)
        for text in replies:
            yield {"messages": [*prompt.messages, {"role": "assistant", "content": text}]}


FORMAT = Format(
    name="trl-sft",
    sentence="TRL conversations to imitate: what people wrote, and the replies they chose.",
    rows=rows,
    dropped=dropped_by_filters,
)
