"""A GGUF file's tensors and metadata, by llama.cpp's conventions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.errors import InvalidInput
from tests.training.export.conftest import tokenizer_split_as
from tests.training.families import save_model
from tests.training.tiny_models import config_of
from training.export.gguf_file import (
    FAMILIES,
    Labels,
    context_length,
    interleave,
    refuse_unwritable,
    rope_factors,
    stored_as,
    write_gguf,
)
from training.export.gguf_vocabulary import read_vocabulary
from training.models.loading import load_base

LLAMA_3_1 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def written(tmp_path: Path, quantization: str = "f16", family: str = "llama", **changes: Any) -> tuple[Any, Any]:
    """The reader of a file that was written of a tiny model, and the model."""
    from gguf import GGUFReader

    model, tokenizer = load_base(str(save_model(tmp_path / "base", tokenizer_split_as("qwen2"), family, **changes)))
    rows = model.config.vocab_size
    vocabulary = read_vocabulary(tokenizer, rows, end=tokenizer.eos_token_id, begins_with_bos=False)
    write_gguf(tmp_path / "model.gguf", model, vocabulary, quantization, Labels("tiny", "me/base", "mit"))
    return GGUFReader(str(tmp_path / "model.gguf")), model


def test_rows_are_interleaved_as_transformers_undoes_it() -> None:
    import numpy as np
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    weight = np.arange(24 * 5, dtype=np.float32).reshape(24, 5)
    woven = interleave(weight, 3)
    assert woven[:4, 0].tolist() == [0, 20, 5, 25]  # rows 0, 4, 1, 5 of the first head of 8
    undone = LlamaTensorProcessor()._reverse_permute_weights(woven, 3, 3)
    assert (undone == weight).all()


def test_scaled_frequencies_are_those_of_transformers() -> None:
    import numpy as np
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = config_of("llama", hidden_size=256, num_attention_heads=2, rope_parameters=LLAMA_3_1)
    factors = rope_factors(config)
    plain = 1.0 / 500000.0 ** (np.arange(0, 128, 2) / 128)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    assert factors is not None and factors.shape == (64,) and factors.min() == 1.0 and factors.max() == 8.0
    np.testing.assert_allclose(plain / factors, scaled.numpy(), rtol=1e-5)
    assert rope_factors(config_of("llama")) is None


def test_metadata_and_tensor_types(tmp_path: Path) -> None:
    reader, model = written(tmp_path, family="qwen3", tie_word_embeddings=True)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "qwen3" and fields["general.license"] == "mit"
    assert fields["general.base_model.0.name"] == "me/base" and fields["general.name"] == "tiny"
    assert fields["qwen3.context_length"] == 512 and fields["qwen3.attention.key_length"] == model.config.head_dim
    assert fields["qwen3.attention.head_count"] == 4 and fields["qwen3.attention.head_count_kv"] == 2
    assert fields["qwen3.rope.freq_base"] == pytest.approx(model.config.rope_parameters["rope_theta"])
    assert fields["tokenizer.ggml.model"] == "gpt2" and fields["tokenizer.ggml.pre"] == "qwen2"
    assert fields["tokenizer.ggml.add_bos_token"] is False and "im_start" in fields["tokenizer.chat_template"]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert "output.weight" not in tensors and tensors["blk.1.attn_q_norm.weight"].tensor_type.name == "F32"
    assert {t.tensor_type.name for name, t in tensors.items() if "norm" not in name} == {"F16"}
    embedding = model.get_input_embeddings().weight.half().numpy()
    assert (tensors["token_embd.weight"].data == embedding).all()


def test_q8_0_keeps_each_weight_within_half_a_step(tmp_path: Path) -> None:
    import numpy as np
    from gguf import dequantize

    reader, model = written(tmp_path, "q8_0", tie_word_embeddings=False)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    found = tensors["blk.0.ffn_up.weight"]
    assert found.tensor_type.name == "Q8_0" and "output.weight" in tensors
    weight = model.model.layers[0].mlp.up_proj.weight.numpy().reshape(-1, 32)
    steps = np.abs(weight).max(1, keepdims=True) / 127
    restored = dequantize(found.data, found.tensor_type).reshape(-1, 32)
    # Half a step by rounding to it, and 127 times what F16 rounds the step itself by
    assert (np.abs(restored - weight) <= (0.5 + 127 * 2**-11) * steps).all() and not (restored == weight).all()


def test_what_is_stored_how() -> None:
    assert [stored_as((64,), q) for q in ("f16", "q8_0")] == ["f32", "f32"]
    assert [stored_as((8, 64), q) for q in ("f16", "q8_0")] == ["f16", "q8_0"]
    assert stored_as((64, 40), "q8_0") == "f16"  # blocks of 32 do not fill its rows


def test_a_sliding_window_limits_the_context() -> None:
    assert context_length(config_of("mistral", sliding_window=64)) == 64
    assert context_length(config_of("mistral", sliding_window=None)) == 128
    assert context_length(config_of("qwen2", sliding_window=64, use_sliding_window=False)) == 128


@pytest.mark.parametrize(
    ("family", "changes", "why"),
    [
        ("gpt2", {}, "family 'gpt2' cannot be written as GGUF here. Families that can: llama, mistral, qwen2, qwen3"),
        ("llama", {"attention_bias": True}, "its attention has biases"),
        ("llama", {"hidden_act": "gelu"}, "its activation is gelu"),
        ("qwen2", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "of the kind 'yarn'"),
    ],
)
def test_models_that_cannot_be_written_are_refused(family: str, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        refuse_unwritable(config_of(family, **changes), "f16")


def test_a_weight_that_f16_cannot_hold_is_refused(tmp_path: Path) -> None:
    import torch

    model, tokenizer = load_base(str(save_model(tmp_path / "base", tokenizer_split_as("qwen2"))))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    vocabulary = read_vocabulary(tokenizer, model.config.vocab_size, end=1, begins_with_bos=False)
    with pytest.raises(InvalidInput, match="blk.0.ffn_up.weight holds numbers that F16 cannot"):
        write_gguf(tmp_path / "model.gguf", model, vocabulary, "f16", Labels("tiny", "base"))


def test_every_family_is_an_architecture_of_the_package() -> None:
    import gguf

    assert set(FAMILIES.values()) <= set(gguf.MODEL_ARCH_NAMES.values())
