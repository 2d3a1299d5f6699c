"""What a line of an outside file says: replies to a conversation and a vote on them, on its way into the store.

Two things can be wrong with a line. One that cannot be understood (``Refused``) refuses the whole file with its
number and the reason, and nothing is imported. One that is understood but says nothing a judgment can hold
(``LeftOut``: identical replies, an empty reply, no preference) is passed over and counted. So is every column that
nothing here reads, and what a message holds beside its role and its text (calls of tools, names, thoughts in a key of
their own): what an import drops is in its counts, as ``ignored_COLUMN``, and ``ignored_message.KEY`` once per line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from feedback.database.engine import Database
from feedback.errors import InvalidLine
from feedback.packed_files import read_objects
from feedback.store.datasets.exports import Messages
from feedback.store.rows import reason_of
from feedback.store.transfer.imports import ImportedVote, save_votes
from feedback.types import Conversation, Verdict, content_hash

IMPORTED = "imported"
"""Who judged, and which policy replied, where a file does not say."""
_IGNORED = "ignored_"
_LONGEST_REASON = 60  # characters of a column's name in the counts
_MOST_COLUMNS = 20


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
    # What the file says of the vote beyond this, kept with the judgment for those who export it again.
    origin: dict[str, Any] | None = None
    # Counted with the import: ``ignored_COLUMN`` for what is not kept, and what is odd about the vote.
    counted: tuple[str, ...] = ()


class Refused(ValueError):
    """The line cannot be understood; the text is the reason."""


class LeftOut(Exception):
    """The line is understood, but holds nothing to store; the text is the reason it is counted under."""


@dataclass(frozen=True)
class Passed:
    """One of the votes of a line that holds nothing to store; the others are stored. ``reason`` as of ``LeftOut``."""

    reason: str


Reader = Callable[[dict[str, Any]], Incoming | Iterable[Incoming | Passed]]
Numbered = Iterable[tuple[int, dict[str, Any]]]


def read_votes(db: Database, path: Path, reader: Reader, known: Collection[str] | None = None) -> dict[str, int]:
    """Store the votes of a file, all or none; gives counts of what was new, known already and left out.

    ``known`` are the columns that ``reader`` looks at; values in any other are counted as ignored. None: the reader
    counts them itself.
    Raises InvalidLine with the number of the first line that cannot be understood.
    """
    left_out: Counter[str] = Counter()

    def read(fields: dict[str, Any]) -> Iterator[Incoming | Passed]:
        if known is not None:
            left_out.update(ignored(fields, known))
        left_out.update(sorted(_ignored_in_messages(fields.values())))
        found = reader(fields)
        yield from [found] if isinstance(found, Incoming) else found

    counts = save_votes(db, path.name, _votes(path.name, read_objects(path), read, left_out))
    return {**counts, **_shortened(left_out)}


def ignored(fields: Mapping[str, Any], known: Collection[str], prefix: str = "") -> tuple[str, ...]:
    """What to count of the columns that hold something and that nothing reads."""
    return tuple(
        f"{_IGNORED}{prefix}{name}"[:_LONGEST_REASON]
        for name, value in fields.items()
        if name not in known and value not in (None, "", [], {})
    )


def _ignored_in_messages(values: Iterable[Any]) -> set[str]:
    """What to count of the messages anywhere in these values."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, dict):
            found.update(_ignored_in_messages(value.values()))
        elif isinstance(value, list) and all(isinstance(turn, dict) and "role" in turn for turn in value):
            found.update(*(ignored(turn, ("role", "content"), "message.") for turn in value))
    return found


def said_first(fields: Mapping[str, Any], *names: str) -> Any:
    """The first of these columns that says anything, also where it says 0; None where none does."""
    return next((value for name in names if (value := fields.get(name)) not in (None, "", [], {})), None)


def short_name(name: str) -> str:
    """A judge's name of at most 80 characters; of a longer one the rest is told apart by its hash."""
    return name if len(name) <= 80 else f"{name[:70]}-{content_hash(name)[:9]}"


def _shortened(counts: Counter[str]) -> dict[str, int]:
    """The counts in order of their names; where a file has very many columns, most are counted as one."""
    columns = [name for name, _ in counts.most_common() if name.startswith(_IGNORED)]
    for name in columns[_MOST_COLUMNS:]:
        counts[f"{_IGNORED}others"] += counts.pop(name)
    return dict(sorted(counts.items()))


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


def _votes(
    name: str,
    lines: Numbered,
    reader: Callable[[dict[str, Any]], Iterator[Incoming | Passed]],
    left_out: Counter[str],
) -> Iterator[tuple[int, ImportedVote]]:
    for number, fields in lines:
        try:
            for incoming in reader(fields):
                reason = incoming.reason if isinstance(incoming, Passed) else _nothing_in(incoming)
                if reason:
                    left_out[reason] += 1
                elif isinstance(incoming, Incoming):
                    left_out.update(incoming.counted)
                    yield number, _checked(incoming)
        except LeftOut as nothing:
            left_out[str(nothing)] += 1
        except KeyError as error:
            known = ", ".join(map(str, fields)) or "none"
            raise InvalidLine(name, number, f"{error.args[0]!r} is missing (there: {known})") from error
        except ValidationError as error:
            raise InvalidLine(name, number, reason_of(error)) from error
        except (Refused, TypeError, AttributeError) as error:
            reason = str(error) if isinstance(error, Refused) else f"not of this format (there: {_kinds_in(fields)})"
            raise InvalidLine(name, number, reason) from error


_KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


def _kinds_in(fields: Mapping[str, Any]) -> str:
    """The columns of a line with the kinds of their values, as people call them."""
    return ", ".join(f"{name} is {_KINDS.get(type(value), 'null')}" for name, value in fields.items()) or "nothing"


def _nothing_in(incoming: Incoming) -> str | None:
    """Why a vote that was understood is not worth storing, or None."""
    if any(not text.strip() for text in (*incoming.replies, *(turn["content"] for turn in incoming.messages))):
        return "empty"
    if incoming.replies[0] == incoming.replies[1]:
        return "identical"
    return None


def _checked(incoming: Incoming) -> ImportedVote:
    messages = Conversation.model_validate({"messages": incoming.messages}).plain()
    said = {name: value for name, value in vars(incoming).items() if name != "counted"}
    return ImportedVote(**{**said, "messages": messages})


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
    """Plain messages, with nothing but role and content; other keys are counted by ``read_votes``.

    A content in parts is their text. Raises LeftOut for parts that are none, as pictures.
    """
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise Refused(f"{column} must be a text or a list of messages with role and content")
    messages = [{"role": turn.get("role"), "content": _text_of(turn.get("content"))} for turn in value]
    if not all(isinstance(part, str) for turn in messages for part in turn.values()):
        raise Refused(f"{column} has a message without a role and a content in words")
    return messages


def _text_of(content: Any) -> Any:
    """The text of a content in parts; anything else as it is."""
    if not isinstance(content, list) or not content or not all(isinstance(part, dict) for part in content):
        return content
    if not all(part.get("type", "text") == "text" and isinstance(part.get("text"), str) for part in content):
        raise LeftOut("not_text")
    return "".join(part["text"] for part in content)
