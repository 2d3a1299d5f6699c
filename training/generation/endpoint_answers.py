"""What a server of chat completions answered: the reply, the reasoning before it, why it ended, and its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.generation.replies import Parts, split_thought
from training.generation.stop_strings import place_of_stop
from training.models.chat import readable

CHARACTERS_PER_TOKEN = 32  # a token has about 4; only runs of spaces have as many
REFUSED = "refused"  # the finish reason of a reply that the server would not give to this one prompt
_ENDED = frozenset({"eos", "eos_token", "end_turn", "stop_sequence"})  # what other servers call "stop"
_MOST_TOKENS = 2**31 - 1

# What comes of JSON that is none, is nested without end, or is not what was agreed upon.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Said:
    """What the server replied: the text as it may be stored, why it ended, and its tokens (0 where it does not say).

    ``reasoning`` is what the model wrote before its reply; ``unfinished``, with an empty text, that it has no end.
    """

    text: str
    finish_reason: str
    tokens: int
    reasoning: str = ""
    unfinished: bool = False


def said_of(body: Any) -> Said:
    """The reply in the body of an answer; one of ``UNREADABLE`` is raised where there is none."""
    choice = body["choices"][0]
    parts = _parts_of(choice["message"])
    text, reasoning = readable(parts.answer).strip(), readable(parts.reasoning).strip()
    reason = _reason_of(choice.get("finish_reason"))
    unfinished = bool(reasoning) and not text and (parts.is_open or reason == "length")
    return Said(text, reason, _answer_tokens(body.get("usage") or {}, bool(reasoning)), reasoning, unfinished)


def cut_stopped(said: Said, stop: Sequence[str]) -> Said:
    """The reply up to the first stop string: some servers ignore them, or leave the string in."""
    place = place_of_stop(said.text, stop)
    return said if place < 0 else replace(said, text=said.text[:place].strip(), finish_reason="stop")


def cut_long(said: Said, max_new_tokens: int) -> Said:
    """The reply, cut where it is longer than ``max_new_tokens`` can be: some servers ignore the limit."""
    most = max(2000, CHARACTERS_PER_TOKEN * max_new_tokens)
    if len(said.text) + len(said.reasoning) <= most:
        return said
    tokens = min(said.tokens, max_new_tokens)
    return replace(said, text=said.text[:most], finish_reason="length", tokens=tokens, reasoning=said.reasoning[:most])


def _text_of(content: Any) -> str:
    """The text of a message: as it is, or of the parts in which some servers give it; TypeError for anything else."""
    if isinstance(content, list):
        return "".join(_text_of(part["text"]) for part in content if part["type"] == "text")
    if not isinstance(content, str | None):
        raise TypeError("neither a text nor its parts")
    return content or ""


def _parts_of(message: dict[str, Any]) -> Parts:
    """Reasoning and answer: servers give them apart, or the reasoning in front of the answer between two tags."""
    content = _text_of(message.get("content"))
    apart = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(apart, str) and apart.strip():
        return Parts(apart, content)
    # Where the template opened the thought, a server that leaves it in gives its end alone
    opened = "think" if "</think>" in content and "<think>" not in content else None
    return split_thought(content, ("think",), opened)


def _answer_tokens(usage: dict[str, Any], reasons: bool) -> int:
    """The tokens of the answer; 0 where a server counts the reasoning with it and does not say how long that is."""
    total = _count_of(usage.get("completion_tokens"))
    if not reasons:
        return total
    apart = _count_of((usage.get("completion_tokens_details") or {}).get("reasoning_tokens"))
    return max(0, total - apart) if apart else 0


def _reason_of(given: Any) -> str:
    """Why a reply ended, in our words where a server has others. That it refused to reply, its status alone says."""
    reason = str(given or "stop")[:40]
    return "stop" if reason in _ENDED or reason == REFUSED else reason


def _count_of(tokens: Any) -> int:
    """A number of tokens as a database holds it; 0 for what is none."""
    whole = isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= _MOST_TOKENS
    return tokens if whole else 0
