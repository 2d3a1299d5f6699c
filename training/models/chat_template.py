"""Render conversations with a model's own chat template: the prompt, and the finished turn that continues it.

A reply is never closed by hand. The finished conversation is rendered by the template, and what the template writes
before and after the reply (an empty thought, a space, the end-of-turn token) is part of the turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from feedback.errors import InvalidInput
from training.plain_templates import PLAIN_TEMPLATES

Messages = Sequence[Mapping[str, str]]

TEMPLATE_DATE = date(2026, 1, 1)
"""The day every template is given. With today's date a prompt would change overnight: a seed would not draw its
reply again, and a checkpoint would not reproduce its probe."""

_DIRECTIVES = "aAbBcdefFGHIjmMnpSTuUVwWxXyYzZ"  # of strftime; %-d and its kin come first
_CLOCK = "strftime_now"
_PLACEHOLDER = "\ue0f0reply\ue0f1"  # private-use characters: no template trims or splits them
_ends: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()
_system_roles: WeakKeyDictionary[Any, tuple[Any, bool]] = WeakKeyDictionary()
THOUGHT_TAGS = ("think", "thinking", "thought", "reasoning", "seed:think")
_THOUGHTS = "|".join(THOUGHT_TAGS)
_OPEN_THOUGHT = re.compile(rf"<({_THOUGHTS})>\s*\Z")
_THOUGHT_TAG = re.compile(rf"<(/?)({_THOUGHTS})>")


class Unencodable(InvalidInput):
    """A conversation that this model cannot be given; callers leave it out and count it."""


class TemplateRefused(Unencodable):
    """A conversation that the chat template refuses, such as a system message where there is no such role."""


class ControlTokenInText(Unencodable):
    """A text that spells a control token and that this tokenizer can only read as that token."""


@dataclass(frozen=True)
class Turn:
    """A conversation and its reply as text: ``prompt`` + ``reply`` is what the model reads.

    ``reply`` is all that follows the prompt up to the end of the turn, the end token included where the turn ended.
    ``as_rendered`` is false where the template shows a finished exchange otherwise than the prompt it asks with, and
    for a reply that was cut inside a thought.
    """

    prompt: str
    reply: str
    as_rendered: bool = True


@dataclass(frozen=True)
class Opening:
    """A conversation that awaits its reply, as text: the prompt, and what the template writes around a reply.

    ``lead`` is the finished exchange up to the reply, ``tail`` what follows the reply in it; ``end`` is the part of the
    tail that ends the turn.
    """

    messages: Messages
    prompt: str
    lead: str
    tail: str
    end: str


def fix_template_date(tokenizer: Any, day: date = TEMPLATE_DATE) -> None:
    """Give a template that asks for the current date the same day for ever, whoever renders it."""
    source = tokenizer.chat_template
    if isinstance(source, str):
        tokenizer.chat_template = _dated(source, day)
    elif isinstance(source, dict):
        tokenizer.chat_template = {name: _dated(text, day) for name, text in source.items()}


def uses_clock(tokenizer: Any) -> bool:
    """Whether the template asks for the current date."""
    return _CLOCK in str(tokenizer.chat_template)


def render(tokenizer: Any, messages: Messages, *, generation_prompt: bool) -> str:
    """A conversation as the template renders it; ``generation_prompt`` opens the model's next turn.

    InvalidInput where there is no template, TemplateRefused where it does not take this conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidInput(
            "This model's tokenizer has no chat template, so it cannot hold a conversation. Choose one "
            f"({', '.join(PLAIN_TEMPLATES)}, or a file with a Jinja template) by "
            "`studio policies add MODEL --chat-template NAME`, or an instruction-tuned model, for instance "
            "Qwen/Qwen2.5-0.5B-Instruct."
        )
    try:
        plain = as_template_takes(tokenizer, messages)
        return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=generation_prompt))
    except Exception as error:  # a template is a program of the model's author: anything may be raised
        roles = ", ".join(message["role"] for message in messages)
        raised = isinstance(error, TemplateError)  # by the template itself, with a reason
        reason = str(error) if raised else f"{type(error).__name__}: {error}"
        raise TemplateRefused(f"This model's chat template refuses a conversation of {roles}: {reason}") from error


