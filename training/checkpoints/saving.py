"""Save a checkpoint: written to a temporary directory, probed, then renamed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from feedback.errors import CheckpointError, Conflict, NotFound
from feedback.types import Checkpoint
from training.checkpoints.atomic_directory import atomic_directory, sweep

if TYPE_CHECKING:
    from feedback.database.engine import Database
    from feedback.tables import CheckpointRow, RunRow
    from training.home import Home
from training.checkpoints.hashing import hash_file
from training.checkpoints.manifest import MANIFEST_FILE, Adapter, Manifest, has_own_name, read_manifest

_FULL_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_FULL_DISK_WORDS = ("no space left", "file too large", "quota exceeded", "streamwriter failed")


def save_checkpoint(home: Home, name: str, write: Callable[[Path], None], manifest: Manifest) -> Path:
    """Write a checkpoint under the home's checkpoints and give its directory back.

    ``write`` puts the weights into the directory it is handed. What killed runs left half done is swept first. On a
    full disk what was begun is removed,
    earlier checkpoints stay as they were, and CheckpointError says so. A checkpoint of the same run is
    replaced, so that a run resumed after its last step can end; any other of that name raises Conflict.
    """
    from training.checkpoints.model_card import write_card

    final = home.checkpoints / name
    sweep(home.checkpoints)
    _refuse_taken(final, manifest.run)
    try:
        with atomic_directory(final) as partial:
            write(partial)
            weights = sorted(partial.rglob("*.safetensors"))
            files = {str(path.relative_to(partial)): hash_file(path) for path in weights}
            written = {"files": files, "adapter": Adapter.saved_in(partial) or manifest.adapter}
            saved = manifest.model_copy(update=written)
            (partial / MANIFEST_FILE).write_text(saved.model_dump_json(indent=2))
            write_card(partial, saved, own_name=has_own_name(partial))
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(home.checkpoints, f"The checkpoint {name!r}") from error
        if isinstance(error, OSError):
            raise CheckpointError(
                f"The checkpoint {name!r} could not be written to {home.checkpoints}: {error.strerror or error}. "
                "Nothing earlier was touched; mend the cause and resume the run."
            ) from error
        raise
    return final


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one it came from, means that nothing more fits on the disk.

    safetensors and torch report it in words of their own, not as an OSError.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL_DISK:
            return True
        if type(error).__name__ in ("SafetensorError", "RuntimeError", "OSError") and any(
            words in str(error).lower() for words in _FULL_DISK_WORDS
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full(directory: Path, what: str) -> CheckpointError:
    """The error for a full disk, with what is free there."""
    try:
        free = f" ({shutil.disk_usage(directory).free // 2**20} MB free)"
    except OSError:
        free = ""
    return CheckpointError(
        f"{what} could not be written: the disk of {directory} is full{free}. Earlier checkpoints are intact. "
        "Free some space, then resume the run."
    )


def check_name_free(db: Database, home: Home, name: str, run_id: str) -> None:
    """Refuse a name that another run's checkpoint, directory or policy has, before hours are spent on training."""
    from feedback.store.models.checkpoints import get_checkpoint
    from feedback.store.models.policies import get_policy

    for noun, find in (("checkpoint", get_checkpoint), ("policy", get_policy)):
        try:
            row = find(db, name)
        except NotFound:
            continue
        if row.run_id != run_id:
            raise Conflict(f"There is already a {noun} {name!r}; choose another name.")
    _refuse_taken(home.checkpoints / name, run_id)


def register_checkpoint(db: Database, home: Home, run: RunRow, manifest: Manifest, path: Path) -> CheckpointRow:
    """Enter a saved checkpoint into the database; entered before by the same run, it is given back."""
    from feedback.store.datasets.datasets import get_dataset
    from feedback.store.models.checkpoints import get_checkpoint
    from feedback.store.models.checkpoints import save_checkpoint as save_row
    from feedback.store.models.policies import get_policy

    try:
        row = get_checkpoint(db, manifest.name)
        if row.run_id == run.id:
            return row
    except NotFound:
        pass
    return save_row(
        db,
        Checkpoint(
            name=manifest.name,
            kind=manifest.kind,
            path=str(path.relative_to(home.path)),
            base=manifest.base,
            run_id=run.id,
            dataset_id=get_dataset(db, manifest.dataset).id if manifest.dataset else None,
            parent_id=get_policy(db, manifest.parent).checkpoint_id if manifest.parent else None,
            manifest=manifest.model_dump(mode="json"),
        ),
    )


def _refuse_taken(final: Path, run_id: str | None) -> None:
    """An existing checkpoint may only be replaced by the run that wrote it."""
    if not final.exists():
        return
    try:
        owner = read_manifest(final).run
    except CheckpointError:
        owner = None
    if owner is None or owner != run_id:
        raise Conflict(f"There is already a checkpoint {final.name!r} in {final.parent}; choose another name.")
