"""Does every stored value belong where it lies? SQLite keeps whatever it is given, and a disk or a hand may change it.

The checks are SQL, one pass over each table: the kind of each value, the shape of what is kept as JSON, the members of
the enumerations, and the rows that a list of ids names. PostgreSQL looks after the kinds itself.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from sqlalchemy import JSON, Boolean, DateTime, Float, Integer, LargeBinary, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import KeyedColumnElement
from sqlmodel import SQLModel

from feedback.column_types import EnumText, Moment
from feedback.database.engine import Database
from feedback.errors import RESTORE_HINT, DatabaseDamaged
from feedback.migrations import current_revision, newest_revision

MET_ON_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, SQLAlchemyError)
"""What code meets that reads a value which is not what it should be."""

_JSON_TYPES = {list: "array", dict: "object", str: "text"}
_MESSAGES = (
    "SELECT prompt.id FROM prompt, json_each(prompt.messages) turn WHERE turn.type != 'object' "
    "OR json_type(turn.value, '$.role') IS NOT 'text' OR json_type(turn.value, '$.content') IS NOT 'text' LIMIT 1"
)
_REPLIES = (
    "SELECT matchup.id, reply.value FROM matchup, json_each(matchup.generation_ids) reply "
    "WHERE NOT EXISTS (SELECT 1 FROM generation WHERE generation.id = reply.value) LIMIT 1"
)


def check_values(db: Database) -> str:
    """``ok``, or the first value that does not belong where it lies, by its table, row and column.

    A database of an earlier release is not looked at: its columns are others.
    """
    if not db.is_sqlite or current_revision(db.engine) != newest_revision():
        return "ok"
    with db.reading() as connection:
        for mapper in sorted(SQLModel._sa_registry.mappers, key=lambda one: str(one.local_table)):
            found = connection.execute(text(_first_wrong(mapper))).first()
            if found is not None:
                return f"{found[1]} of the {mapper.local_table} {found[0]} is not what belongs there ({found[2]})"
        if (found := connection.execute(text(_MESSAGES)).first()) is not None:
            return f"messages of the prompt {found[0]} are not what belongs there"
        if (found := connection.execute(text(_REPLIES)).first()) is not None:
            return f"the matchup {found[0]} names the generation {found[1]!r}, which is not there"
    return "ok"


def require_values(db: Database) -> None:
    """Raise DatabaseDamaged where a value does not belong where it lies."""
    if (found := check_values(db)) != "ok":
        raise DatabaseDamaged(found, RESTORE_HINT)


def _first_wrong(mapper: Mapper[Any]) -> str:
    """A query for the key of a row, the name of a column and the beginning of its value, where that is wrong."""
    names, shown = list[str](), list[str]()
    for column, is_right in _rules(mapper):
        nullable = f"{_quoted(column)} IS NULL OR " if column.nullable else ""
        is_wrong = f"WHEN NOT coalesce({nullable}{is_right}, 0) THEN"
        names.append(f"{is_wrong} '{column.name}'")
        shown.append(f"{is_wrong} substr(quote({_quoted(column)}), 1, 40)")
    key = _quoted(next(iter(mapper.local_table.primary_key.columns)))  # type: ignore[attr-defined]
    return (
        f"SELECT * FROM (SELECT {key}, CASE {' '.join(names)} END AS wrong, CASE {' '.join(shown)} END "
        f'FROM "{mapper.local_table}") WHERE wrong IS NOT NULL LIMIT 1'
    )


def _rules(mapper: Mapper[Any]) -> Iterator[tuple[KeyedColumnElement[Any], str]]:
    """Each column with the condition that its values hold."""
    for column in mapper.local_table.columns:
        name, kind = _quoted(column), column.type
        if isinstance(kind, EnumText):
            yield column, f"{name} IN ({', '.join(repr(member.value) for member in kind.members)})"
        elif isinstance(kind, Moment | DateTime):
            yield column, f"typeof({name}) = 'text' AND julianday(substr({name}, 1, 19)) IS NOT NULL"
        elif isinstance(kind, JSON):
            yield column, _json_rule(name, mapper.class_.model_fields[column.key].annotation)
        else:
            yield column, f"typeof({name}) IN ({_storage_of(kind)})"


def _storage_of(kind: Any) -> str:
    """How SQLite stores the values of a column's type."""
    if isinstance(kind, Integer | Boolean):
        return "'integer'"
    if isinstance(kind, Float):
        return "'real', 'integer'"
    return "'blob'" if isinstance(kind, LargeBinary) else "'text'"


def _json_rule(name: str, annotation: Any) -> str:
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kinds = {_JSON_TYPES.get(typing.get_origin(part) or part) for part in parts if part is not types.NoneType}
    # Python writes and reads numbers as NaN, which are no JSON.
    numbers = f"replace(replace(replace({name}, '-Infinity', '0'), 'Infinity', '0'), 'NaN', '0')"
    valid = f"typeof({name}) = 'text' AND json_valid({numbers})"
    if None in kinds:
        return valid
    valid_kinds = {*kinds, "null"} if types.NoneType in parts else kinds
    listed = ", ".join(f"'{kind}'" for kind in sorted(filter(None, valid_kinds)))
    return f"CASE WHEN {valid} THEN json_type({numbers}) IN ({listed}) END"


def _quoted(column: KeyedColumnElement[Any]) -> str:
    return f'"{column.table}"."{column.name}"'
