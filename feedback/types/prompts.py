"""Conversations, prompts and the replies that models wrote to them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator
from sqlmodel import SQLModel

from feedback.types.validation import content_hash, reject_unstorable_text

ASKED_HERE = "asked-here"
"""The tag of prompts that came in with a request for replies: nobody meant them for the annotators."""


class Role(StrEnum):
    system = "system"
    user = "user"
    assistant = "assistant"


class Split(StrEnum):
    """What a prompt may be used for; evaluation prompts never reach a training dataset."""

    work = "work"
    evaluation = "evaluation"


def _is_text(part: dict[str, Any]) -> bool:
    return part.get("type", "text") == "text" and isinstance(part.get("text"), str)


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    content: str

    @field_validator("role", mode="before")
    @classmethod
    def _known_role(cls, role: Any) -> Any:
        if isinstance(role, str) and role not in set(Role):
            raise ValueError(f"the role {role[:40]!r} is not known; roles are {', '.join(Role)}")
        return role

    @field_validator("content", mode="before")
    @classmethod
    def _text_of_parts(cls, content: Any) -> Any:
        """The text of a content in parts, as multi-modal files have it; parts that are no text are refused."""
        if not isinstance(content, list) or not content or not all(isinstance(part, dict) for part in content):
            return content
        texts = [part["text"] for part in content if _is_text(part)]
        if len(texts) < len(content):
            kinds = ", ".join(dict.fromkeys(str(part.get("type", "unknown")) for part in content if not _is_text(part)))
            raise ValueError(f"content has parts that are no text ({kinds[:60]}); only text is kept, so leave them out")
        return "".join(texts)

    @field_validator("content")
    @classmethod
    def _not_blank(cls, content: str) -> str:
        if not content.strip():
            raise ValueError("content must not be empty")
        return reject_unstorable_text(content, "content")


class Conversation(BaseModel):
    """A prompt's messages: a non-empty list that ends with something to reply to."""

    messages: list[Message]

    @model_validator(mode="after")
    def _awaits_reply(self) -> Conversation:
        if not self.messages:
            raise ValueError("messages must hold at least one message")
        if self.messages[-1].role is not Role.user:
            raise ValueError(f"the last message must be the user's, not the {self.messages[-1].role.value}'s")
        if any(message.role is Role.system for message in self.messages[1:]):
            raise ValueError("a system message may only come first")
        return self

    def plain(self) -> list[dict[str, str]]:
        """The messages as plain dictionaries, as stored and as chat templates want them."""
        return [{"role": message.role.value, "content": message.content} for message in self.messages]


MOST_STOPS = 16
LONGEST_STOP = 200  # characters


def usable_stop(stop: list[str]) -> list[str]:
    """The stop strings, each once; ValueError where there are too many, or one is empty or too long."""
    if len(stop) > MOST_STOPS:
        raise ValueError(f"stop may hold {MOST_STOPS} strings, not {len(stop)}")
    for text in stop:
        if not 1 <= len(text) <= LONGEST_STOP:
            raise ValueError(f"a stop string has 1 to {LONGEST_STOP} characters, not {len(text)}: {text[:20]!r}")
        reject_unstorable_text(text, "a stop string")
    return list(dict.fromkeys(stop))


class SamplingSettings(BaseModel):
    """How a reply is drawn; stored with every generation.

    ``top_k`` 0 and ``top_p`` 1 switch the filters off. ``max_new_tokens`` counts tokens of the reply only. A reply ends
    before the first of the ``stop`` strings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 96
    stop: list[str] = []

    @field_validator("stop")
    @classmethod
    def _usable_stop(cls, stop: list[str]) -> list[str]:
        return usable_stop(stop)

    @model_validator(mode="after")
    def _ranges(self) -> SamplingSettings:
        if not 0.0 <= self.temperature <= 5.0:
            raise ValueError(f"temperature must be between 0 and 5, not {self.temperature} (0 is greedy)")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or more, not {self.top_k}")
        if not 1 <= self.max_new_tokens <= 8192:
            raise ValueError(f"max_new_tokens must be between 1 and 8192, not {self.max_new_tokens}")
        return self


class Prompt(SQLModel):
    """A conversation waiting for a reply. ``content_hash`` is unique: the same prompt is stored once.

    For a ``retired`` prompt no more replies are drawn; what was judged on it stays.
    """

    model_config = ConfigDict(validate_default=True)  # type: ignore[assignment]  # content_hash is always computed

    messages: list[dict[str, str]]
    split: Split = Split.work
    tags: list[str] = []
    retired: bool = False
    content_hash: str = ""

    @field_validator("messages", mode="before")
    @classmethod
    def _valid_conversation(cls, messages: Any) -> list[dict[str, str]]:
        return Conversation.model_validate({"messages": messages}).plain()

    @field_validator("tags")
    @classmethod
    def _storable_tags(cls, tags: list[str]) -> list[str]:
        return [reject_unstorable_text(tag, "a tag") for tag in tags]

    @field_validator("content_hash")
    @classmethod
    def _hash_of_messages(cls, _given: str, info: ValidationInfo) -> str:
        return content_hash(info.data.get("messages"))


CUT = "length"  # the finish reason of a reply that was cut


class Generation(SQLModel):
    """One reply. ``finish_reason`` is ``stop`` when the model ended it, ``length`` when it was cut.

    ``seed`` with the prompt, the policy and ``sampling`` names the draw; ``tokens`` counts the reply alone.
    ``author`` names the person who wrote or edited it: they are never asked to judge it. ``reasoning`` is what a model
    that reasons wrote before its reply: it is shown with it, and is neither judged nor trained on.
    """

    prompt_id: str
    policy_id: str
    text: str
    seed: int
    sampling: dict[str, Any] = {}
    finish_reason: str = "stop"
    tokens: int = 0
    run_id: str | None = None
    author: str | None = None
    reasoning: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the reply was cut at its length limit, so that it has no end."""
        return self.finish_reason == CUT

    @field_validator("text")
    @classmethod
    def _not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a reply must not be empty")
        return reject_unstorable_text(text, "a reply")

    @field_validator("reasoning")
    @classmethod
    def _storable_reasoning(cls, reasoning: str | None) -> str | None:
        return reasoning if reasoning is None else reject_unstorable_text(reasoning, "the reasoning")
