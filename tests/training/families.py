"""Tokenizers and tiny random models in the shape of the families people bring, with their published chat templates.

The templates are those TRL ships for comparison; the vocabularies are small, the control tokens real.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from training.models.chat_template import fix_template_date

TEXT = (
    "Read a book. The rain falls on the roof and people talk about the weather, then they go home and cook. "
    "Write a short note to thank a friend. Explain rain to a child. Clouds are made of tiny drops. "
) * 4


@dataclass(frozen=True)
class Family:
    """A family: its template's file, its end of sequence, what ends its turns, its other control tokens.

    ``pieces`` is ``bytes`` for byte-level BPE or ``metaspace`` for SentencePiece's leading space.
    """

    template: str
    eos: str
    turn: str
    control: tuple[str, ...] = ()
    bos: str | None = None
    pieces: str = "bytes"
    thinks: bool = False


CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
FAMILIES = {
    "llama3": Family(
        "llama3", "<|eot_id|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>"), "<|begin_of_text|>"
    ),
    "llama3_2": Family(
        "llama3_2", "<|eot_id|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>"), "<|begin_of_text|>"
    ),
    "gemma": Family("gemma", "<eos>", "<end_of_turn>", ("<start_of_turn>",), "<bos>", "metaspace"),
    "gemma3": Family("gemma3", "<eos>", "<end_of_turn>", ("<start_of_turn>",), "<bos>", "metaspace"),
    "phi3": Family("phi3", "<|endoftext|>", "<|end|>", ("<|user|>", "<|assistant|>", "<|system|>"), None, "metaspace"),
    "phi3_5": Family("phi3_5", "<|endoftext|>", "<|end|>", ("<|user|>", "<|assistant|>", "<|system|>")),
    "qwen2_5": Family("qwen2_5", "<|im_end|>", "<|im_end|>", CHATML),
    "qwen3": Family("qwen3", "<|im_end|>", "<|im_end|>", CHATML, thinks=True),
    "qwen3_5_think": Family("qwen3_5_think", "<|im_end|>", "<|im_end|>", CHATML, thinks=True),
    "deepseek_r1": Family(
        "deepseek_r1_distill", "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ("<｜User｜>", "<｜Assistant｜>"),
        "<｜begin▁of▁sentence｜>", thinks=True,
    ),
    "gptoss": Family(
        "gptoss", "<|return|>", "<|return|>", ("<|start|>", "<|message|>", "<|channel|>", "<|end|>"), "<|startoftext|>"
    ),
    "cohere": Family(
        "cohere", "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
        ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"), "<BOS_TOKEN>",
    ),
    "cohere2": Family(
        "cohere2", "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
        ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|START_RESPONSE|>",
         "<|END_RESPONSE|>"), "<BOS_TOKEN>",
    ),
    "lfm2": Family("lfm2", "<|im_end|>", "<|im_end|>", CHATML, "<|startoftext|>"),
}  # fmt: skip

# A template in the manner of Zephyr and TinyLlama, whose replies follow a line break in SentencePiece's vocabulary
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Instructions in brackets, a space before and behind the reply, and a system message that only a prompt shows
BRACKETS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + (messages[0]['content'] + '\n\n' if loop.last and messages[0]['role'] == 'system' else '') "
    "+ message['content'] + '[/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)


def template_of(family: Family) -> str:
    """The published template of a family."""
    return files("trl").joinpath("chat_templates", f"{family.template}.jinja").read_text()


@cache
def _core(pieces: str) -> str:
    """A small BPE tokenizer as JSON: byte-level, or SentencePiece-like with byte fallback and a leading space."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if pieces == "bytes":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        core.train_from_iterator(
            [TEXT], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
        )
        return core.to_str()
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.pre_tokenizer = pre_tokenizers.Split(Regex("(?=▁)"), "isolated")
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    core.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *fallback], show_progress=False),
    )
    core.pre_tokenizer = None
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    described = json.loads(core.to_str())
    # The trainer knows no other way to have byte tokens; in a real vocabulary they are pieces like any other
    described["added_tokens"] = described["added_tokens"][:1]
    return json.dumps(described)


def tokenizer_of(family: Family, template: str | None = None) -> Any:
    """A tokenizer with the family's control tokens and its chat template, or the template given."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer.from_str(_core(family.pieces))
    names = dict.fromkeys([*filter(None, [family.bos, family.eos]), family.turn, *family.control])
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if family.thinks:
        core.add_tokens([AddedToken(name, special=False, normalized=False) for name in ("<think>", "</think>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=family.eos,
        bos_token=family.bos,
        chat_template=template or template_of(family),
        clean_up_tokenization_spaces=False,
    )
    fix_template_date(tokenizer)
    return tokenizer


def save_model(directory: Path, tokenizer: Any, kind: str = "llama", **changes: Any) -> Path:
    """A random model of two layers beside its tokenizer, as people download them: ``kind`` is llama, gpt2 or qwen2."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
    }  # fmt: skip
    if kind == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **{**sizes, **ends, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
