"""Many rows written in short transactions: read and checked first, then saved chunk by chunk, taken back on failure.

A write transaction keeps every other writer waiting, people's votes included. So nothing slow happens inside one: the
values are first read, checked and kept in a temporary file (``spooled``), and only then written, a chunk at a time
(``save_in_chunks``). A chunk that fails takes back those before it. A process that is killed between two chunks leaves
the chunks before it; saving the same values again completes them.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Any, TypeVar

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col

from feedback.database.engine import Database, one_at_a_time
from feedback.errors import StudioError

T = TypeVar("T")
Added = dict[type[SQLModel], list[str]]
"""The ids of new rows by table, each table after those it refers to."""


@dataclass(frozen=True)
class Saved:
    """What became of one chunk: the rows that are new, and whatever is counted of it."""

    added: Added
    counts: Counter[str]


_IN_MEMORY = 16 * 2**20  # bytes; what is more goes to a file


@contextmanager
def spooled(values: Iterable[T], size: int) -> Iterator[Iterator[list[T]]]:
    """All the values, taken before the block begins, then given back in chunks of ``size``; memory stays bounded.

    Raises StudioError when the temporary file cannot be written, and whatever taking the values raises.
    """
    remaining = iter(values)
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        chunks = 0
        while chunk := list(islice(remaining, size)):
            try:
                pickle.dump(chunk, file, pickle.HIGHEST_PROTOCOL)
            except OSError as error:
                raise StudioError(
                    f"What was read cannot be kept in a temporary file: {error.strerror}. Nothing was saved; free some "
                    "space, or name a folder with more in $TMPDIR."
                ) from error
            chunks += 1
        file.seek(0)
        yield (pickle.load(file) for _ in range(chunks))  # what this process wrote a moment ago, to a nameless file


def save_in_chunks(db: Database, chunks: Iterable[list[T]], save: Callable[[Session, list[T]], Saved]) -> Counter[str]:
    """Save every chunk in a transaction of its own, all of them or none; gives the sums of their counts.

    ``save`` runs in the transaction. It is called a second time for a chunk that the database refuses,
    since another writer may have added the same row in between. When a chunk fails for good, the rows of the chunks
    before it are removed again, and the failure is raised.
    """
    saved: list[Saved] = []
    try:
        for chunk in chunks:
            try:
                saved.append(_save(db, chunk, save))
            except IntegrityError:
                saved.append(_save(db, chunk, save))
    except BaseException as error:
        if kept := _take_back(db, [chunk.added for chunk in saved]):
            raise StudioError(
                f"{error} Of what was saved before, {kept} rows could not be removed again, since others already refer "
                "to them; saving the same once more completes them."
            ) from error
        raise
    return sum((chunk.counts for chunk in saved), Counter())


def _save(db: Database, chunk: list[T], save: Callable[[Session, list[T]], Saved]) -> Saved:
    with db.write() as session:
        one_at_a_time(session, "save_prompts")
        return save(session, chunk)


def _take_back(db: Database, added: list[Added]) -> int:
    """Remove what chunks added, the last first; gives how many rows had to stay."""
    kept = 0
    for rows in reversed(added):
        try:
            with db.write() as session:
                for table, ids in reversed(rows.items()):
                    _delete(session, table, ids)
        except IntegrityError:
            kept += sum(map(len, rows.values()))
    return kept


def _delete(session: Session, table: type[Any], ids: list[str]) -> None:
    for start in range(0, len(ids), 500):
        session.execute(delete(table).where(col(table.id).in_(ids[start : start + 500])))
