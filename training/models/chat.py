"""Messages to tokens: the one way that sampling, training, scoring and the probes of checkpoints share.

For every model the ids of prompt + reply are the ids of the rendered conversation, up to the end of that turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedback.errors import InvalidInput
from training.models.chat_template import (
    ControlTokenInText,
    Messages,
    TemplateRefused,
    Unencodable,
    close_turn,
    end_of_turn,
    open_turn,
    render,
    render_turn,
)
from training.models.control_tokens import disguise, encode, special_ids, special_thoughts

__all__ = [
    "ControlTokenInText",
    "Exchange",
    "Messages",
    "PromptTooLong",
    "TemplateRefused",
    "Unencodable",
    "check_fits",
    "decode_raw",
    "decode_reply",
    "encode_exchange",
    "encode_prompt",
    "encode_replies",
    "end_token",
    "examine_template",
    "is_encodable",
    "prompt_text",
    "readable",
    "window_of",
]


class PromptTooLong(InvalidInput):
    """A prompt that leaves no room for a reply in the model's window."""

    def __init__(self, prompt_tokens: int, new_tokens: int, window: int) -> None:
        super().__init__(
            f"The prompt has {prompt_tokens} tokens; with {new_tokens} for the reply that is "
            f"{prompt_tokens + new_tokens}, but the model's window is {window}. "
            "Shorten the prompt or lower max_new_tokens."
        )
        self.prompt_tokens = prompt_tokens
        self.new_tokens = new_tokens
        self.window = window

    def __reduce__(self) -> tuple[type, tuple[int, int, int]]:
        return type(self), (self.prompt_tokens, self.new_tokens, self.window)


@dataclass(frozen=True)
class Exchange:
    """A prompt and its reply as token ids; ``ids`` is what the model reads.

    ``as_rendered``: the ids are those of the finished conversation as the template renders it. Where they are not, the
    template shows a finished exchange otherwise than the prompt it asks with, or the reply was cut inside a thought;
    then the prompt is what counts.
    """

    prompt: list[int]
    reply: list[int]
    as_rendered: bool = True

    @property
    def ids(self) -> list[int]:
        """Prompt and reply in one."""
        return self.prompt + self.reply


def prompt_text(tokenizer: Any, messages: Messages) -> str:
    """The conversation as the model reads it, up to where its reply begins."""
    return render(tokenizer, messages, generation_prompt=True)


def encode_prompt(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of a conversation that awaits a reply; Unencodable where this model cannot be given it."""
    hidden = disguise(tokenizer, messages)
    return encode(tokenizer, prompt_text(tokenizer, hidden.messages), hidden.mark)


def encode_exchange(tokenizer: Any, messages: Messages, reply: str, *, ended: bool = True) -> Exchange:
    """Token ids of a conversation with its reply, to the token as the template renders the finished exchange.

    Prompt and reply are encoded as one text and cut where the reply begins; a token that spans both belongs to the
    reply. The reply closes with the template's end of the turn, unless it was cut (not ``ended``).
    """
    return encode_replies(tokenizer, messages, [(reply, ended)])[0]


def encode_replies(tokenizer: Any, messages: Messages, replies: Sequence[tuple[str, bool]]) -> list[Exchange]:
    """The exchanges of one conversation with several replies (text, ended), all with the same prompt ids."""
    if not replies:
        return []
    turns, rows, opening = [], [], None
    for text, ended in replies:
        hidden = disguise(tokenizer, [*messages, {"role": "assistant", "content": text}])
        *asked, said = hidden.messages
        if opening is None or opening.messages != asked:  # the mark in the messages may be another for each reply
            opening = open_turn(tokenizer, asked)
            prompt = encode(tokenizer, opening.prompt, hidden.mark)
        turn = close_turn(tokenizer, opening, said["content"], ended=ended)
        turns.append(turn)
        rows.append(encode(tokenizer, turn.prompt + turn.reply, hidden.mark))
    shared = min(_in_common(prompt, row) for row in rows)
    return [Exchange(row[:shared], row[shared:], turn.as_rendered) for row, turn in zip(rows, turns, strict=True)]


def is_encodable(tokenizer: Any, messages: Messages, replies: Sequence[str] = ()) -> bool:
    """Whether this model can be given a conversation, and each of the replies to it."""
    try:
        encode_prompt(tokenizer, messages)
        if replies:
            encode_replies(tokenizer, messages, [(reply, True) for reply in replies])
    except Unencodable:
        return False
    return True


def end_token(tokenizer: Any) -> int:
    """The id of the token that ends a reply in the model's own template."""
    return int(tokenizer(end_of_turn(tokenizer), add_special_tokens=False)["input_ids"][-1])


def examine_template(tokenizer: Any) -> None:
    """Raise InvalidInput with a sentence where the template cannot hold a conversation that is trained on."""
    turn = render_turn(tokenizer, [{"role": "user", "content": "Hello."}], "Good day.")
    if "Hello." not in turn.prompt:
        raise InvalidInput(
            "This model's chat template leaves out what the user says, so nothing could be learned from it. Put a "
            "template that works into its tokenizer_config.json or chat_template.jinja."
        )
    end = end_of_turn(tokenizer)
    if tokenizer.convert_ids_to_tokens(end_token(tokenizer)) not in end:
        raise InvalidInput(
            f"This model's chat template ends a reply with {end!r}, which its tokenizer does not read as a token, so "
            "no reply could end. Choose another model."
        )


def window_of(model: Any) -> int:
    """How many tokens the model can read at once; very large where its configuration names no limit."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    return int(getattr(config, "max_position_embeddings", None) or 1_000_000)


def check_fits(prompt_tokens: int, new_tokens: int, window: int) -> None:
    """Refuse a prompt that with its reply would not fit the window, naming the numbers."""
    if prompt_tokens + new_tokens > window:
        raise PromptTooLong(prompt_tokens, new_tokens, window)


def decode_reply(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens of a reply, its end left off, as people read and databases hold it.

    The tags of a thought stay, also where a tokenizer calls them special: without them the thought would be said.
    """
    return readable(decode_raw(tokenizer, ids)).strip()


def decode_raw(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a reply's tokens to the letter, white space at its ends included; see ``decode_reply``."""
    kept = list(ids)
    if thoughts := special_thoughts(tokenizer):
        left_out = special_ids(tokenizer) - thoughts
        kept = [token for token in kept if token not in left_out]
    return str(tokenizer.decode(kept, skip_special_tokens=not thoughts, clean_up_tokenization_spaces=False))


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def readable(text: str) -> str:
    """A model's text as every database holds it: NUL and halves of surrogate pairs become the sign for the unshown."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def request_of(prompt: Messages | str) -> str:
    """What was asked for: the user's last message."""
    if isinstance(prompt, str):
        return prompt
    return next((message["content"] for message in reversed(prompt) if message["role"] == "user"), "")


def as_messages(prompt: Messages | str) -> Messages:
    """A bare request as a conversation of one message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
