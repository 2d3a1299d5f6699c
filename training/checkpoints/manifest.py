"""The manifest of a checkpoint: what it holds, how it was made, and what was measured of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from feedback.errors import CheckpointError
from feedback.files import atomic_write
from training.checkpoints.atomic_directory import restore
from training.checkpoints.hashing import tensor_names
from training.checkpoints.probe import Probe

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_FIELDS = {
    "r": "r",
    "lora_alpha": "alpha",
    "use_rslora": "rslora",
    "use_dora": "dora",
    "init_r": "init_r",
    "target_r": "target_r",
    "layout": "layout",
    "reduction": "reduction",
    "target_modules": "targets",
}
_LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "safetensors")


class Adapter(BaseModel):
    """Which adapter lies over the base: its kind in PEFT's words and how it was set up."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    settings: dict[str, Any] = {}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Adapter:
        """The telling values of a PEFT configuration; a set of targets comes as a sorted list."""
        named = {name: config[field] for field, name in _ADAPTER_FIELDS.items() if config.get(field)}
        if isinstance(config.get("init_lora_weights"), str):
            named["start"] = config["init_lora_weights"]
        if not isinstance(named.get("targets", ""), str):
            named["targets"] = sorted(named["targets"])
        return cls(kind=str(getattr(config["peft_type"], "value", config["peft_type"])), settings=named)

    @classmethod
    def saved_in(cls, directory: Path) -> Adapter | None:
        """What the adapter's own file in a directory says; None where there is none."""
        path = directory / ADAPTER_CONFIG
        return cls.of(json.loads(path.read_text())) if path.is_file() else None


class Manifest(BaseModel):
    """Everything needed to load a checkpoint, to refuse it, and to tell how it came to be."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    kind: Literal["policy", "reward"]
    name: str
    base: str
    base_hash: str
    adapter: Adapter
    heads: list[str] = []
    pooling: Literal["last", "sum", "mean"] = "last"
    # Of a reward model: whether its score is taken at the last token read. One saved before this was noted takes it at
    # the last token that is not the pad token, which is the one before the end where both are the same token.
    reads_end: bool = False
    members: int = 1
    parent: str | None = None
    reference: str | None = None
    dataset: str | None = None
    dataset_hash: str | None = None
    run: str | None = None
    method: str = ""
    config: dict[str, Any] = {}
    seed: int = 0
    versions: dict[str, str] = {}
    probe: Probe
    files: dict[str, str] = {}
    scorecard: dict[str, Any] | None = None

    @property
    def quantize(self) -> str:
        """How the base was held while this was trained, and is to be held when it is loaded."""
        return str(self.config.get("quantize") or "none")


def library_versions() -> dict[str, str]:
    """Versions of the libraries a checkpoint depends on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint, or CheckpointError with what is wrong with it."""
    path = directory / MANIFEST_FILE
    restore(directory)
    try:
        manifest = Manifest.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{directory} is no checkpoint: it holds no {MANIFEST_FILE}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(f"The manifest {path} cannot be read: {where}: {first['msg']}.") from None
    if manifest.format_version > FORMAT_VERSION:
        raise CheckpointError(
            f"The checkpoint {directory} has format {manifest.format_version}; this version reads up to "
            f"{FORMAT_VERSION}. Update the studio."
        )
    return manifest


def note_scorecard(directory: Path, scorecard: Mapping[str, Any]) -> None:
    """Put the newest measurement of a checkpoint into its manifest; nothing where the checkpoint is gone."""
    path = directory / MANIFEST_FILE
    if not path.is_file():
        return
    manifest = read_manifest(directory).model_copy(update={"scorecard": dict(scorecard)})
    with atomic_write(path) as file:
        file.write(manifest.model_dump_json(indent=2).encode())


def has_own_name(directory: Path) -> bool:
    """Whether the head of a saved reward model lies where plain PEFT does not look for it."""
    from training.models.classifiers import HOLDER

    return any(f".{HOLDER}." in name for name in tensor_names(directory / ADAPTER_FILE))
