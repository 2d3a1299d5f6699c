"""A Modelfile asks the model as its own chat template does, or leaves that to the template in the GGUF file."""

from __future__ import annotations

import re
from typing import Any

import pytest

from feedback.types import SamplingSettings
from tests.training.export.conftest import CHATML as CHATML_JINJA
from tests.training.export.conftest import tokenizer_split_as
from training.export.gguf_vocabulary import read_vocabulary
from training.export.modelfile import CHATML, LLAMA3, chat_form, modelfile

LLAMA3_JINJA = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TALKS = [
    [{"role": "user", "content": "Explain rain."}],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ],
]


def as_ollama(template: str, messages: list[dict[str, str]]) -> str:
    """What Go makes of the few constructs that the templates use: a range, two fields, trimmed space before."""
    found = re.fullmatch(r"(.*?)\{\{- range \.Messages \}\}(.*?)\{\{ end \}\}(.*)", template, re.DOTALL)
    assert found is not None
    before, body, after = found.groups()
    turns = [body.replace("{{ .Role }}", m["role"]).replace("{{ .Content }}", m["content"]) for m in messages]
    return before.rstrip() + "".join(turns) + after


def with_bos_added(tokenizer: Any) -> Any:
    """The tokenizer, putting its bos token before every text by itself."""
    from tokenizers import processors

    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    single = f"{bos[0]} $A"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[bos])
    return tokenizer


def smol_like_tokenizer() -> Any:
    """ChatML whose first control token is the bos token as well, which nothing adds by itself."""
    tokenizer = tokenizer_split_as("smollm", "qwen2_5", CHATML_JINJA)
    tokenizer.bos_token = "<|im_start|>"
    return tokenizer


def llama3_tokenizer() -> Any:
    return tokenizer_split_as("llama-bpe", "llama3", LLAMA3_JINJA)


@pytest.mark.parametrize(
    ("tokenizer", "template", "system", "is_added"),
    [
        (smol_like_tokenizer(), CHATML, "You are a small assistant.", False),
        (llama3_tokenizer(), "<|begin_of_text|>" + LLAMA3, None, False),
        (with_bos_added(llama3_tokenizer()), LLAMA3, None, True),
    ],
    ids=["chatml", "llama3", "llama3-bos-added"],
)
def test_the_go_template_renders_what_the_models_own_does(
    tokenizer: Any, template: str, system: str | None, is_added: bool
) -> None:
    form = chat_form(tokenizer)
    assert form is not None and (form.template, form.system) == (template, system)
    written = read_vocabulary(tokenizer, len(tokenizer), end=tokenizer.eos_token_id, begins_with_bos=True)
    assert written.adds_bos == is_added
    for messages in TALKS:
        asked = [{"role": "system", "content": system}] if system and messages[0]["role"] != "system" else []
        ours = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        added = tokenizer.bos_token if is_added else ""
        assert added + as_ollama(form.template, [*asked, *messages]) == ours


@pytest.mark.parametrize("family", ["llama3_2", "deepseek_r1", "gemma", "phi3", "cohere"])
def test_other_templates_are_left_to_the_file(family: str) -> None:
    from tests.training.families import FAMILIES, tokenizer_of

    tokenizer = tokenizer_of(FAMILIES[family])
    assert chat_form(tokenizer) is None
    text = modelfile("m.gguf", tokenizer, 512)
    assert 'TEMPLATE "' not in text and "# No TEMPLATE" in text and f'PARAMETER stop "{FAMILIES[family].turn}"' in text


def test_a_template_that_says_more_to_a_lone_question_is_left_to_the_file() -> None:
    jinja = "{% if messages | length == 1 %}{{ 'Once upon a time. ' }}{% endif %}" + CHATML_JINJA
    assert chat_form(tokenizer_split_as("smollm", "qwen2_5", jinja)) is None


def test_qwens_template_is_chatml_with_its_own_system_message() -> None:
    form = chat_form(tokenizer_split_as("qwen2", "qwen2_5"))
    assert form is not None and form.template == CHATML and str(form.system).startswith("You are Qwen")


def test_the_whole_file() -> None:
    tokenizer = tokenizer_split_as("smollm", "qwen2_5", CHATML_JINJA)
    text = modelfile("child-f16.gguf", tokenizer, 100_000, SamplingSettings(temperature=0.7, top_p=0.9))
    assert text == (
        'FROM ./child-f16.gguf\nTEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n'
        '{{ end }}<|im_start|>assistant\n"""\nPARAMETER stop "<|im_end|>"\nPARAMETER temperature 0.7\n'
        "PARAMETER top_p 0.9\nPARAMETER top_k 0\nPARAMETER repeat_penalty 1\nPARAMETER num_ctx 8192\n"
        'SYSTEM """You are a small assistant."""\n'
    )
