"""How values become rows and keys become rows, for every noun alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from sqlmodel import Session, SQLModel, col, select

from feedback.errors import Conflict, InvalidInput, NotFound, StudioError
from feedback.types import reject_unstorable_values

_TOO_LARGE = 2**63  # what a column of whole numbers ends before

RowT = TypeVar("RowT", bound=SQLModel)


def as_row(table: type[RowT], value: SQLModel, **identity: Any) -> RowT:
    """A validated row of ``table`` from a value; ``identity`` sets columns the value does not have, as its id.

    Raises InvalidInput with the first reason when the value does not hold its own rules.
    """
    try:
        return table.model_validate({**value.model_dump(), **identity})
    except ValidationError as error:
        raise InvalidInput(reason_of(error)) from error


def value_of(kind: type[RowT], **fields: Any) -> RowT:
    """A validated value from what a person gave; InvalidInput with the first reason when it breaks its own rules."""
    try:
        return kind(**fields)
    except ValidationError as error:
        raise InvalidInput(reason_of(error)) from error


def record(table: type[RowT], found: Sequence[Any], start: int = 0) -> RowT:
    """A row to read from, of the columns of a result that begin at ``start``; it belongs to no session.

    Many times cheaper than the table's own constructor, which tracks every attribute for a later write.
    """
    columns = table.__table__.columns.keys()  # type: ignore[attr-defined]
    return cast(RowT, SimpleNamespace(**dict(zip(columns, found[start : start + len(columns)], strict=True))))


def reason_of(error: ValidationError) -> str:
    """The first complaint of a validation error, in words: ``field: reason``."""
    first = error.errors(include_url=False)[0]
    # What one validator hands to another is named twice: messages.messages.0.content
    where = ".".join(part for part, _ in groupby(map(str, first["loc"])))
    text = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def check_keepable(row: SQLModel, noun: str) -> None:
    """Raise InvalidInput for a row with a value that no database or export can hold, in whatever column it stands."""
    try:
        for name, value in row.model_dump().items():
            _check_value(value, f"{noun}.{name}")
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    try:
        row.model_dump(mode="json")  # as it would leave again; pydantic writes no more than some 250 levels
    except ValueError as error:
        raise InvalidInput(f"{noun} is nested too deeply") from error


def _check_value(value: Any, what: str) -> None:
    reject_unstorable_values(value, what)
    if isinstance(value, int) and not -_TOO_LARGE <= value < _TOO_LARGE:
        raise ValueError(f"{what} is a larger number than any database can hold")
    if isinstance(value, datetime):
        try:
            value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{what} lies outside the years 1 to 9999 in UTC") from None


def refusal(session: Session, row: SQLModel, noun: str, references: Mapping[str, type[SQLModel]]) -> StudioError:
    """Why the database refused a named row: its name is taken, or it refers to something that is not there.

    ``references`` maps the columns that refer to other tables to those tables.
    """
    table, name = type(row), row.name  # type: ignore[attr-defined]
    if session.exec(select(table).where(table.name == name)).first() is not None:  # type: ignore[attr-defined]
        return Conflict(f"There is already a {noun} {name!r}; choose another name.")
    for column, other in references.items():
        key = getattr(row, column)
        if key is not None and session.get(other, key) is None:
            return InvalidInput(f"The {noun} {name!r} cannot be saved: its {column} {key!r} is not there.")
    return InvalidInput(f"The {noun} {name!r} cannot be saved: the database refuses it.")


def get_by_key(session: Session, table: type[RowT], noun: str, key: str, *, hint: str = "") -> RowT:
    """The row whose id, or else whose unique name, is ``key``; NotFound lists the known names."""
    row = session.get(table, key)
    if row is None and hasattr(table, "name"):
        row = session.exec(select(table).where(table.name == key)).first()  # type: ignore[attr-defined]
    if row is None:
        raise NotFound(noun, key, _names(session, table), hint)
    return row


def _names(session: Session, table: type[SQLModel]) -> list[str]:
    if not hasattr(table, "name"):
        return []
    newest = table.created_at.desc()  # type: ignore[attr-defined]
    shown = table.name.not_like(".%")  # type: ignore[attr-defined]  # a name with a point in front is no person's
    return list(session.exec(select(table.name).where(shown).order_by(newest).limit(9)))  # type: ignore[attr-defined]


def rows_by_id(session: Session, table: type[RowT], ids: Iterable[str]) -> dict[str, RowT]:
    """The rows with these ids, each under its id; an id may be asked for more than once."""
    key = col(table.id)  # type: ignore[attr-defined]
    rows = in_chunks(list(dict.fromkeys(ids)), lambda part: list(session.exec(select(table).where(key.in_(part)))))
    return {row.id: row for row in rows}


def in_chunks(values: list[Any], query: Callable[[list[Any]], list[Any]], size: int = 500) -> list[Any]:
    """``query`` over slices of ``values``: a database takes only so many parameters in one statement."""
    found: list[Any] = []
    for start in range(0, len(values), size):
        found.extend(query(values[start : start + size]))
    return found
