"""The only place a chat template is applied.

Everything that turns messages into tokens comes through here, so that sampling, training and scoring see the
same text. Two templates of one conversation in two files is how a policy is trained on what it never sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedback.errors import InvalidInput

Messages = Sequence[Mapping[str, str]]


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


def prompt_text(tokenizer: Any, messages: Messages) -> str:
    """The conversation as the model reads it, up to where its reply begins."""
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidInput(
            "This model's tokenizer has no chat template, so it cannot hold a conversation. "
            "Choose an instruction-tuned model, for instance Qwen/Qwen2.5-0.5B-Instruct."
        )
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in plain)
        raise InvalidInput(f"This model's chat template refuses a conversation of {roles}: {error}") from error


def encode_prompt(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of a conversation that awaits a reply."""
    # The template already wrote every special token, hence no second beginning-of-text
    return list(tokenizer(prompt_text(tokenizer, messages), add_special_tokens=False)["input_ids"])


def encode_reply(tokenizer: Any, reply: str, *, ended: bool = True) -> list[int]:
    """Token ids of a reply; ``ended`` closes it with the end token, as the model would have."""
    ids = list(tokenizer(reply, add_special_tokens=False)["input_ids"])
    return [*ids, tokenizer.eos_token_id] if ended else ids


def encode_exchange(tokenizer: Any, messages: Messages, reply: str) -> list[int]:
    """Token ids of a conversation with its finished reply."""
    return encode_prompt(tokenizer, messages) + encode_reply(tokenizer, reply)


def window_of(model: Any) -> int:
    """How many tokens the model can read at once; very large where its configuration names no limit."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    return int(getattr(config, "max_position_embeddings", None) or 1_000_000)


def check_fits(prompt_tokens: int, new_tokens: int, window: int) -> None:
    """Refuse a prompt that with its reply would not fit the window, naming the numbers."""
    if prompt_tokens + new_tokens > window:
        raise PromptTooLong(prompt_tokens, new_tokens, window)


def decode_reply(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens of a reply, its end left off, as people read and databases hold it."""
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return readable(text).strip()


def readable(text: str) -> str:
    """A model's text as every database holds it: NUL and halves of surrogate pairs become the sign for the unshown."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
