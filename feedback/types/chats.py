"""Chats of the playground: what one person asked one policy, or two side by side."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator
from sqlmodel import Field, SQLModel

from feedback.types.labeling import ShownVerdict
from feedback.types.prompts import SamplingSettings
from feedback.types.validation import now, reject_unstorable_text

MOST_TURNS = 100


class Side(StrEnum):
    """On which side of the screen a policy replies; a chat with one policy has a left side alone."""

    left = "left"
    right = "right"


class ChatTurn(BaseModel):
    """What was asked, and the generation that each side replied.

    Both sides are asked the same conversation: the reply that is ``kept`` goes on in it, the left one unless another
    was preferred. ``matchup_id`` and ``verdict`` are there once the two replies were judged.
    """

    model_config = ConfigDict(extra="forbid")

    user: str
    left: str | None = None
    right: str | None = None
    kept: Side = Side.left
    matchup_id: str | None = None
    verdict: ShownVerdict | None = None

    @field_validator("user")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("write something first")
        return reject_unstorable_text(text.strip(), "a message")

    def reply_of(self, side: Side) -> str | None:
        """The id of the generation on one side."""
        return self.left if side is Side.left else self.right


class Chat(SQLModel):
    """A conversation with a policy, or with two at once. ``turns`` holds ``ChatTurn`` values as plain JSON.

    A ``blind`` chat names no policy until it is ``revealed``. ``words`` is what a search looks through. An
    ``archived`` chat is listed nowhere; it can be restored.
    """

    person: str
    left_id: str
    right_id: str | None = None
    title: str = ""
    system: str = ""
    blind: bool = False
    revealed: bool = False
    archived: bool = False
    sampling: dict[str, Any] = {}
    turns: list[dict[str, Any]] = []
    words: str = ""
    updated_at: datetime = Field(default_factory=now)

    @field_validator("system", "title")
    @classmethod
    def _storable(cls, text: str) -> str:
        return reject_unstorable_text(text.strip(), "a text")

    @field_validator("sampling")
    @classmethod
    def _usable_sampling(cls, sampling: dict[str, Any]) -> dict[str, Any]:
        return SamplingSettings.model_validate(sampling).model_dump()

    @field_validator("turns")
    @classmethod
    def _usable_turns(cls, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(turns) > MOST_TURNS:
            raise ValueError(f"a chat may have {MOST_TURNS} turns; start another one")
        return [ChatTurn.model_validate(turn).model_dump(mode="json") for turn in turns]

    @property
    def said(self) -> list[ChatTurn]:
        """The turns, first to last."""
        return [ChatTurn.model_validate(turn) for turn in self.turns]

    @property
    def hides_names(self) -> bool:
        """Whether the policies are still unnamed."""
        return self.blind and not self.revealed
