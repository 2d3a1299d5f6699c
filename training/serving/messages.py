"""What a studio and a reply process say to each other: JSON objects, one a line.

To the process: ``{"ask": ID, "messages": […], "sampling": {…}, "seed": N}`` and ``{"stop": ID}``. From it: first
``{"ready": SECONDS}`` or ``{"failed": WORDS}``, then for each request any number of ``{"id": ID, "text": …,
"reasoning": …}``, each with all that was said so far, and at the end ``{"id": ID, "reply": {…}}`` (see ``Drawn``) or
``{"id": ID, "error": WORDS}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from feedback.types import SamplingSettings


class Ask(BaseModel):
    """One reply that is wanted; ``ask`` is the id of the request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ask: int
    messages: list[dict[str, str]]
    sampling: SamplingSettings
    seed: int


@dataclass(frozen=True)
class Drawn:
    """A reply at its end; ``stopped``: somebody ended it, so that ``text`` is what it said until then.

    ``seconds`` is the time from the first forward to the last token.
    """

    text: str
    finish_reason: str
    tokens: int
    seconds: float
    reasoning: str = ""
    unfinished: bool = False
    stopped: bool = False


Event = dict[str, Any]
