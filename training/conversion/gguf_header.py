"""What a GGUF file says of itself, read without its weights, and why it could not be converted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput

MAGIC = b"GGUF"
SUFFIX = ".gguf"
FREQUENCIES = "rope_freqs.weight"
"""The tensor that holds the factors of scaled rotary frequencies, as those of Llama 3.1."""
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_HELD = 2  # tensors are held in their file's form and in fp32 while they are written
_PROJECTORS = ("clip", "mmproj")


@dataclass(frozen=True)
class GgufHeader:
    """The metadata of a GGUF file by key, how many numbers its tensors hold, and its rotary factors if it has some."""

    path: Path
    metadata: Mapping[str, Any]
    parameters: int
    frequencies: tuple[float, ...] = ()

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, such as ``llama`` or ``qwen2``."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def pre_tokenizer(self) -> str | None:
        """llama.cpp's name of how text is split before merges; None for tokenizers without merges."""
        is_bpe = self.metadata.get("tokenizer.ggml.model") == "gpt2"
        return str(self.metadata.get("tokenizer.ggml.pre", "default")) if is_bpe else None

    @property
    def chat_template(self) -> str | None:
        """The chat template in the metadata."""
        return self.metadata.get("tokenizer.chat_template") or None

    def own(self, key: str) -> Any:
        """The value of a key of the architecture, such as ``attention.key_length``; None where it is not there."""
        return self.metadata.get(f"{self.architecture}.{key}")


def is_gguf(path: Path) -> bool:
    """Whether a path is a file that is meant as GGUF: by its first bytes, or by its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == SUFFIX or file.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file; InvalidInput where it is damaged, a part of a split one, or of no language model."""
    from gguf import GGUFReader

    part = _PART.search(path.name)
    if part:
        raise _split_over(path, int(part.group(2)))
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InvalidInput(f"{path} is no GGUF file: it does not begin with {MAGIC.decode()}.")
    try:
        reader: Any = GGUFReader(str(path))
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        parameters = sum(math.prod(map(int, tensor.shape)) for tensor in tensors.values())
        factors = tensors[FREQUENCIES].data.tolist() if FREQUENCIES in tensors else ()
    except Exception as error:  # the reader raises whatever numpy meets in a damaged file
        raise InvalidInput(
            f"The GGUF file {path} is damaged or was cut off ({type(error).__name__}: {str(error)[:120]}). Download or "
            "copy it again."
        ) from error
    parts = int(metadata.get("split.count") or 1)
    if parts > 1:
        raise _split_over(path, parts)
    header = GgufHeader(path, metadata, parameters, tuple(map(float, factors)))
    if header.architecture in _PROJECTORS or not tensors:
        raise InvalidInput(
            f"The GGUF file {path} holds no language model (architecture {header.architecture or 'none'!r}, "
            f"{len(tensors)} tensors). Name the file of the language model itself."
        )
    return header


def refuse_unfit_machine(header: GgufHeader, directory: Path) -> None:
    """Refuse a file whose weights in fp32 fit neither the free memory nor the disk of the cache."""
    import shutil

    import psutil

    needed = 4 * header.parameters
    for what, factor, free in (
        ("memory", _HELD, psutil.virtual_memory().available),
        (f"disk in {directory}", 1, shutil.disk_usage(directory).free),
    ):
        if factor * needed > free:
            raise InvalidInput(
                f"{header.path} holds {header.parameters / 1e9:.1f} billion numbers; expanding them takes about "
                f"{factor * needed / 1e9:.1f} GB of {what}, and {free / 1e9:.1f} GB are free. Use a machine with more, "
                "or the safetensors of the same model."
            )


def _split_over(path: Path, parts: int) -> InvalidInput:
    return InvalidInput(
        f"{path} is one of the {parts} files that a model was split into, and only whole files are read. Join them by "
        "llama.cpp's `llama-gguf-split --merge FIRST-PART JOINED.gguf`, and name the joined file."
    )
