"""Prompts from a JSONL file: conversations, or plain ``prompt`` texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from feedback.errors import InvalidInput, InvalidLine
from feedback.packed_files import read_objects
from feedback.store.rows import reason_of
from feedback.types import Prompt, Split


def read_prompts(path: Path, *, split: Split | None = None) -> list[Prompt]:
    """The prompts of a file, one per line: ``{"messages": [{"role", "content"}], "split"?, "tags"?}``.

    ``{"prompt": "text"}`` and ``{"prompt": [messages]}`` (as TRL writes them) are read too. ``split`` is for lines that
    do not say theirs; without it they are work. Raises InvalidLine with the line's number and the reason, and
    InvalidInput when the file cannot be read or holds nothing.
    """
    prompts = [_prompt_of(path.name, number, fields, split) for number, fields in read_objects(path)]
    if not prompts:
        raise InvalidInput(f"{path} holds no prompts; write one JSON object per line.")
    return prompts


def _prompt_of(source: str, number: int, fields: dict[str, Any], split: Split | None) -> Prompt:
    messages = fields.get("messages", fields.get("prompt"))
    if messages is None:
        raise InvalidLine(
            source, number, f"neither 'messages' nor 'prompt' is there (keys: {', '.join(fields) or 'none'})"
        )
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    value = {"messages": messages, "split": fields.get("split", split or Split.work), "tags": fields.get("tags", [])}
    try:
        return Prompt.model_validate(value)
    except ValidationError as error:
        raise InvalidLine(source, number, reason_of(error)) from error
