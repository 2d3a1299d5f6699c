"""Tiny random models of several families, each a directory as a person would have it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def byte_tokenizer(template: str | None = TEMPLATE, **named: Any) -> Any:
    """A tokenizer of one token per byte, 261 in all."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*SPECIALS, *letters])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIALS)
    settings = {"pad_token": "<|pad|>", "eos_token": "<|end|>", "additional_special_tokens": SPECIALS[2:], **named}
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template, **settings)


def config_of(family: str, **settings: Any) -> Any:
    """A small configuration of a family, by the name Transformers has for it."""
    from transformers import CONFIG_MAPPING

    sizes: dict[str, dict[str, Any]] = {
        "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128},
        "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
        "opt": {**SMALL, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 128},
        "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
        "mixtral": {**SMALL, "intermediate_size": 32, "num_key_value_heads": 1, "num_local_experts": 2},
    }
    grouped = {"num_key_value_heads": 1} if family in ("llama", "qwen2", "mistral", "qwen3", "gemma2") else {}
    usual = {**SMALL, "intermediate_size": 32, "max_position_embeddings": 128, **grouped}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return CONFIG_MAPPING[family](**{"vocab_size": 261, **ids, **sizes.get(family, usual), **settings})


def model_at(
    directory: Path, family: str = "llama", *, tokenizer: Any = None, kind: Any = None, **settings: Any
) -> Path:
    """Save a random model of a family, or of the class ``kind``, with a tokenizer into a directory."""
    import torch
    from transformers import AutoModelForCausalLM

    config = config_of(family, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = (kind or AutoModelForCausalLM.from_config)(config)
    model.save_pretrained(directory)
    (tokenizer or byte_tokenizer()).save_pretrained(directory)
    return directory


def change_weights(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let ``change`` edit the tensors of a model directory by name."""
    from safetensors.torch import load_file, save_file

    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
