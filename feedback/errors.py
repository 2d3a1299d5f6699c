"""Every error the product raises on purpose. A message names the bad value, the valid ones and the next step.

StudioError                    base; its text is meant for the person who meets it
├── InvalidInput (ValueError)      a value that cannot be accepted
│   ├── InvalidLine                    one line of an imported file; carries the line number
│   └── UnknownSetting                 a setting's name or value is not among the valid ones
├── NotFound (LookupError)         an id or name that nothing answers to
├── Conflict                       the act is valid, but not in this state
│   ├── LeaseLost                      the lease expired, was released or is somebody else's
│   └── HomeInUse                      another studio already serves this home
├── DatabaseUnavailable            the database is locked or cannot be reached for now; try again
├── DatabaseDamaged                the database, or a value in it, cannot be read; a backup is needed
├── NotSignedIn                    nobody is known to be asking, and this studio has users
├── NotAllowed                     the person asking has not the role that the act needs
├── LockedOut                      too many wrong passwords; carries the moment when it ends
├── NotEnoughData                  too few rows to learn or measure anything from
├── CheckpointError                a checkpoint that cannot be written, or must not be loaded
├── Unavailable                    it cannot be done right now; carries when to ask again
├── EndpointFailed                 a server that replies for a policy gave no reply
└── RunEnded                       thrown inside a run to end it at a step boundary
    ├── RunCancelled                   somebody asked for it
    └── RunFailed                      the run found out itself that it cannot go on
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any


class StudioError(Exception):
    """Base of all errors raised on purpose; ``str(error)`` is one sentence a user can act on."""


class InvalidInput(StudioError, ValueError):
    """A value that cannot be accepted; nothing was changed."""


class Item(int):
    """The number of an object in a file that is one array, where the number of a line would say nothing."""


class InvalidLine(InvalidInput):
    """One line or item of an imported file cannot be read; nothing of the file was imported."""

    def __init__(self, source: str, line: int, reason: str) -> None:
        noun = "item" if isinstance(line, Item) else "line"
        super().__init__(f"{source}, {noun} {line}: {reason}. Nothing was imported; mend the {noun} and try again.")
        self.source = source
        self.line = line
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, int, str]]:
        return type(self), (self.source, self.line, self.reason)


class UnknownSetting(InvalidInput):
    """A setting's name is unknown, or its value is out of range."""


class NotFound(StudioError, LookupError):
    """No row answers to this id or name."""

    def __init__(self, noun: str, key: str, valid: Iterable[str] = (), hint: str = "") -> None:
        known = list(valid)
        text = f"There is no {noun} {key!r}."
        if known:
            shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
            text += f" Known: {shown}."
        if hint:
            text += f" {hint}"
        super().__init__(text)
        self.noun = noun
        self.key = key
        self.valid = known
        self.hint = hint

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str], str]]:
        return type(self), (self.noun, self.key, self.valid, self.hint)


class Conflict(StudioError):
    """The act is valid, but not in the present state of what it acts on."""


class LeaseLost(Conflict):
    """The lease expired, was released, or belongs to somebody else; the matchup went back to the pool."""


class HomeInUse(Conflict):
    """Another studio already serves this home directory."""


class Unavailable(StudioError):
    """It cannot be done right now, though nothing is wrong with what was asked.

    ``retry_after`` is how many seconds to wait before the next try.
    """

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (str(self), self.retry_after)


class DatabaseUnavailable(Unavailable):
    """The database is locked or cannot be reached for now. Nothing was saved; the same act may succeed later."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The database is locked or cannot be reached at the moment ({reason}). Nothing was saved; try again."
        )
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.reason,)


class DatabaseDamaged(StudioError):
    """The database, or a value stored in it, cannot be read. ``remedy`` says how to get a sound one."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"The database is damaged: {reason}. {remedy}")
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.reason, self.remedy)


class NotSignedIn(StudioError):
    """Nobody is known to be asking, or no longer: the session ended, the token is unknown, the user is disabled."""


class NotAllowed(StudioError):
    """The person asking has not the role that the act needs; the message names both roles."""


class LockedOut(StudioError):
    """Too many wrong passwords in a row; ``until`` is when the next one is looked at."""

    def __init__(self, message: str, until: datetime) -> None:
        super().__init__(message)
        self.until = until

    def __reduce__(self) -> tuple[type, tuple[str, datetime]]:
        return type(self), (str(self), self.until)


class NotEnoughData(StudioError):
    """Too few rows to learn or measure anything from; the message gives both numbers."""


class CheckpointError(StudioError):
    """A checkpoint could not be written, or must not be loaded (wrong base, missing head, failed probe)."""


class EndpointFailed(StudioError):
    """A server that replies for a policy cannot be reached, refuses, or does not speak the protocol."""


class RunEnded(StudioError):
    """Base of what is thrown inside a run to end it at a step boundary."""


class RunCancelled(RunEnded):
    """Somebody asked for the run to be cancelled."""


class RunFailed(RunEnded):
    """The run found out itself that it cannot go on; the message says why in one sentence."""


RESTORE_HINT = "Stop the studio and put a backup back with `studio restore FILE --force`; `studio doctor` says more."
