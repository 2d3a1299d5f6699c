"""Guidelines: what annotators are asked, in versions that are only ever added."""

from __future__ import annotations

from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from feedback.db import Database
from feedback.store.rows import as_row
from feedback.tables import GuidelinesRow
from feedback.types import Guidelines


def save_guidelines(db: Database, guidelines: Guidelines) -> GuidelinesRow:
    """Add a version; the newest is what annotators see. One that changes nothing is not added."""
    with db.write() as session:
        newest = session.exec(_newest_first()).first()
        asked = ("text", "criteria", "asks_rationale")
        if newest is not None and all(getattr(newest, name) == getattr(guidelines, name) for name in asked):
            return newest
        row = as_row(GuidelinesRow, guidelines)
        session.add(row)
        return row


def get_guidelines(db: Database) -> GuidelinesRow | None:
    """The newest version; None while the product's own words stand."""
    with db.read() as session:
        return session.exec(_newest_first()).first()


def _newest_first() -> SelectOfScalar[GuidelinesRow]:
    return select(GuidelinesRow).order_by(col(GuidelinesRow.version).desc()).limit(1)
