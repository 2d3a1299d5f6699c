"""The training corpus: prompt and reply pairs, composed on demand and never stored.

``examples`` is an endless, seeded stream cut at a count. A slice of all (topic, phrasing)
combinations is held out by a hash: no held-out request is ever yielded for training, and the
evaluation prompts are drawn from that slice only.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from training.starter.families import FAMILIES, SMALL_TALK
from training.starter.text.composition import Draft, compose, draw_style
from training.starter.text.grammar import lower_first

HELD_OUT_ONE_IN = 10
SMALL_TALK_SHARE = 0.03
WORD_LIMIT = 70
"""Longest reply in words and marks; keeps every reply within 88 tokens of the vocabulary."""


@dataclass(frozen=True)
class Example:
    """One request with one reply, and the level of each axis that its author intended."""

    prompt: str
    reply: str
    family: str
    topic: str
    person: str | None
    levels: dict[str, float]


def held_out(draft: Draft) -> bool:
    """Whether this combination of topic and phrasing is kept for evaluation."""
    key = f"{draft.family}|{draft.topic}|{draft.phrasing}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:4]) % HELD_OUT_ONE_IN == 0


def examples(seed: int, count: int, *, evaluation: bool = False) -> Iterator[Example]:
    """Yield ``count`` examples; the same seed gives the same examples in the same order."""
    rng = Random(f"starter-{seed}-{evaluation}")
    names = tuple(FAMILIES)
    made = 0
    while made < count:
        family = names[made % len(names)]
        draft = FAMILIES[family](rng)
        if not evaluation and rng.random() < SMALL_TALK_SHARE:
            draft = SMALL_TALK(rng)
        elif held_out(draft) != evaluation:
            continue
        reply, levels = compose(draft, draw_style(rng), rng)
        if length(reply) > WORD_LIMIT:
            continue
        yield Example(_typed(draft.prompt, rng), reply, draft.family, draft.topic, draft.person, levels)
        made += 1


def requests(seed: int, count: int, *, evaluation: bool) -> Iterator[Draft]:
    """Yield requests without replies, families in turn, no prompt text twice."""
    rng = Random(f"requests-{seed}-{evaluation}")
    names = tuple(FAMILIES)
    seen: set[str] = set()
    while len(seen) < count:
        draft = FAMILIES[names[len(seen) % len(names)]](rng)
        if held_out(draft) == evaluation and draft.prompt not in seen:
            seen.add(draft.prompt)
            yield draft


def length(reply: str) -> int:
    """Words plus punctuation marks: close to the number of tokens."""
    return len(reply.split()) + sum(reply.count(mark) for mark in ",.!?;:\"'")


def _typed(prompt: str, rng: Random) -> str:
    """The prompt as people type it: now and then without capital or end mark."""
    if rng.random() < 0.15:
        prompt = prompt.rstrip(".?")
    if rng.random() < 0.12:
        prompt = lower_first(prompt)
    return prompt
