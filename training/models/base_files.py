"""Where the files of a base model lie: in its directory, or in the local copy of a Hugging Face id."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from feedback.errors import NotFound, StudioError
from training.bundled import STARTER_BASE, STARTER_DIR

LoadedT = TypeVar("LoadedT")

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


def local_directory(base: str) -> Path | None:
    """The directory a base names, or None when it is a hub id. NotFound for a path without a model."""
    if base == STARTER_BASE:
        return STARTER_DIR
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


def cached_directory(base: str) -> Path | None:
    """The local copy of a hub id; None where none was fetched yet. Asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(base, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return found if (found / "config.json").is_file() else None


def moved_hint(base: str) -> str:
    """What to do about a base that lies elsewhere now."""
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
    """The error for files that are there and cannot be read; a weights file that was cut off is named."""
    torn = torn_file(directory) if directory is not None else None
    if torn is not None:
        name, reason = torn
        said = f"{name} is damaged or was cut off ({reason}); copy or download the model again."
        return NotFound("model", base, hint=f"Its directory cannot be loaded: {said}")
    return NotFound("model", base, hint=f"Its directory cannot be loaded: {first_line(error)}")


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
