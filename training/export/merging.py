"""Merge a policy's adapter into its base, in fp32, and write the result as a directory of ``transformers``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.errors import CheckpointError, InvalidInput
from training.export.origin import Origin
from training.models.base_files import base_directory
from training.models.loading import quiet_loading

if TYPE_CHECKING:
    from training.models.loading import LoadedPolicy

MERGEABLE = ("LORA", "ADALORA", "IA3")
"""The adapter kinds of this studio, by PEFT's names, that merge into the base's weights."""


def refuse_unmergeable(origin: Origin) -> None:
    """Raise InvalidInput for a policy whose adapter cannot be merged exactly, naming what can be had instead."""
    kind, manifest = origin.adapter_kind, origin.manifest
    if kind is None or manifest is None:
        return
    instead = f"`studio policies export {origin.policy.name} --as adapter` exports it as it is."
    if kind not in MERGEABLE:
        why = "it is not linear" if kind == "BOTTLENECK" else "it is not a change of weights"
        raise InvalidInput(
            f"The {kind.lower()} adapter of {origin.policy.name!r} cannot be merged into its base: {why}. Kinds that "
            f"can be merged: {', '.join(kind.lower() for kind in MERGEABLE)}. {instead}"
        )
    if manifest.quantize != "none":
        raise InvalidInput(
            f"{origin.policy.name!r} was trained over a base held in {manifest.quantize}; merged into the full weights "
            f"it would be another model. {instead}"
        )


def merge(policy: LoadedPolicy) -> Any:
    """The base with the adapter in its weights, in fp32; a bare base as it is. The policy cannot be used afterwards."""
    model = policy.model.float()
    if not policy.has_adapter:
        return model
    try:
        return model.merge_and_unload(safe_merge=True).eval()
    except ValueError as error:
        raise CheckpointError(f"The adapter cannot be merged: {error}") from error


def write_model(directory: Path, model: Any, *, ends: list[int]) -> None:
    """Write weights, configuration and generation settings; a reply ends at each of the tokens in ``ends``."""
    settings = getattr(model, "generation_config", None)
    if settings is not None:
        settings.eos_token_id = ends if len(ends) > 1 else ends[0]
        if any(getattr(settings, name, None) is not None for name in ("temperature", "top_p", "top_k")):
            settings.do_sample = True  # without it these settings would be refused when they are saved
    with quiet_loading():
        model.save_pretrained(str(directory))


def plain_tokenizer(base: str) -> Any:
    """The base's tokenizer as its author wrote it, its chat template included."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(base_directory(base)), local_files_only=True, trust_remote_code=False)


def write_tokenizer(directory: Path, base: str) -> None:
    """Write the base's tokenizer and chat template."""
    plain_tokenizer(base).save_pretrained(str(directory))
