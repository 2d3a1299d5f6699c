"""TRL's fine-tuning format: ``messages`` that end with the reply to imitate. What ``SFTTrainer`` reads.

The replies are the demonstrations: those a person wrote or edited. Where nobody wrote one, it is the reply that won
more pairs than it lost, the best of them if there are several: the reply people chose.
"""

from __future__ import annotations

from collections.abc import Iterator

from feedback.formats.shape import Export, Format, Row, dropped_by_filters
from feedback.formats.trl_kto import standings
from feedback.ranking import edits_of
from feedback.store.exports import PromptRecord


def rows(export: Export) -> Iterator[Row]:
    """One object per demonstration, or one for the chosen reply of a prompt without any."""
    for prompt in export.prompts():
        replies = demonstrations(prompt) or _chosen(prompt)
        if not replies:
            export.dropped["prompt_without_wanted_reply"] += 1
        for text in replies:
            yield {"messages": [*prompt.messages, {"role": "assistant", "content": text}]}


def demonstrations(prompt: PromptRecord) -> list[str]:
    """What people wrote in place of the replies they were shown, each text once."""
    written = (text for matchup in prompt.matchups for _, _, text in edits_of(matchup.votes))
    return list(dict.fromkeys(written))


def _chosen(prompt: PromptRecord) -> list[str]:
    wanted = {text: standing for text, standing in standings(prompt).items() if standing > 0}
    return [max(wanted, key=wanted.__getitem__)] if wanted else []


FORMAT = Format(
    name="trl-sft",
    sentence="TRL conversations to imitate: what people wrote, else the reply they chose.",
    rows=rows,
    dropped=dropped_by_filters,
)
