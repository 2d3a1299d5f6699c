"""Column types and ids of the tables: enumerations as text, moments in UTC, ids that can be read aloud."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import DateTime, Dialect, String
from sqlalchemy.types import TypeDecorator

from feedback.errors import RESTORE_HINT, DatabaseDamaged

# No l, o, 0, 1, for ids are read aloud and retyped: 32 characters, which divide the values of a byte evenly.
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def new_id(prefix: str) -> str:
    """A fresh id such as ``run-k3fq8wz2mh7c``: 12 random characters, 60 bits."""
    return f"{prefix}-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in secrets.token_bytes(12))


def id_of(prefix: str, content: str) -> str:
    """The id that always belongs to this content, in the form of ``new_id``: whoever saves it second finds it there."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"{prefix}-" + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:12])


class EnumText(TypeDecorator[StrEnum]):
    """A StrEnum kept as its value in a text column, and given back as the member."""

    impl = String
    cache_ok = True

    def __init__(self, members: type[StrEnum]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: StrEnum | str | None, dialect: Dialect) -> str | None:
        return None if value is None else self.members(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        if value is None:
            return None
        try:
            return self.members(value)
        except ValueError:
            valid = ", ".join(self.members)
            raise DatabaseDamaged(f"{value!r:.40} is stored where one of {valid} belongs", RESTORE_HINT) from None


class Moment(TypeDecorator[datetime]):
    """An aware moment; SQLite drops the zone, so it is written as UTC and given back aware."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
