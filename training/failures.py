"""Why a run failed: in a sentence for the person who reads it, and in a word for those who sort runs."""

from __future__ import annotations

import errno
from typing import Any

from feedback.errors import CheckpointError, InvalidInput, NotEnoughData, NotFound, StudioError
from training.checkpoints.saving import is_disk_full
from training.models.base_files import is_out_of_memory

# Settings that cost memory, dearest first; the first one a method has is named when memory runs out.
MEMORY_SETTINGS = ("micro_batch", "batch_size", "max_length", "max_new_tokens", "lora_rank")


def explain(error: BaseException, settings: dict[str, Any]) -> str:
    """One sentence for the person who reads why the run failed."""
    text = str(error).strip()
    if isinstance(error, StudioError):
        return text
    if is_out_of_memory(error):
        return f"The run ran out of memory: {_cheaper(settings)}, then start it again."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The disk is full: free some space, then resume the run."
    first_line = text.splitlines()[0] if text else "no message"
    return f"{type(error).__name__}: {first_line[:400]} (the log has the rest)."


def kind_of(error: BaseException) -> str:
    """What sort of failure it was: memory, diverged, data, disk or crash."""
    if is_out_of_memory(error):
        return "memory"
    if type(error).__name__ == "Diverged":  # by name: its module would bring torch's trainers along
        return "diverged"
    if is_disk_full(error):
        return "disk"
    if isinstance(error, NotEnoughData | NotFound | InvalidInput):
        return "data"
    return "checkpoint" if isinstance(error, CheckpointError) else "crash"


def _cheaper(settings: dict[str, Any]) -> str:
    """Names the first two settings of the method that cost memory; ``None`` is a value chosen by model or machine."""
    present = [name for name in MEMORY_SETTINGS if isinstance(settings.get(name, ""), int | None)]
    named = [f"{name} (now {'automatic' if settings[name] is None else settings[name]})" for name in present]
    return "lower " + " or ".join(named[:2]) if named else "use a smaller model or smaller batches"