def rendered_ids(tokenizer: Any, messages: Messages, *, generation_prompt: bool) -> list[int]:
    """The ids that transformers itself gives a conversation, against which ours are checked."""
    plain = as_template_takes(tokenizer, messages)
    ids = tokenizer.apply_chat_template(
        plain, tokenize=True, add_generation_prompt=generation_prompt, return_dict=False
    )
    return list(ids)


def as_template_takes(tokenizer: Any, messages: Messages) -> list[dict[str, str]]:
    """The messages that are rendered: where a template has no system role, the user's first message begins with it.

    The system message then stands before the text of the first user message, with an empty line between.
    """
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    if [message["role"] for message in plain[:2]] != ["system", "user"] or has_system_role(tokenizer):
        return plain
    system, first, *rest = plain
    return [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def has_system_role(tokenizer: Any) -> bool:
    """Whether the template shows a system message; Gemma's raises an error at one, others leave it out."""
    known = _system_roles.get(tokenizer)
    if known is None or known[0] != tokenizer.chat_template:
        probe = [{"role": "system", "content": _PLACEHOLDER}, {"role": "user", "content": "Hello."}]
        try:
            shown = _PLACEHOLDER in tokenizer.apply_chat_template(probe, tokenize=False, add_generation_prompt=True)
        except Exception:  # as in ``render``
            shown = False
        known = _system_roles[tokenizer] = (tokenizer.chat_template, shown)
    return known[1]


def render_turn(tokenizer: Any, messages: Messages, reply: str, *, ended: bool = True) -> Turn:
    """The prompt and the reply as the template renders the finished exchange; a cut reply (not ``ended``) has no end.

    Raises TemplateRefused where the template refuses the conversation or does not show the reply.
    """
    return close_turn(tokenizer, open_turn(tokenizer, messages), reply, ended=ended)


def open_turn(tokenizer: Any, messages: Messages) -> Opening:
    """A conversation up to its reply, rendered once for all replies to it; raises as ``render_turn``."""
    prompt = render(tokenizer, messages, generation_prompt=True)
    lead, tail = _around_reply(tokenizer, messages)
    return Opening(messages, prompt, lead, tail, _up_to_end(tokenizer, tail))


def close_turn(tokenizer: Any, opening: Opening, reply: str, *, ended: bool = True) -> Turn:
    """The turn that a reply makes of an opened conversation; see ``render_turn``.

    A reply that was cut inside a thought stands directly behind the prompt, with its thought open.
    """
    prompt, tail, end = opening.prompt, opening.tail, opening.end if ended else ""
    if not ended and _thinks_on(reply):
        # The template would close the thought, or put an empty one before it: neither was generated.
        return Turn(prompt, reply, as_rendered=False)
    exchange = [*opening.messages, {"role": "assistant", "content": reply}]
    whole = render(tokenizer, exchange, generation_prompt=False)
    if whole.startswith(prompt) and whole.endswith(tail) and len(whole) >= len(prompt) + len(tail):
        return Turn(prompt, whole[len(prompt) : len(whole) - len(tail)] + end)
    return Turn(prompt, _continued(tokenizer, prompt, opening.lead, reply) + end, as_rendered=False)


def end_of_turn(tokenizer: Any) -> str:
    """What ends a reply in the template, in most a single token; the tokenizer's end token where it writes none."""
    known = _ends.get(tokenizer)
    if known is None or known[0] != tokenizer.chat_template:
        known = _ends[tokenizer] = (tokenizer.chat_template, _find_end(tokenizer))
    return known[1]


def _find_end(tokenizer: Any) -> str:
    """The control tokens that directly follow one another behind the last reply, and behind an earlier one as well.

    What stands behind the last reply alone ends the conversation, not the turn.
    """
    opening = [{"role": "user", "content": "Hello."}]
    run = _control_run(tokenizer, _around_reply(tokenizer, opening)[1])
    if not run:
        return str(tokenizer.eos_token)
    try:
        exchange = [*opening, {"role": "assistant", "content": _PLACEHOLDER}, *opening]
        within = _control_run(tokenizer, render(tokenizer, exchange, generation_prompt=False).split(_PLACEHOLDER)[1])
    except (TemplateRefused, IndexError):
        within = []
    shared = [one for one, other in zip(run, within, strict=False) if one == other]
    return "".join(shared or run[:1])


def _around_reply(tokenizer: Any, messages: Messages) -> tuple[str, str]:
    """What the template writes before and after a reply."""
    exchange = [*messages, {"role": "assistant", "content": _PLACEHOLDER}]
    whole = render(tokenizer, exchange, generation_prompt=False)
    if whole.count(_PLACEHOLDER) != 1:
        raise TemplateRefused(
            "This model's chat template leaves out what the assistant says, or shows it twice, so nothing could be "
            "learned from it. Put a template that works into its tokenizer_config.json or chat_template.jinja."
        )
    lead, _, tail = whole.partition(_PLACEHOLDER)
    return lead, tail


def _up_to_end(tokenizer: Any, tail: str) -> str:
    """The part of what follows a reply that ends the turn."""
    end = end_of_turn(tokenizer)
    before, found, _ = tail.partition(end)
    if found:
        return before + end
    run = _control_run(tokenizer, tail)
    return tail.partition(run[0])[0] + run[0] if run else end


def any_of(names: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds each of the names, the longest first; with no names, nothing."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")


def _control_run(tokenizer: Any, text: str) -> list[str]:
    """The first added tokens, such as ``<|im_end|>``, that are spelled in a text without anything between them."""
    names = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    control = any_of(name for name in names if name.strip())
    run, found = [], control.search(text)
    while found:
        run.append(found.group())
        found = control.match(text, found.end())
    return run


def opened_thought(prompt: str) -> str | None:
    """The tag of a thought that a rendered prompt ends with, left open."""
    found = _OPEN_THOUGHT.search(prompt)
    return found.group(1) if found else None


def _thinks_on(reply: str) -> bool:
    """Whether a thought that the reply opens is still open at its end.

    One that the prompt opens does not count: a reply is kept without its reasoning, so that it is the answer.
    """
    tags = _THOUGHT_TAG.findall(reply)
    return bool(tags) and not tags[-1][0]


def _continued(tokenizer: Any, prompt: str, lead: str, reply: str) -> str:
    """A reply behind a prompt that the template does not repeat in the finished exchange.

    A thought that the prompt opened is closed, as an empty one, unless the reply closes it. Otherwise the reply begins
    as it does in a plain exchange.
    """
    opened = _OPEN_THOUGHT.search(prompt)
    if opened:
        tag = opened.group(1)
        if f"</{tag}>" in reply:
            return reply.removeprefix(f"<{tag}>").lstrip("\n")
        before, close, after = lead.rpartition(f"</{tag}>")
        return close + after + reply if before.endswith(f"<{tag}>") else f"\n</{tag}>\n\n{reply}"
    plain = [{"role": "user", "content": "Hello."}]
    usual, asked = _around_reply(tokenizer, plain)[0], render(tokenizer, plain, generation_prompt=True)
    opening = usual[len(asked) :] if usual.startswith(asked) else ""
    return opening + reply


def _dated(source: str, day: date) -> str:
    """The template behind a macro that answers for the clock."""
    opening, closing = f"{{%- macro {_CLOCK}(format) -%}}", "{%- endmacro -%}"
    if source.startswith(opening):
        source = source.partition(closing)[2]
    if _CLOCK not in source:
        return source
    moment = datetime(day.year, day.month, day.day)
    marks = [f"%-{letter}" for letter in "dmHIMSj"] + [f"%{letter}" for letter in _DIRECTIVES]
    written = {mark: moment.strftime(mark) for mark in marks} | {"%%": "%"}
    replaced = "".join(f" | replace({mark!r}, {text!r})" for mark, text in written.items())
    return f"{opening}{{{{- format{replaced} -}}}}{closing}{source}"
