"""Random models of one or two layers in the shape of each family, with the byte tokenizer of the tiny base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WINDOW = 256
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": WINDOW}
FAMILIES = ("llama", "gpt2", "qwen2", "gemma", "phi3", "mistral", "opt", "gpt_neox")


def save_family(
    family: str, tiny_base: Path, directory: Path, *, pad_is_end: bool = True, dropout: float = 0.0
) -> Path:
    """A model of the family with its tokenizer in a directory; ``pad_is_end`` makes the end token pad as well."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    if pad_is_end:
        tokenizer.pad_token = tokenizer.eos_token
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = AutoModelForCausalLM.from_config(_config(family, tokenizer, dropout))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _config(family: str, tokenizer: Any, dropout: float) -> Any:
    from transformers import AutoConfig

    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "initializer_range": 0.2,
    }
    if family == "gpt2":
        dropouts = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
        return AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=WINDOW, **dropouts, **special)
    if family == "opt":
        own = {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": dropout, "init_std": 0.2}
        return AutoConfig.for_model("opt", **SHAPE, **own, **special)
    if family == "gpt_neox":
        return AutoConfig.for_model("gpt_neox", **SHAPE, intermediate_size=64, hidden_dropout=dropout, **special)
    own = {"intermediate_size": 64, "num_key_value_heads": 2}
    if family == "gemma":
        own["head_dim"] = 8
    return AutoConfig.for_model(family, **SHAPE, **own, **special)
