"""Write a policy's adapter as plain PEFT reads it: weights, configuration with the base's name, tokenizer, template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from feedback.errors import InvalidInput
from training.export.merging import write_tokenizer
from training.export.origin import Origin
from training.models.base_files import local_directory

CONFIG_FILE = "adapter_config.json"
WEIGHTS = "*.safetensors"


def refuse_bare_base(origin: Origin) -> None:
    """Raise InvalidInput for a policy that has no adapter."""
    if origin.directory is None:
        raise InvalidInput(
            f"The policy {origin.policy.name!r} is a bare base: it has no adapter. `--as merged` exports its weights."
        )


def write_adapter(directory: Path, origin: Origin, *, shared: bool = False) -> None:
    """Copy the adapter, and name its base where it lies now; ``shared`` names it without a path of this machine."""
    refuse_bare_base(origin)
    source, base = origin.directory, origin.policy.base
    assert source is not None
    for path in sorted(source.glob(WEIGHTS)):
        shutil.copy2(path, directory / path.name)
    config = json.loads((source / CONFIG_FILE).read_text(encoding="utf-8"))
    local = local_directory(base)
    config["base_model_name_or_path"] = origin.base_name if local is None or shared else str(local)
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_tokenizer(directory, base)
