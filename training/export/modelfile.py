"""The Modelfile beside a GGUF file: how Ollama is to ask the model.

Ollama writes prompts with Go templates. The two forms below are written where the model's own chat template renders
conversations exactly so; for any other, Ollama is left to recognize the chat template within the GGUF file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from feedback.types import SamplingSettings
from training.export.gguf_vocabulary import adds_bos
from training.models.chat import Messages, end_token
from training.models.chat_template import TemplateRefused, render

MODELFILE = "Modelfile"
MOST_CONTEXT = 8192
"""Tokens of context asked for at most: Ollama sets aside memory for all of them."""
CHATML = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
LLAMA3 = """{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>

"""
_ASKED: tuple[Messages, ...] = (
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "And now?"},
    ],
)
_MARK = "One question."


@dataclass(frozen=True)
class ChatForm:
    """A chat template that has a Go template; ``system`` is what it says where no system message is given."""

    template: str
    system: str | None = None


def chat_form(tokenizer: Any) -> ChatForm | None:
    """The Go template that renders what the tokenizer's chat template does; None where none of those here does."""
    forms: tuple[tuple[str, Callable[[str, str], str]], ...] = ((CHATML, _chatml_turn), (LLAMA3, _llama3_turn))
    bos = tokenizer.bos_token or ""
    for template, turn in forms:
        ask = turn("assistant", "\0").partition("\0")[0]
        try:
            rendered = [render(tokenizer, messages, generation_prompt=True) for messages in _ASKED]
            alone = render(tokenizer, [{"role": "user", "content": _MARK}], generation_prompt=True)
        except TemplateRefused:
            return None
        wanted = ["".join(turn(one["role"], one["content"]) for one in messages) + ask for messages in _ASKED]
        starts = {"", bos} if template == LLAMA3 else {""}
        start = next((s for s in starts if [s + text for text in wanted] == rendered), None)
        if start is None:
            continue
        before, _, after = alone.removeprefix(start).partition(turn("user", _MARK))
        opening, closing = turn("system", "\0").split("\0")
        if after != ask or (before and not (before.startswith(opening) and before.endswith(closing))):
            return None
        written = "" if adds_bos(tokenizer) else start  # otherwise the file has Ollama add it
        return ChatForm(written + template, before[len(opening) : -len(closing)] if before else None)
    return None


def modelfile(gguf_name: str, tokenizer: Any, window: int, sampling: SamplingSettings | None = None) -> str:
    """The text of a Modelfile. The sampling settings are those that the studio draws and measures replies with."""
    sampling, form = sampling or SamplingSettings(), chat_form(tokenizer)
    stops = dict.fromkeys([tokenizer.convert_ids_to_tokens(end_token(tokenizer)), tokenizer.eos_token])
    lines = [f"FROM ./{gguf_name}"]
    if form is None:
        lines.append("# No TEMPLATE: Ollama looks for a template that it knows in the chat template of the GGUF file.")
    else:
        lines.append(f'TEMPLATE """{form.template}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if stop]
    lines += [
        f"PARAMETER temperature {sampling.temperature:g}",
        f"PARAMETER top_p {sampling.top_p:g}",
        f"PARAMETER top_k {sampling.top_k}",
        "PARAMETER repeat_penalty 1",  # Ollama's default, 1.1, would draw from other probabilities
        f"PARAMETER num_ctx {min(window, MOST_CONTEXT)}",
    ]
    if form is not None and form.system and '"""' not in form.system:
        lines.append(f'SYSTEM """{form.system}"""')
    return "\n".join(lines) + "\n"


def _chatml_turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def _llama3_turn(role: str, content: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"
