"""What labeling goes by at this moment: the newest guidelines and the newest checks, looked up before every vote."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func
from sqlalchemy import select as choose

from feedback.db import Database
from feedback.store.prepared import Prepared
from feedback.tables import ChecksRow, GuidelinesRow


@dataclass(frozen=True)
class Settings:
    """The versions in force; None where none was ever saved and the product's own stand."""

    guidelines: GuidelinesRow | None = None
    checks: ChecksRow | None = None


class InForce:
    """The settings in force. A version never changes, so one that was read once is only asked for its number."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._known: tuple[tuple[int | None, int | None], Settings] = (None, None), Settings()

    def now(self) -> Settings:
        """The settings as of now, also when another process has just saved new ones."""
        with self.db.glance() as connection:
            guidelines, checks = _NEWEST.first(connection)
        known, settings = self._known
        if known != (guidelines, checks):
            with self.db.read() as session:
                settings = Settings(
                    session.get_one(GuidelinesRow, guidelines) if guidelines else None,
                    session.get_one(ChecksRow, checks) if checks else None,
                )
            self._known = (guidelines, checks), settings
        return settings


_NEWEST = Prepared(
    choose(
        choose(func.max(GuidelinesRow.__table__.c.version)).scalar_subquery(),  # type: ignore[attr-defined]
        choose(func.max(ChecksRow.__table__.c.version)).scalar_subquery(),  # type: ignore[attr-defined]
    )
)
