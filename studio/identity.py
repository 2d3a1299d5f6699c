"""Who asks: a person as every door of the studio knows them, and where a request says so."""

from __future__ import annotations

from dataclasses import dataclass

from feedback.types import UserRole


@dataclass(frozen=True)
class Person:
    """Whoever asks. ``user_id`` is empty for ``LOCAL``, who is everybody while the studio has no users."""

    name: str
    role: UserRole
    user_id: str = ""


LOCAL = Person("local", UserRole.admin)

PERSON = "studio.person"
"""Where the scope of a request says who asks: ``LOCAL`` while there are no users, None for nobody known."""
