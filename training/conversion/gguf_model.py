"""A GGUF file as a model directory: fp32 safetensors, tokenizer and chat template.

Quantized matrices are expanded once, exactly, into the numbers that llama.cpp computes with. What transformers does not
read of a file (how its tokenizer splits text, head sizes, scaled rotary frequencies) is put right or refused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput
from training.bundled import models_directory
from training.checkpoints.registration import policy_name
from training.conversion.added_tokens import keep_added_tokens
from training.conversion.cache import RECORD, Report, made_once, sha256_of
from training.conversion.gguf_header import GgufHeader, read_header, refuse_unfit_machine
from training.conversion.pre_tokenizers import PRE_TOKENIZERS, known_name, split_as
from training.models.base_files import GGUF, first_line, is_out_of_memory
from training.models.base_fit import refuse_other_kind, refuse_unfit_weights
from training.models.loading import quiet_loading

_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")  # by GGUF's names
_HEAD_SIZE_UNREAD = ("qwen3",)  # families whose size of a head transformers does not take from the file
_EXACT = 1e-3  # of a rotary factor


def ensure_converted(path: Path, report: Report) -> Path:
    """The model directory made of a GGUF file; converts it first where this content was not converted before.

    The directory's name holds the hash of the file. Raises InvalidInput with what is unsupported or damaged.
    """
    header = read_header(path)
    report(0.0, f"reading {path.name}")
    digest = sha256_of(path)
    directory = models_directory() / f"{GGUF}-{digest[:16]}" / policy_name(path.stem)

    def make(partial: Path) -> None:
        refuse_unfit_machine(header, models_directory())
        report(0.2, f"converting {path.name}, once on this machine")
        model, tokenizer = load_gguf(header, report)
        report(0.7, f"writing {path.name} as safetensors")
        save_converted(model, tokenizer, partial, ends=ends_of(header))
        (partial / "README.md").write_text(_card(header), encoding="utf-8")
        record = {"file": path.name, "sha256": digest, "architecture": header.architecture}
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    return made_once(directory, make, report)


def load_gguf(header: GgufHeader, report: Report = lambda share, text: None) -> tuple[Any, Any]:
    """The causal model of a GGUF file in fp32, and its tokenizer; InvalidInput where transformers cannot read it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    file = header.path
    given: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    with quiet_loading():
        try:
            config = AutoConfig.from_pretrained(file.parent, **given)
            _complete_config(config, header)
            refuse_other_kind(config, str(file))
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **given)
            report(0.4, f"expanding the weights of {file.name}")
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, config=config, dtype=torch.float32, output_loading_info=True, **given
            )
            model, info = loaded
        except InvalidInput:
            raise
        except Exception as error:  # whatever a library raises at a file it cannot read
            if is_out_of_memory(error):
                raise
            raise _unsupported(header, error) from error
    refuse_unfit_weights(model, info, str(file))
    keep_added_tokens(tokenizer, header)
    name = header.pre_tokenizer
    if name is not None and (own := known_name(name)) is not None:
        split_as(tokenizer, own)
    elif name is not None:
        known = ", ".join(PRE_TOKENIZERS)
        report(0.4, f"its tokenizer splits text as llama.cpp's {name!r}; only {known} are known here, so that some "
               "texts may get other tokens than in llama.cpp")  # fmt: skip
    for attribute in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, attribute):
            delattr(model.config, attribute)
    model.hf_quantizer, model.is_quantized = None, False  # the weights are plain fp32 now
    return model, tokenizer


def ends_of(header: GgufHeader) -> list[int]:
    """The tokens that end a reply, by the file's metadata; the first is the tokenizer's own end token."""
    named = [header.metadata.get(f"tokenizer.ggml.{name}") for name in _ENDS]
    return list(dict.fromkeys(int(number) for number in named if number is not None))


def save_converted(model: Any, tokenizer: Any, directory: Path, *, ends: list[int], **sampling: Any) -> None:
    """Write a model and its tokenizer, and read the weights again; ``sampling`` goes into the generation config."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    _verify_written(model, directory)


def weights_hash(model: Any) -> str:
    """SHA-256 over the names and bytes of a model's weights, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _card(header: GgufHeader) -> str:
    """A model card with the license that the file names, which exports of policies on it carry on."""
    named = header.metadata.get("general.license")
    front = f"---\nlicense: {json.dumps(str(named))}\n---\n\n" if named else ""
    return f"{front}# {header.path.stem}\n\nThe weights of the GGUF file `{header.path.name}`, expanded into fp32.\n"


def _verify_written(model: Any, directory: Path) -> None:
    """OSError unless every weight on the disk is the one in memory, and none is missing but those that are tied."""
    import torch
    from safetensors import safe_open

    held = model.state_dict()
    found: set[str] = set()
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (a file of tensors is no dictionary)
                if not torch.equal(file.get_tensor(name), held[name]):
                    raise OSError(f"{name} in {path} is not what was written; the disk may be failing.")
                found.add(name)
    written = {held[name].data_ptr() for name in found}
    lost = sorted(name for name, tensor in held.items() if name not in found and tensor.data_ptr() not in written)
    if lost:
        raise OSError(f"{lost[0]} was not written to {directory}.")


def _complete_config(config: Any, header: GgufHeader) -> None:
    """What transformers leaves out of a file's configuration: the size of a head, scaled rotary frequencies."""
    size = header.own("attention.key_length")
    if size is not None and config.model_type in _HEAD_SIZE_UNREAD:
        config.head_dim = int(size)
    if header.frequencies:
        config.rope_parameters = _llama3_scaling(config, header)
        return
    scaling = str(header.own("rope.scaling.type") or "none")
    if scaling != "none" and (config.rope_parameters or {}).get("rope_type", "default") == "default":
        raise InvalidInput(
            f"The rotary frequencies of {header.path} are scaled ({scaling}), which transformers does not read from "
            "GGUF: its replies would be others. Use the safetensors of the same model."
        )


def _llama3_scaling(config: Any, header: GgufHeader) -> dict[str, Any]:
    """Llama 3's scaling of rotary frequencies, whose factors the file holds as a tensor; InvalidInput for another."""
    import copy

    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theta = dict(config.rope_parameters or {}).get("rope_theta", 10_000.0)
    scaled = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": max(header.frequencies),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    trial = copy.deepcopy(config)
    trial.rope_parameters = scaled
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](trial, torch.device("cpu"))
    plain = theta ** (-torch.arange(0, 2 * len(frequencies), 2).float() / (2 * len(frequencies)))
    expected, found = plain / frequencies, torch.tensor(header.frequencies)
    if expected.shape != found.shape or not torch.allclose(expected, found, rtol=_EXACT, atol=_EXACT):
        raise InvalidInput(
            f"The rotary frequencies of {header.path} are scaled in another way than Llama 3's, which cannot be taken "
            "over from GGUF. Use the safetensors of the same model."
        )
    return scaled


def _unsupported(header: GgufHeader, error: Exception) -> InvalidInput:
    """The error for a file that transformers cannot read, with the architectures that it can."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    others = {"general", "tokenizer", "t5", "umt5"}  # no architectures, or no causal ones
    known = ", ".join(sorted(set(GGUF_SUPPORTED_ARCHITECTURES) - others))
    why = f"The GGUF file {header.path} (architecture {header.architecture!r}) cannot be converted: {first_line(error)}"
    return InvalidInput(
        f"{why.rstrip('.')}. Transformers reads GGUF of {known}; else use the safetensors of the same model."
    )
