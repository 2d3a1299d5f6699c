"""Versioned settings of labeling: guidelines and checks. A change adds a version; none is overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func
from sqlalchemy import select as choose
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from feedback.database.engine import Database, one_at_a_time
from feedback.database.statements import CompiledStatement
from feedback.store.rows import as_row, value_of
from feedback.tables import ChecksRow, GuidelinesRow
from feedback.types import Checks, Guidelines

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


@dataclass(frozen=True)
class LabelingSettings:
    """The newest versions; None where none was ever saved, so that the defaults apply."""

    guidelines: GuidelinesRow | None = None
    checks: ChecksRow | None = None


class CurrentSettings:
    """Cache of the newest settings. A version never changes, so only its number is read again."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._known: tuple[tuple[int | None, int | None], LabelingSettings] = (None, None), LabelingSettings()

    def now(self) -> LabelingSettings:
        """Return the settings as of now, including those another process has just saved."""
        with self.db.glance() as connection:
            guidelines, checks = _NEWEST.first(connection)
        known, settings = self._known
        if known != (guidelines, checks):
            with self.db.read() as session:
                settings = LabelingSettings(
                    session.get_one(GuidelinesRow, guidelines) if guidelines else None,
                    session.get_one(ChecksRow, checks) if checks else None,
                )
            self._known = (guidelines, checks), settings
        return settings


_NEWEST = CompiledStatement(
    choose(
        choose(func.max(GuidelinesRow.__table__.c.version)).scalar_subquery(),  # type: ignore[attr-defined]
        choose(func.max(ChecksRow.__table__.c.version)).scalar_subquery(),  # type: ignore[attr-defined]
    )
)
