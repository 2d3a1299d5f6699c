"""States that a trainer of the libraries leaves to go on from: synced to the disk, sealed, and checked before use.

The libraries write a state file by file and sync none of them, so a power cut may leave any of them empty. A seal,
written last, holds the size and the hash of each file. Two states are kept: while the newest is not yet sealed, the
one before it is. A state without a seal, as earlier releases left them, is read through instead.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feedback.files import atomic_write, sync, sync_tree
from training.trainer.distributed import rank

SEAL = "sealed.json"
STATES_KEPT = 2
_STATE = "trainer_state.json"
_NEEDED = (_STATE, "optimizer.pt", "scheduler.pt", "rng_state*.pth")
_WEIGHTS = ("*.safetensors", "*model*.bin")
# What another process of a shared run writes by itself, perhaps after the seal.
_OTHERS = re.compile(r"rng_state_[1-9]\d*\.pth")


def newest_state(directory: Path, log: Callable[[str], None]) -> Path | None:
    """The newest state that can be read; None when there is none. What is passed over is told, and removed.

    Left there, a damaged state would count as the newest when older ones are cleared away.
    """
    for path in sorted(directory.glob("checkpoint-*"), key=_step, reverse=True):
        fault = fault_of(path)
        if fault is None:
            return path
        log(f"warning: the state {path.name} cannot be used: {fault}; going on from the one before it, if there is one")
        if rank() == 0:
            shutil.rmtree(path, ignore_errors=True)
    return None


def fault_of(state: Path) -> str | None:
    """What is wrong with a trainer's state; None when all of it can be read."""
    for pattern in _NEEDED:
        if not any(state.glob(pattern)):
            return f"{pattern} is missing"
    if not any(path for pattern in _WEIGHTS for path in state.glob(pattern)):
        return "its weights are missing"
    try:
        int(json.loads((state / _STATE).read_text())["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{_STATE} cannot be read"
    return seal_fault(state)


def seal(directory: Path) -> None:
    """Bring every file of a directory to the disk, then write down what they are."""
    sync_tree(directory)
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and not _is_unsealed(path)]
    told = {path.relative_to(directory).as_posix(): [path.stat().st_size, _digest(path)] for path in files}
    with atomic_write(directory / SEAL) as file:
        file.write(json.dumps(told).encode())
    sync(directory.parent)


def seal_fault(directory: Path) -> str | None:
    """The first file that is not as it was sealed; without a seal, the first that cannot be read."""
    try:
        told = json.loads((directory / SEAL).read_text())
        sealed = {str(name): (int(size), str(digest)) for name, (size, digest) in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        sealed = {}
    for name, (size, digest) in sealed.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or _digest(path) != digest:
            return f"{name} is not what was written"
    unsealed = [path for path in sorted(directory.rglob("*")) if path.relative_to(directory).as_posix() not in sealed]
    return next((fault for path in unsealed if path.is_file() and (fault := _reading_fault(path))), None)


def sealing_callback() -> Any:
    """A callback for a trainer that seals each state once it is written."""
    from transformers import TrainerCallback

    class Sealing(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if rank() == 0:
                seal(directory)
            else:
                for path in directory.glob(f"rng_state_{rank()}.pth"):
                    sync(path)

    return Sealing()


def _reading_fault(path: Path) -> str | None:
    """What keeps a file from being read. PyTorch's are zip archives, with a checksum for every part."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix in (".pt", ".pth", ".bin"):
            with zipfile.ZipFile(path) as archive:
                return None if archive.testzip() is None else f"{path.name} is damaged"
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                file.keys()
        elif path.suffix == ".json" and path.name != SEAL:
            json.loads(path.read_text())
    except (OSError, ValueError, zipfile.BadZipFile, SafetensorError):
        return f"{path.name} is empty" if path.stat().st_size == 0 else f"{path.name} is damaged"
    return None


def _is_unsealed(path: Path) -> bool:
    return path.name == SEAL or path.name.startswith(".") or _OTHERS.fullmatch(path.name) is not None


def _step(state: Path) -> int:
    number = state.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
