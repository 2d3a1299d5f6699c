"""Judged examples to token rows: which fit, which this model cannot be given, which replies were cut; and a check
of the first rows against the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from feedback.errors import RunFailed
from feedback.types import Message
from training.models.chat import Exchange, Messages, Unencodable, encode_prompt, encode_replies
from training.models.chat_template import end_of_turn, rendered_ids
from training.models.control_tokens import disguise
from training.reporting.reporter import Reporter

CHECKED_ROWS = 3


@dataclass(frozen=True)
class _Row:
    messages: Messages
    reply: str
    ended: bool
    exchange: Exchange


@dataclass
class Encoder:
    """Encodes the exchanges of one run, and counts what it leaves out and what was cut.

    ``too_long`` and ``refused`` count examples left out; ``cut`` counts examples kept although a reply of theirs was
    cut at its length limit, which are encoded without an end.
    """

    tokenizer: Any
    max_length: int
    too_long: int = 0
    refused: int = 0
    cut: int = 0
    _refusal: str = ""
    _first: list[_Row] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        """How many examples cannot be trained on."""
        return self.too_long + self.refused

    @property
    def counts(self) -> dict[str, int]:
        """The figures of a run's result; those that are rarely there only where they are."""
        rare = {"refused": self.refused, "cut": self.cut}
        return {"too_long": self.too_long, **{name: count for name, count in rare.items() if count}}

    @property
    def left_why(self) -> str:
        """How many examples are left out, by reason, as part of a sentence."""
        refused = f" and {self.refused} cannot be given to this model ({self._refusal})" if self.refused else ""
        return f"{self.too_long} are longer than {self.max_length} tokens{refused}"

    def encode(self, messages: Sequence[Message], replies: Sequence[tuple[str, bool]]) -> list[Exchange] | None:
        """The exchanges of one example, its replies given as (text, cut); None where the example is left out."""
        asked = as_dicts(messages)
        try:
            exchanges = encode_replies(self.tokenizer, asked, [(text, not cut) for text, cut in replies])
        except Unencodable as error:
            self.refused += 1
            self._refusal = self._refusal or str(error)
            return None
        if max(len(exchange.ids) for exchange in exchanges) > self.max_length:
            self.too_long += 1
            return None
        self.cut += any(cut for _, cut in replies)
        if len(self._first) < CHECKED_ROWS:
            (text, cut), exchange = replies[0], exchanges[0]
            self._first.append(_Row(asked, text, not cut, exchange))
        return exchanges

    def report(self, reporter: Reporter, noun: str, total: int) -> None:
        """Check the first rows, and log what is left out and what was cut; RunFailed where the check fails."""
        check_rows(self.tokenizer, self._first, reporter)
        if self.too_long:
            reporter.log(
                f"warning: {self.too_long} of {total} {noun} are longer than {self.max_length} tokens and are left out"
            )
        if self.refused:
            reporter.log(
                f"warning: {self.refused} of {total} {noun} cannot be given to this model and are left out: "
                f"{self._refusal}"
            )
        if self.cut:
            reporter.log(
                f"warning: {self.cut} of {total} {noun} hold a reply that was cut at its length limit; such a reply is "
                "trained on without an end. Raise max_new_tokens where replies are generated."
            )


def as_dicts(messages: Sequence[Message]) -> Messages:
    """Messages as chat templates read them."""
    return [{"role": message.role.value, "content": message.content} for message in messages]


def check_prompts(tokenizer: Any, prompts: Sequence[Messages], reporter: Reporter) -> None:
    """Compare the ids of the first prompts with those of the rendered template; RunFailed where they differ."""
    for messages in prompts[:CHECKED_ROWS]:
        if disguise(tokenizer, messages).mark is None:
            expected = rendered_ids(tokenizer, messages, generation_prompt=True)
            _compare(tokenizer, encode_prompt(tokenizer, messages), expected, messages)
    reporter.log(f"a reply ends with {end_of_turn(tokenizer)!r}, as in the model's chat template")


def check_rows(tokenizer: Any, rows: Sequence[_Row], reporter: Reporter) -> None:
    """Compare the ids of the rows with those of the rendered conversation; RunFailed where they differ.

    A row whose text spells a control token is not compared: the template would read it as that token.
    """
    for row in rows:
        exchange = [*row.messages, {"role": "assistant", "content": row.reply}]
        if disguise(tokenizer, exchange).mark is not None or not row.exchange.as_rendered:
            continue
        expected = rendered_ids(tokenizer, exchange, generation_prompt=False)
        ids = row.exchange.ids
        # The last token of a cut reply may be another where more text follows, and so is an end no template writes
        known = ids if row.ended and ids[-1] in expected else ids[:-1]
        _compare(tokenizer, known, expected[: len(known)], row.messages)
    if any(row.ended and not row.exchange.as_rendered for row in rows):
        reporter.log(
            "note: this model's chat template shows a finished exchange otherwise than the prompt it asks with; "
            "replies are trained on behind the prompt, as the model will meet it"
        )
    if rows:
        reporter.log(f"a reply ends with {end_of_turn(tokenizer)!r}, as in the model's chat template")


def _compare(tokenizer: Any, found: Sequence[int], expected: Sequence[int], messages: Messages) -> None:
    if list(found) == list(expected):
        return
    place = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(expected))
    said = [tokenizer.convert_ids_to_tokens(list(ids[place : place + 1])) for ids in (found, expected)]
    ours, theirs = (repr(names[0]) if names else "not there" for names in said)
    raise RunFailed(
        f"The tokens to train on are not those of the model's chat template: token {place} of the conversation "
        f"{messages[-1]['content'][:60]!r} is {ours}, and the template gives {theirs}. Nothing was trained. "
        "Choose another model, or a tokenizer whose chat template fits it."
    )
