"""The format of arena battles: two models, two whole conversations, a winner.

One object per vote, ``a`` being the reply that stood on the left. ``tie`` and ``tie (bothbad)`` stay apart; when
reading, ``both_bad`` and ``bothbad`` are understood as well. Judges are numbered, not named. ``question_id`` is the
judgment's id, so a file that comes back to the studio it left adds nothing; a vote that was imported keeps the one it
had, beside a ``judgment_id``. A ranking is written as its pairs.

Read are FastChat's battles and the sets of LMArena: ``judge`` or ``judge_hash``, ``tstamp`` or ``timestamp``, ``id``
for ``question_id``, and contents in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feedback.database.engine import Database
from feedback.formats.base.format import Export, Format, Row, dropped_by_filters
from feedback.formats.base.importing import (
    IMPORTED,
    Incoming,
    LeftOut,
    Refused,
    messages_of,
    read_votes,
    said_first,
    short_name,
)
from feedback.formats.base.pairwise import judged_pairs
from feedback.store.datasets.exports import list_dataset_annotators
from feedback.types import Verdict

_SIDES = {Verdict.first: ("model_a", "model_b"), Verdict.second: ("model_b", "model_a")}
_NEITHER = {Verdict.tie: "tie", Verdict.both_bad: "tie (bothbad)"}
_READ = (
    *("question_id", "id", "judgment_id", "model_a", "model_b", "winner", "judge", "judge_hash"),
    *("conversation_a", "conversation_b", "turn", "anony", "language", "tstamp", "timestamp"),
)
# A moment is seconds up to here (the year 5138), and milliseconds from here on.
_MILLISECONDS = 1e11
_WINNERS = {
    "model_a": Verdict.first,
    "model_b": Verdict.second,
    "tie": Verdict.tie,
    "tie (bothbad)": Verdict.both_bad,
    "both_bad": Verdict.both_bad,
    "bothbad": Verdict.both_bad,
}


def rows(export: Export) -> Iterator[Row]:
    """One object per vote on two replies; skips are left out."""
    judges = {name: f"judge_{i}" for i, name in enumerate(list_dataset_annotators(export.db, export.dataset.id), 1)}
    for prompt in export.prompts():
        turns = sum(message["role"] == "user" for message in prompt.messages)
        for pair in judged_pairs(prompt, export):
            for (verdict, vote), is_swapped in zip(pair.votes, pair.is_swapped, strict=True):
                if verdict is Verdict.skip:
                    export.dropped["skip"] += 1
                    continue
                left, right = (1, 0) if is_swapped else (0, 1)
                winner = _NEITHER[verdict] if verdict in _NEITHER else _SIDES[verdict][left]
                said = [[*prompt.messages, {"role": "assistant", "content": text}] for text in pair.texts]
                known = vote.origin or {}
                own_id = vote.id if vote.ranking is None else f"{vote.id}.{pair.id.partition('.')[2]}"
                yield {
                    "question_id": known.get("question_id", own_id),
                    "model_a": pair.policies[left],
                    "model_b": pair.policies[right],
                    "winner": winner,
                    "judge": judges[vote.annotator],
                    "conversation_a": said[left],
                    "conversation_b": said[right],
                    "turn": turns,
                    "anony": known.get("anony", True),
                    "language": known.get("language", "unknown"),
                    "tstamp": vote.at.timestamp(),
                } | ({"judgment_id": own_id} if "question_id" in known else {})


def read(db: Database, path: Path) -> dict[str, int]:
    """Battles as imported judgments; those whose conversations part before the last turn are left out and counted."""
    return read_votes(db, path, _incoming, known=_READ)


def _incoming(fields: Row) -> Incoming:
    winner = fields["winner"]
    if not isinstance(winner, str) or winner not in _WINNERS:
        raise Refused(f"winner must be one of {', '.join(_WINNERS)}, not {winner!r}")
    one = messages_of(fields["conversation_a"], "conversation_a")
    other = messages_of(fields["conversation_b"], "conversation_b")
    if not one or not other or one[-1]["role"] != "assistant" or other[-1]["role"] != "assistant":
        raise Refused("conversation_a and conversation_b must end with a message of the assistant")
    if one[:-1] != other[:-1]:
        raise LeftOut("different_conversations")
    return Incoming(
        one[:-1],
        (one[-1]["content"], other[-1]["content"]),
        _WINNERS[winner],
        policies=(_model(fields["model_a"]), _model(fields["model_b"])),
        annotator=short_name(_text(said_first(fields, "judge", "judge_hash"), IMPORTED)),
        at=_moment(said_first(fields, "tstamp", "timestamp")),
        key=_key(fields),
        origin=_origin(fields),
    )


def _model(named: Any) -> str:
    return _text(None if named == "" else named, IMPORTED)


def _text(value: Any, unsaid: str) -> str:
    return unsaid if value is None else str(value)


def _key(fields: Row) -> str:
    return _text(said_first(fields, "judgment_id", "question_id", "id"), "")


def _origin(fields: Row) -> dict[str, Any] | None:
    """What a battle says that a judgment does not, where it is more than an export from here would say."""
    said = {
        "question_id": said_first(fields, "question_id", "id"),
        "anony": fields.get("anony"),
        "language": fields.get("language"),
        "judge_hash": fields.get("judge_hash"),
    }
    usual = (
        ("anony", True),
        ("language", "unknown"),
        ("question_id", said_first(fields, "judgment_id") or _own_id(fields)),
    )
    return {name: value for name, value in said.items() if value is not None and (name, value) not in usual} or None


def _own_id(fields: Row) -> str | None:
    """The id of a battle that left a studio without another one."""
    given = fields.get("question_id")
    return given if isinstance(given, str) and given.startswith("jud-") else None


def _moment(stamp: Any) -> datetime | None:
    if stamp is None:
        return None
    if isinstance(stamp, bool) or not isinstance(stamp, int | float | str):
        raise Refused(f"tstamp must be seconds since 1970, not {stamp!r}")
    try:
        if isinstance(stamp, str):
            written = datetime.fromisoformat(stamp)
            return written.astimezone(UTC) if written.tzinfo else written.replace(tzinfo=UTC)
        if abs(stamp) >= _MILLISECONDS:
            stamp /= 1000
        return datetime.fromtimestamp(stamp, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise Refused(f"tstamp must be seconds since 1970, not {stamp!r}") from error


FORMAT = Format(
    name="arena",
    sentence="Battles of two models with a winner, as the chat arenas publish them.",
    rows=rows,
    read=read,
    dropped=dropped_by_filters,
)
