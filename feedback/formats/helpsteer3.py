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

from feedback.database.engine import Database
from feedback.formats.base.format import Export, Format, Row, dropped_by_filters
from feedback.formats.base.importing import IMPORTED, Incoming, LeftOut, Refused, ignored, messages_of, read_votes
from feedback.formats.base.pairwise import PairOfReplies, judged_pairs
from feedback.types import Verdict

UNSAID_STRENGTH = 2
_READ = ("domain", "language", "context", "response1", "response2", "overall_preference", "individual_preference")
_SIGNS = {Verdict.first: -1, Verdict.second: 1, Verdict.tie: 0}


def rows(export: Export) -> Iterator[Row]:
    """One object per two replies that somebody compared."""
    for prompt in export.prompts():
        for pair in judged_pairs(prompt, export):
            said = list(_preferences(pair, export))
            if said:
                yield {
                    "domain": _said_of(pair, "domain") or _domain(prompt.tags),
                    "language": _said_of(pair, "language") or "unknown",
                    "context": prompt.messages,
                    "response1": pair.texts[0],
                    "response2": pair.texts[1],
                    "overall_preference": _rounded(sum(one["score"] for one in said) / len(said)),
                    "individual_preference": said,
                }


def _domain(tags: list[str]) -> str:
    return next((tag for tag in reversed(tags) if tag != IMPORTED), "general")


def _said_of(pair: PairOfReplies, name: str) -> str | None:
    """What the file that a vote came from said of the whole pair."""
    return next((vote.origin[name] for _, vote in pair.votes if vote.origin and vote.origin.get(name)), None)


def _preferences(pair: PairOfReplies, export: Export) -> Iterator[Row]:
    for (verdict, vote), is_swapped in zip(pair.votes, pair.is_swapped, strict=True):
        if verdict not in _SIGNS:
            export.dropped[verdict.value] += 1
            continue
        yield {
            "score": _SIGNS[verdict] * (vote.strength or UNSAID_STRENGTH),
            "reasoning": vote.rationale or "",
            # The file that a vote came from counted its responses in the order they were shown in.
            "feedback1": (vote.origin or {}).get("feedback2" if is_swapped else "feedback1", ""),
            "feedback2": (vote.origin or {}).get("feedback1" if is_swapped else "feedback2", ""),
        }


def _rounded(mean: float) -> int:
    return int(math.copysign(math.floor(abs(mean) + 0.5), mean))


def read(db: Database, path: Path) -> dict[str, int]:
    """Every individual preference as an imported judgment; without any, the overall one."""
    return read_votes(db, path, _incoming, known=_READ)


def _incoming(fields: Row) -> list[Incoming]:
    context = fields["context"]
    messages = [{"role": "user", "content": context}] if isinstance(context, str) else messages_of(context, "context")
    replies = (fields["response1"], fields["response2"])
    if not all(isinstance(reply, str) for reply in replies):
        raise Refused("response1 and response2 must be texts")
    said: list[dict[str, Any]] = fields.get("individual_preference") or [{"score": fields["overall_preference"]}]
    votes = []
    about = {name: fields[name] for name in ("domain", "language") if fields.get(name)}
    if not isinstance(said, list) or not all(isinstance(one, dict) for one in said):
        raise Refused(f"individual_preference must be a list of objects, not {said!r:.80}")
    for number, one in enumerate(said, start=1):
        written = {name: one[name] for name in ("feedback1", "feedback2") if one.get(name)}
        score = _score(one["score"])
        verdict = Verdict.tie if score == 0 else Verdict.first if score < 0 else Verdict.second
        votes.append(
            Incoming(
                messages,
                replies,
                verdict,
                strength=abs(score) or None,
                annotator=f"{IMPORTED}-{number}",
                rationale=one.get("reasoning") or None,
                origin=about | written or None,
                counted=ignored(one, ("score", "reasoning", "feedback1", "feedback2")),
            )
        )
    if not votes:
        raise LeftOut("no_preference")
    return votes


def _score(given: Any) -> int:
    """A score as it was given, or as a table wrote it that knows no whole numbers (2.0)."""
    if isinstance(given, bool) or not isinstance(given, int | float) or given not in range(-3, 4):
        raise Refused(f"score must be a whole number from -3 to 3, not {given!r}")
    return int(given)


FORMAT = Format(
    name="helpsteer3",
    sentence="Two responses with every annotator's preference from -3 to 3, as in HelpSteer3.",
    rows=rows,
    read=read,
    dropped=dropped_by_filters,
)
