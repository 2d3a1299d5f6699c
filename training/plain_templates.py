"""Chat templates by name, for models that come without one."""

from __future__ import annotations

from dataclasses import dataclass

# A system message stands first; other roles than these three are refused by every template.
_OTHERWISE = (
    "{% else %}{{ raise_exception('Unknown role ' ~ message['role'] ~ '; use system, user or assistant.') }}"
    "{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class PlainTemplate:
    """A template with the tokens that must be in a tokenizer's vocabulary for it; most are plain text but for the end.

    Every reply ends with a token: the tokenizer's end token, or one that the template names.
    """

    source: str
    needs: tuple[str, ...] = ()


def _labeled(system: str, user: str, assistant: str, *, bos: str = "{{ bos_token or '' }}") -> str:
    """A template that writes a label before each message and an empty line behind, the end token behind a reply."""
    return (
        f"{bos}{{% for message in messages %}}{{% if message['role'] == 'system' %}}"
        f"{{{{ '{system}' + message['content'] + '\\n\\n' }}}}{{% elif message['role'] == 'user' %}}"
        f"{{{{ '{user}' + message['content'] + '\\n\\n' }}}}{{% elif message['role'] == 'assistant' %}}"
        f"{{{{ '{assistant}' + message['content'] + eos_token + '\\n\\n' }}}}{_OTHERWISE}"
        f"{{% if add_generation_prompt %}}{{{{ '{assistant}' }}}}{{% endif %}}"
    )


_CHATML = (
    "{% for message in messages %}{% if message['role'] in ('system', 'user', 'assistant') %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    f"{_OTHERWISE}{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\\n' }}}}{{% endif %}}"
)
_LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{% elif message['role'] == 'user' %}{{ (bos_token or '') + '[INST] ' }}"
    "{% if not loop.first and loop.index0 == 1 and messages[0]['role'] == 'system' %}"
    "{{ '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' }}{% endif %}"
    "{{ message['content'] + ' [/INST]' }}"
    f"{{% elif message['role'] == 'assistant' %}}{{{{ ' ' + message['content'] + ' ' + eos_token }}}}{_OTHERWISE}"
)
_ZEPHYR = (
    "{% for message in messages %}{% if message['role'] in ('system', 'user', 'assistant') %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    f"{_OTHERWISE}{{% if add_generation_prompt %}}{{{{ '<|assistant|>\\n' }}}}{{% endif %}}"
)

PLAIN_TEMPLATES: dict[str, PlainTemplate] = {
    "plain": PlainTemplate(_labeled("", "User: ", "Assistant: ")),
    "alpaca": PlainTemplate(_labeled("", "### Instruction:\\n", "### Response:\\n")),
    "llama2": PlainTemplate(_LLAMA2),
    "zephyr": PlainTemplate(_ZEPHYR),
    "chatml": PlainTemplate(_CHATML, ("<|im_start|>", "<|im_end|>")),
}
