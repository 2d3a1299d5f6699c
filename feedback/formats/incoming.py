"""What a line of an outside file says: replies to a conversation and a vote on them, on its way into the store.

Two things can be wrong with a line. One that cannot be understood (``Refused``) refuses the whole file with its
number and the reason, and nothing is imported. One that is understood but says nothing a judgment can hold
(``LeftOut``: identical replies, an empty reply, no preference) is passed over and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from feedback.containers import read_objects
from feedback.db import Database
from feedback.errors import InvalidLine
from feedback.store.exports import Messages
from feedback.store.imports import ImportedVote, save_votes
from feedback.store.rows import reason_of
from feedback.types import Conversation, Verdict

IMPORTED = "imported"
"""Who judged, and which policy replied, where a file does not say."""


@dataclass(frozen=True)
class Incoming:
    """One vote as a file tells it; ``verdict`` is of the two replies in the order they stand here."""

    messages: Messages
    replies: tuple[str, str]
    verdict: Verdict = Verdict.first
    strength: int | None = None
    policies: tuple[str, str] = (IMPORTED, IMPORTED)
    annotator: str = IMPORTED
    rationale: str | None = None
    skip_reason: str | None = None
    at: datetime | None = None
    # The file's own id of this vote: one the store already has under this id is not stored again.
    key: str = ""


class Refused(ValueError):
    """The line cannot be understood; the text is the reason."""


class LeftOut(Exception):
    """The line is understood, but holds nothing to store; the text is the reason it is counted under."""


Reader = Callable[[dict[str, Any]], Incoming | Iterable[Incoming]]
Numbered = Iterable[tuple[int, dict[str, Any]]]


def read_votes(db: Database, path: Path, reader: Reader) -> dict[str, int]:
    """Store the votes of a file, all or none; gives counts of what was new, known already and left out.

    Raises InvalidLine with the number of the first line that cannot be understood.
    """
    left_out: Counter[str] = Counter()
    counts = save_votes(db, path.name, _votes(path.name, read_objects(path), reader, left_out))
    return {**counts, **left_out}


def replies_after(prompt: Any, chosen: Any, rejected: Any) -> Incoming:
    """The first reply preferred to the second, after a prompt that is a text, messages, or part of both (None)."""
    if prompt is None:
        before, better = _parted(chosen, "chosen")
        other, worse = _parted(rejected, "rejected")
        if before != other:
            raise LeftOut("different_conversations")
        return Incoming(before, (better, worse))
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else messages_of(prompt, "prompt")
    return Incoming(messages, (_reply(chosen, "chosen"), _reply(rejected, "rejected")))


def _votes(name: str, lines: Numbered, reader: Reader, left_out: Counter[str]) -> Iterator[tuple[int, ImportedVote]]:
    for number, fields in lines:
        try:
            read = reader(fields)
            for incoming in [read] if isinstance(read, Incoming) else read:
                reason = _nothing_in(incoming)
                if reason:
                    left_out[reason] += 1
                else:
                    yield number, _checked(incoming)
        except LeftOut as nothing:
            left_out[str(nothing)] += 1
        except KeyError as error:
            known = ", ".join(map(str, fields)) or "none"
            raise InvalidLine(name, number, f"{error.args[0]!r} is missing (there: {known})") from error
        except ValidationError as error:
            raise InvalidLine(name, number, reason_of(error)) from error
        except (Refused, TypeError, AttributeError) as error:
            reason = str(error) if isinstance(error, Refused) else f"not of this format ({error})"
            raise InvalidLine(name, number, reason) from error


def _nothing_in(incoming: Incoming) -> str | None:
    """Why a vote that was understood is not worth storing, or None."""
    if any(not text.strip() for text in (*incoming.replies, *(turn["content"] for turn in incoming.messages))):
        return "empty"
    if incoming.replies[0] == incoming.replies[1]:
        return "identical"
    return None


def _checked(incoming: Incoming) -> ImportedVote:
    messages = Conversation.model_validate({"messages": incoming.messages}).plain()
    return ImportedVote(**{**vars(incoming), "messages": messages})


def _parted(conversation: Any, column: str) -> tuple[Messages, str]:
    """A conversation as what was asked and the last reply."""
    if isinstance(conversation, str):
        raise Refused(f"there is no 'prompt', so {column} must hold the whole conversation as messages")
    messages = messages_of(conversation, column)
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise Refused(f"{column} must end with a message of the assistant after one of the user")
    return messages[:-1], messages[-1]["content"]


def _reply(value: Any, column: str) -> str:
    if isinstance(value, str):
        return value
    messages = messages_of(value, column)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Refused(f"{column} must be one message of the assistant")
    return messages[0]["content"]


def messages_of(value: Any, column: str) -> Messages:
    """Plain messages, with nothing but role and content; other keys, as names, are passed over."""
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise Refused(f"{column} must be a text or a list of messages with role and content")
    for turn in value:
        if not isinstance(turn.get("role"), str) or not isinstance(turn.get("content"), str):
            raise Refused(f"{column} has a message without a role and a content in words")
    return [{"role": turn["role"], "content": turn["content"]} for turn in value]
