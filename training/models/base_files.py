"""Where the files of a base model lie: in its directory, or in the local copy of a Hugging Face id."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from feedback.errors import NotFound, StudioError
from training.bundled import SMOLLM2_BASE, SMOLLM2_DIR_NAME, STARTER_BASE, STARTER_DIR, models_directory

LoadedT = TypeVar("LoadedT")

GGUF, TEMPLATE = MADE_HERE = ("gguf", "template")
"""How the directories of the models' cache begin that hold a converted file, or a base with a chosen template."""
_PATH_STARTS = ("/", "./", "../", "~", ".\\", "..\\")
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def base_directory(base: str) -> Path:
    """The directory that holds a base's files: itself, or the local copy of a hub id. NotFound where neither is."""
    local = local_directory(base)
    if local is not None:
        return local
    found = cached_directory(base)
    if found is None:
        raise no_such_model(base)
    return found


def parameters_on_disk(base: str) -> int | None:
    """How many numbers the weights of a base hold, read off the files' headers alone; None where they are not here."""
    try:
        directory = local_directory(base) or cached_directory(base)
    except NotFound:
        return None
    files = sorted(directory.glob("*.safetensors")) if directory is not None else []
    return sum(map(_numbers_in, files)) if files else None


def _numbers_in(file: Path) -> int:
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def local_directory(base: str) -> Path | None:
    """The directory a base names, or None when it is a hub id. NotFound for a path without a model."""
    if base == STARTER_BASE:
        return STARTER_DIR
    if base == SMOLLM2_BASE:
        return _smollm2_directory()
    path = Path(base).expanduser()
    if base.strip() and path.is_dir():
        if not (path / "config.json").is_file():
            hint = f"The directory is there, but it holds no config.json. {moved_hint(base)}"
            raise NotFound("model", base, hint=hint)
        return path
    if base.startswith(_PATH_STARTS) or path.is_absolute() or base.count("/") > 1 or not base.strip():
        hint = f"No directory has this path. {moved_hint(base)} Else check the path, or give a Hugging Face id."
        raise NotFound("model", base, hint=hint)
    return None


def _smollm2_directory() -> Path:
    directory = models_directory() / SMOLLM2_DIR_NAME
    if not (directory / "config.json").is_file():
        hint = f"It is not on this machine ({directory}); `studio policies add smollm2` downloads it."
        raise NotFound("model", SMOLLM2_BASE, hint=hint)
    return directory


def cached_directory(base: str) -> Path | None:
    """The local copy of a hub id; None where none was fetched yet. Asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(base, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return found if (found / "config.json").is_file() else None


def fetched_directory(base: str) -> Path:
    """The directory that holds a base's files, fetched from the hub first where it is an id that is not at hand."""
    found = local_directory(base) or cached_directory(base)
    if found is not None:
        return found
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise no_such_model(base) from error


def moved_hint(base: str) -> str:
    """What to do about a base that lies elsewhere now."""
    made = Path(base).parent.name.partition("-")[0]
    if made in MADE_HERE and Path(base).is_relative_to(models_directory()):
        how = "the same GGUF file" if made == GGUF else "the same model and --chat-template"
        return f"The studio made it: `studio policies add` with {how} makes it again, at the same place."
    return (
        f"If the model was moved, `studio policies rebase {shlex.quote(base)} NEWPATH` says where it lies now, for "
        "every policy and reward model on it."
    )


def no_such_model(base: str) -> NotFound:
    """The error for a base that is neither a directory nor an id at hand."""
    return NotFound(
        "model",
        base,
        hint="It is neither a directory nor a Hugging Face model at hand here. Give the path of a model directory, or "
        "an id such as Qwen/Qwen2.5-0.5B-Instruct; the first use of an id needs the network. Where a copy of it lies "
        f"on this machine, `studio policies rebase {shlex.quote(base)} NEWPATH` names the copy.",
    )


def at_hand_first(load: Callable[[bool], LoadedT], base: str, local: Path | None) -> LoadedT:
    """Load from disk; only a hub id that is not there yet goes to the network.

    ``load`` is told whether to stay offline. Whatever a library raises at files it cannot read becomes NotFound with
    the reason; errors of memory are left as they are, for they say nothing about the files.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        return load(True)
    except Exception as error:
        _pass_on(error)
        if local is not None:
            raise cannot_be_loaded(base, local, error) from error
    try:
        return load(False)
    except (OSError, HFValidationError) as error:
        raise no_such_model(base) from error
    except Exception as error:
        _pass_on(error)
        raise cannot_be_loaded(base, cached_directory(base), error) from error


def cannot_be_loaded(base: str, directory: Path | None, error: Exception) -> NotFound:
    """The error for files that are there and cannot be read; a weights file that is damaged or unsafe is named."""
    fault = _fault_of(directory) if directory is not None else None
    return NotFound("model", base, hint=f"Its directory cannot be loaded: {fault or first_line(error)}")


def _fault_of(directory: Path) -> str | None:
    """What is wrong with the first weights file that cannot be opened, as a sentence; None where all can be."""
    torn = torn_file(directory)
    if torn is not None:
        name, reason = torn
        return f"{name} is damaged or was cut off ({reason}); copy or download the model again."
    return None if any(directory.glob("*.safetensors")) else _faulty_pickle(directory)


def _faulty_pickle(directory: Path) -> str | None:
    """The same of ``.bin`` files, which are pickles: one may hold code that runs when it is opened, and is refused."""
    import pickle
    import zipfile

    import torch

    for path in sorted(directory.glob("*.bin")):
        try:
            torch.load(path, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
        except pickle.UnpicklingError:
            return (
                f"{path.name} holds more than tensors, or is damaged. A pickle can run any code when it is opened, so "
                "it was not. Get the model as safetensors, or download it again."
            )
        except Exception as error:  # torch and zip raise what they like at a file that was cut off
            reason = first_line(error)[:80]
            return f"{path.name} is damaged or was cut off ({reason}); copy or download the model again."
    return None


def torn_file(directory: Path) -> tuple[str, str] | None:
    """The first safetensors file in a directory that cannot be opened, with the reason. Reads headers only."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                file.keys()
        except (SafetensorError, OSError, ValueError) as error:
            return path.name, first_line(error).removeprefix("Error while deserializing header: ")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, whichever library met it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _MEMORY_WORDS)


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _pass_on(error: Exception) -> None:
    """Raise again what is no complaint about the files."""
    if isinstance(error, StudioError) or is_out_of_memory(error):
        raise error
