"""Read a GGUF file back and compare: its tokenizer put together again, its weights loaded by plain ``transformers``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedback.errors import CheckpointError
from training.export.gguf_vocabulary import PROBE_TEXT, rebuild
from training.export.parity import GreedyReply, agreement, load_plain
from training.models.chat import prompt_text

FLOORS = {"f16": 0.99, "q8_0": 0.95}
"""Share of the policy's greedy tokens that must be the likeliest ones of the file as well."""


def check_gguf_tokenizer(path: Path, tokenizer: Any, replies: Sequence[GreedyReply]) -> int:
    """Raise CheckpointError unless the file's vocabulary gives the same ids; how many texts were compared."""
    from gguf import GGUFReader

    fields = GGUFReader(str(path)).fields
    written = {name: fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges", "pre")}
    try:
        rebuilt = rebuild(written["tokens"], written["token_type"], written["merges"], written["pre"])
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(f"The GGUF file's tokenizer cannot be put together again: {error}") from error
    texts = [PROBE_TEXT, *(prompt_text(tokenizer, one.messages) for one in replies)]
    for text in texts:
        ours = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        if rebuilt.encode(text, add_special_tokens=False).ids != ours:
            raise CheckpointError(
                f"The GGUF file's tokenizer encodes {text[:60]!r} otherwise than the model's own. Nothing was "
                "exported; `--as merged` exports the model."
            )
    return len(texts)


def check_gguf_model(
    path: Path, config: Any, replies: Sequence[GreedyReply], quantization: str, *, banned: list[int]
) -> tuple[int, int]:
    """Raise CheckpointError unless the file's likeliest tokens are the policy's; how many are, of how many."""
    model = load_plain(path.parent, gguf_file=path.name, config=readable_config(path, config))
    same, total = agreement(model, replies, banned=banned)
    if same < FLOORS[quantization] * total:
        raise CheckpointError(
            f"The GGUF file in {quantization} says another token than the policy at {total - same} of {total} places; "
            f"{100 * FLOORS[quantization]:.0f} % must be the same. Nothing was exported; "
            + ("try `--quantization f16`." if quantization != "f16" else "`--as merged` exports the model.")
        )
    return same, total


def readable_config(path: Path, config: Any) -> Any:
    """What ``transformers`` reads of the file's configuration, with what it leaves out: head size, scaled frequencies.

    All else is the file's own, so that a wrong entry shows.
    """
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True)
    if getattr(config, "head_dim", None):
        found.head_dim = config.head_dim
    if (config.rope_parameters or {}).get("rope_type", "default") != "default":
        found.rope_parameters = {**config.rope_parameters, "rope_theta": found.rope_parameters["rope_theta"]}
    return found
