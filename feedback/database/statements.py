"""Compiled statements: SQL that runs with every vote, compiled once and then handed to the driver directly.

SQLAlchemy's own execution costs several times what SQLite needs for such a statement. The SQL of a dialect and the
conversion of values do not change from call to call, so they are computed once.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BindParameter, Connection, Dialect, Insert, Select
from sqlalchemy.sql import Executable, visitors
from sqlalchemy.types import TypeEngine

from feedback.database.engine import send

# Gives one parameter of a statement from the values of a call.
_Getter = Callable[[Mapping[str, Any]], Any]
_Processor = Callable[[Any], Any]


class CompiledStatement:
    """A statement whose values are its named parameters or, for an insert, its columns."""

    def __init__(self, statement: Executable) -> None:
        self._statement = visitors.cloned_traverse(statement, {}, {"bindparam": _spell_out})  # type: ignore[call-overload]
        self._lists = [
            part.key
            for part in visitors.iterate(statement)  # type: ignore[arg-type]
            if isinstance(part, BindParameter) and part.expanding and part.required
        ]
        self._plans: dict[tuple[Any, ...], _Plan] = {}

    def all(self, connection: Connection, **values: Any) -> list[Any]:
        """Run the statement in the open transaction and return its rows, each a named tuple."""
        shape = (connection.dialect.name, *values, *(len(values[name]) for name in self._lists))
        plan = self._plans.get(shape)
        if plan is None:
            plan = self._plans[shape] = _Plan(self._statement, connection.dialect, values)
        return plan.run(connection, values)

    def first(self, connection: Connection, **values: Any) -> Any:
        """Return the first row, or None; for statements with few rows, because all of them are read."""
        found = self.all(connection, **values)
        return found[0] if found else None


class _Plan:
    """A statement for one dialect and one set of values: its SQL, and how values are written and rows read."""

    def __init__(self, statement: Any, dialect: Dialect, values: Mapping[str, Any]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(values) if _is_insert(statement) else None)
        expanded = compiled.construct_expanded_state(dict(values))
        writing = {name: _writing(bind.type, dialect) for name, bind in compiled.binds.items()} | expanded.processors
        parts = {
            part: (name, at) for name, all_ in expanded.parameter_expansion.items() for at, part in enumerate(all_)
        }

        def getter(name: str) -> _Getter:
            source, place = parts.get(name, (name, None))
            write = writing.get(name)
            if source in values:
                return _given(source, place, write)
            fixed = expanded.parameters[name]
            return _always(fixed if write is None else write(fixed))

        self._sql = expanded.statement
        self._names = None if expanded.positiontup else list(expanded.parameters)
        self._getters = [getter(name) for name in expanded.positiontup or expanded.parameters]
        columns = list(statement.selected_columns) if isinstance(statement, Select) else []
        found: Any = namedtuple("Found", [column.key for column in columns], rename=True)  # type: ignore[misc]
        self._found = found._make
        reading = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self._reading = [(place, read) for place, read in enumerate(reading) if read is not None]

    def run(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Run it with these values, past SQLAlchemy."""
        written: Any = [get(values) for get in self._getters]
        if self._names is not None:
            written = dict(zip(self._names, written, strict=True))
        return [self._row(found) for found in send(connection, self._sql, written)]

    def _row(self, found: Any) -> Any:
        values = list(found)
        for place, read in self._reading:
            values[place] = read(values[place])
        return self._found(values)


def _spell_out(part: BindParameter[Any]) -> None:
    """Write what is the same in every call into the SQL.

    SQLite puts a statement together anew for every call that binds a value which may decide whether a partial index
    can be used, as the one of live leases for ``state = ?``.
    """
    part.literal_execute = not part.required


def _is_insert(statement: Any) -> bool:
    return isinstance(statement, Insert)


def _writing(kind: TypeEngine[Any], dialect: Dialect) -> _Processor | None:
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _given(name: str, place: int | None, write: _Processor | None) -> _Getter:
    if place is not None:
        return lambda values: write(values[name][place]) if write else values[name][place]
    return (lambda values: write(values[name])) if write else (lambda values: values[name])


def _always(fixed: Any) -> _Getter:
    return lambda _values: fixed
