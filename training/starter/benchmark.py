"""The benchmark of the starter: which of four replies answers the request?

``python -m training.starter.benchmark`` writes its items. Requests and topics are held out of the training corpus;
the four replies have the same style and the same kind of request, so that only the topic tells them apart. Taking the
reply that shares most words with the request gets 90 % right: what a policy scores says whether feedback on style has
cost it the words of what it was asked, not more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any

from feedback.jsonl import dump_line, write_lines
from training.bundled import TASKS_DIR
from training.starter.corpus import requests
from training.starter.text.composition import Draft, compose, draw_style

ITEMS = 600
CHOICES = 4
SEED = 23  # no request set of the prompts that come with a new studio


def items(count: int = ITEMS) -> Iterator[dict[str, Any]]:
    """Requests with four replies each, one of them to the request itself."""
    drafts = list(requests(SEED, count, evaluation=True))
    by_family: dict[str, list[Draft]] = defaultdict(list)
    for draft in drafts:
        by_family[draft.family].append(draft)
    rng = Random(SEED)
    for draft in drafts:
        others = [other for other in by_family[draft.family] if other.topic != draft.topic]
        style = draw_style(rng)
        replies = [compose(one, style, rng)[0] for one in (draft, *rng.sample(others, CHOICES - 1))]
        order = rng.sample(range(CHOICES), CHOICES)
        yield {"request": draft.prompt, "replies": [replies[at] for at in order], "right": order.index(0)}


if __name__ == "__main__":
    write_lines(TASKS_DIR / "starter_topic.jsonl", map(dump_line, items()))
