"""Write a merged model of a Llama-like family as one GGUF file, in F16 or Q8_0.

Matrices are stored in F16 or Q8_0, vectors in F32. The rows of query and key projections of ``llama`` files are
interleaved, as llama.cpp's rotary embedding for that architecture wants them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.errors import InvalidInput
from training.export.gguf_vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np

FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Transformers' name of a family → llama.cpp's name of the architecture that computes it."""
QUANTIZATIONS = ("f16", "q8_0")
_BLOCK = 32  # weights that share a scale in Q8_0
_BLOCK_BYTES = 34
_FILE_TYPES = {"f16": 1, "q8_0": 7}  # of GGUF's general.file_type
_ROPES = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Labels:
    """What a GGUF file says of itself: its name, the name and license of the base."""

    name: str
    base: str
    license: str | None = None


def refuse_unwritable(config: Any, quantization: str) -> None:
    """Raise InvalidInput for a quantization or a model that is not written here, naming those that are."""
    if quantization not in QUANTIZATIONS:
        raise InvalidInput(f"There is no quantization {quantization!r}. Valid: {', '.join(QUANTIZATIONS)}.")
    if config.model_type not in FAMILIES:
        raise InvalidInput(
            f"A model of the family {config.model_type!r} cannot be written as GGUF here. Families that can: "
            f"{', '.join(FAMILIES)}. `--as merged` exports it for llama.cpp's own convert_hf_to_gguf.py."
        )
    rope = _rope(config).get("rope_type", "default")
    faults = {
        f"its activation is {config.hidden_act}": config.hidden_act not in ("silu", "swish"),
        "its attention has biases": getattr(config, "attention_bias", False),
        "its MLP has biases": getattr(config, "mlp_bias", False),
        f"its rotary embedding is of the kind {rope!r} (written: {', '.join(_ROPES)})": rope not in _ROPES,
        "its rotary embedding turns a part of each head": _rope(config).get("partial_rotary_factor", 1.0) != 1.0,
    }
    for fault, is_there in faults.items():
        if is_there:
            raise InvalidInput(f"This model cannot be written as GGUF: {fault}. `--as merged` exports it as it is.")


def write_gguf(path: Path, model: Any, vocabulary: Vocabulary, quantization: str, labels: Labels) -> None:
    """Write a model that ``refuse_unwritable`` has let through; one tensor at a time is held besides the model.

    Raises:
        InvalidInput: A weight has no place in llama.cpp's architecture, or is too large for F16.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), FAMILIES[model.config.model_type])
    _describe_model(writer, model, quantization, labels)
    _describe_vocabulary(writer, vocabulary)
    shapes = [(name, tuple(tensor.shape)) for name, tensor in _named(model)]
    factors = rope_factors(model.config)
    if factors is not None:
        shapes.append((_rope_tensor(), factors.shape))
    for name, shape in shapes:
        kind = stored_as(shape, quantization)
        size = math.prod(shape)
        if kind == "q8_0":
            stored = (*shape[:-1], shape[-1] // _BLOCK * _BLOCK_BYTES)
            block = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor_info(name, stored, np.dtype(np.uint8), math.prod(stored), raw_dtype=block)
        else:
            dtype = np.dtype(np.float16 if kind == "f16" else np.float32)
            writer.add_tensor_info(name, shape, dtype, size * dtype.itemsize)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in _named(model):
            writer.write_tensor_data(_stored(name, tensor.detach().float().cpu().numpy(), model.config, quantization))
        if factors is not None:
            writer.write_tensor_data(factors)
    finally:
        writer.close()


def stored_as(shape: tuple[int, ...], quantization: str) -> str:
    """How a tensor of this shape is stored: vectors in f32, rows that blocks of 32 do not fill in f16."""
    if len(shape) == 1:
        return "f32"
    return quantization if quantization != "q8_0" or shape[-1] % _BLOCK == 0 else "f16"


def context_length(config: Any) -> int:
    """Tokens that the file's model may read: its window, or the sliding window, which llama.cpp would not apply."""
    sliding = getattr(config, "sliding_window", None)
    if sliding is None or not getattr(config, "use_sliding_window", True):
        return int(config.max_position_embeddings)
    return int(min(config.max_position_embeddings, sliding))


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows (head · size, …) of a rotary projection, the halves of each head woven into pairs."""
    size = weight.shape[0] // heads
    return weight.reshape(heads, 2, size // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def rope_factors(config: Any) -> np.ndarray | None:
    """What Llama 3.1 divides each rotary frequency by (head size / 2,); None for models that scale none.

    Long waves are stretched by ``factor``, short ones stay, those between are blended.
    """
    import numpy as np

    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    size = _head_size(config)
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float64) / size)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * np.pi)  # within the trained window
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - blend) / rope["factor"] + blend)).astype(np.float32)


def _describe_model(writer: Any, model: Any, quantization: str, labels: Labels) -> None:
    import gguf

    config, rope = model.config, _rope(model.config)
    writer.add_type("model")
    writer.add_name(labels.name)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, labels.base)
    if labels.license:
        writer.add_license(labels.license)
    writer.add_file_type(_FILE_TYPES[quantization])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(model.get_input_embeddings().weight.shape[0])
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _describe_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for name, number in vocabulary.ids.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(vocabulary.template)


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    """The model's weights under llama.cpp's names; a head that is the embedding is left out."""
    import gguf

    config = model.config
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == FAMILIES[config.model_type])
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise InvalidInput(
                f"The weight {name} has no place in a GGUF file of a {config.model_type}. `--as merged` exports the "
                "model as it is."
            )
        yield found, tensor


def _stored(name: str, weight: np.ndarray, config: Any, quantization: str) -> np.ndarray:
    """A weight as its bytes go into the file."""
    import gguf
    import numpy as np

    if FAMILIES[config.model_type] == "llama" and ".attn_q." in name:
        weight = interleave(weight, config.num_attention_heads)
    elif FAMILIES[config.model_type] == "llama" and ".attn_k." in name:
        weight = interleave(weight, config.num_key_value_heads)
    kind = stored_as(weight.shape, quantization)
    if kind == "f32":
        return np.ascontiguousarray(weight, dtype=np.float32)
    if np.abs(weight).max() > np.finfo(np.float16).max:  # Q8_0 keeps its scales in F16
        raise InvalidInput(f"The weight {name} holds numbers that F16 cannot. `--as merged` exports them as they are.")
    if kind == "f16":
        return np.ascontiguousarray(weight, dtype=np.float16)
    found: np.ndarray = gguf.quantize(np.ascontiguousarray(weight, dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    return found


def _rope(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {"rope_theta": 10000.0})


def _rope_tensor() -> str:
    import gguf

    return f"{gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS]}.weight"


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
