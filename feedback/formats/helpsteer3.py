"""The HelpSteer3 format: two responses to a context, with every annotator's preference from -3 to 3.

Negative prefers ``response1``, positive ``response2``: 1 slightly, 2 better, 3 much better, 0 equal. A vote without a
strength counts as 2. ``overall_preference`` is the rounded mean of the individual ones, halves away from 0. Both-bad
is no preference here and is left out, since 0 would make a tie of it. A ranking is written as its pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedback.db import Database
from feedback.formats.incoming import IMPORTED, Incoming, LeftOut, Refused, messages_of, read_votes
from feedback.formats.judged import PairOfReplies, judged_pairs
from feedback.formats.shape import Export, Format, Row, dropped_by_filters
from feedback.types import Verdict

UNSAID_STRENGTH = 2
_SIGNS = {Verdict.first: -1, Verdict.second: 1, Verdict.tie: 0}


def rows(export: Export) -> Iterator[Row]:
    """One object per two replies that somebody compared."""
    for prompt in export.prompts():
        for pair in judged_pairs(prompt, export):
            said = list(_preferences(pair, export))
            if said:
                yield {
                    "domain": next((tag for tag in reversed(prompt.tags) if tag != IMPORTED), "general"),
                    "language": "unknown",
                    "context": prompt.messages,
                    "response1": pair.texts[0],
                    "response2": pair.texts[1],
                    "overall_preference": _rounded(sum(one["score"] for one in said) / len(said)),
                    "individual_preference": said,
                }


def _preferences(pair: PairOfReplies, export: Export) -> Iterator[Row]:
    for verdict, vote in pair.votes:
        if verdict not in _SIGNS:
            export.dropped[verdict.value] += 1
            continue
        yield {
            "score": _SIGNS[verdict] * (vote.strength or UNSAID_STRENGTH),
            "reasoning": vote.rationale or "",
            "feedback1": "",
            "feedback2": "",
        }


def _rounded(mean: float) -> int:
    return int(math.copysign(math.floor(abs(mean) + 0.5), mean))


def read(db: Database, path: Path) -> dict[str, int]:
    """Every individual preference as an imported judgment; without any, the overall one."""
    return read_votes(db, path, _incoming)


def _incoming(fields: Row) -> list[Incoming]:
    context = fields["context"]
    messages = [{"role": "user", "content": context}] if isinstance(context, str) else messages_of(context, "context")
    replies = (fields["response1"], fields["response2"])
    if not all(isinstance(reply, str) for reply in replies):
        raise Refused("response1 and response2 must be texts")
    said: list[dict[str, Any]] = fields.get("individual_preference") or [{"score": fields["overall_preference"]}]
    votes = []
    for number, one in enumerate(said, start=1):
        score = one["score"]
        if isinstance(score, bool) or not isinstance(score, int) or not -3 <= score <= 3:
            raise Refused(f"score must be a whole number from -3 to 3, not {score!r}")
        verdict = Verdict.tie if score == 0 else Verdict.first if score < 0 else Verdict.second
        votes.append(
            Incoming(
                messages,
                replies,
                verdict,
                strength=abs(score) or None,
                annotator=f"{IMPORTED}-{number}",
                rationale=one.get("reasoning") or None,
            )
        )
    if not votes:
        raise LeftOut("no_preference")
    return votes


FORMAT = Format(
    name="helpsteer3",
    sentence="Two responses with every annotator's preference from -3 to 3, as in HelpSteer3.",
    rows=rows,
    read=read,
    dropped=dropped_by_filters,
)
