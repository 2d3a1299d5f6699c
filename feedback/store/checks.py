"""Checks: how many tasks are gold or repeats, in versions that are only ever added."""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel import col, select

from feedback.db import Database, one_at_a_time
from feedback.store.rows import as_row, value_of
from feedback.tables import ChecksRow
from feedback.types import Checks

_SHARES = {"gold_share", "repeat_share", "repeat_after"}


def change_checks(db: Database, default: Checks, changed: Mapping[str, float], *, author: str) -> ChecksRow:
    """Add a version: the newest one, or ``default``, with these settings changed. None is added for no change.

    InvalidInput names a value that is out of range; then nothing is saved.
    """
    with db.write() as session:
        one_at_a_time(session, "change the checks")
        newest = session.exec(select(ChecksRow).order_by(col(ChecksRow.version).desc()).limit(1)).first()
        before = (newest or default).model_dump(include=_SHARES)
        wanted = value_of(Checks, **{**before, **changed, "author": author})
        if newest is not None and wanted.model_dump(include=_SHARES) == before:
            return newest
        row = as_row(ChecksRow, wanted)
        session.add(row)
        return row


def get_checks(db: Database) -> ChecksRow | None:
    """The version in force; None while the product's own shares stand."""
    with db.read() as session:
        return session.exec(select(ChecksRow).order_by(col(ChecksRow.version).desc()).limit(1)).first()
