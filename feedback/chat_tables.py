"""The table of the playground's chats, made as those of ``tables.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlmodel import Field

from feedback.column_types import Moment, new_id
from feedback.tables import _Row
from feedback.types import Chat, now


class ChatRow(Chat, _Row, table=True):
    __tablename__ = "chat"

    id: str = Field(default_factory=lambda: new_id("cha"), primary_key=True)
    person: str = Field(index=True)
    left_id: str = Field(foreign_key="policy.id")
    right_id: str | None = Field(default=None, foreign_key="policy.id")
    sampling: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    turns: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    updated_at: datetime = Field(default_factory=now, sa_type=Moment)  # type: ignore[call-overload]
