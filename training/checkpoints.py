"""What training leaves on disk: safetensors, heads and a manifest; and the load that refuses what does not
match.

A checkpoint appears whole or not at all: it is written into a hidden directory beside its place, synced, and
renamed. The manifest holds probe values measured on the model in memory; a load that does not reproduce them
(a random head, another base, other weights) raises CheckpointError instead of serving nonsense. The directory
is a PEFT adapter; whether plain ``peft`` makes the same of it is told in its README.md (``training.model_card``).

    directory = save_checkpoint(home, name, write, manifest)
    policy = load_policy(directory)          reward = load_reward(directory)
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from feedback.errors import CheckpointError, Conflict, NotFound
from feedback.types import Checkpoint
from training.base_files import base_directory
from training.ensembles import attach_members
from training.models import HEAD_FILE, LoadedPolicy, LoadedReward, attach_adapter, load_base, load_scorer
from training.placement import placed, restore, sweep
from training.probe import Probe, check_probe

if TYPE_CHECKING:
    from feedback.database.engine import Database
    from feedback.tables import CheckpointRow, PolicyRow, RunRow
    from training.home import Home
    from training.sampling import Replier

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
_FULL_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_FULL_DISK_WORDS = ("no space left", "file too large", "quota exceeded", "streamwriter failed")
_SAMPLE_ABOVE = 64 * 2**20  # weights beyond this size are hashed by sampled blocks
_BLOCK = 2**16
_BLOCKS = 64


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


def save_checkpoint(home: Home, name: str, write: Callable[[Path], None], manifest: Manifest) -> Path:
    """Write a checkpoint under the home's checkpoints and give its directory back.

    ``write`` puts the weights into the directory it is handed. What killed runs left half done is swept first. On a
    full disk what was begun is removed,
    earlier checkpoints stay as they were, and CheckpointError says so. A checkpoint of the same run is
    replaced, so that a run resumed after its last step can end; any other of that name raises Conflict.
    """
    from training.model_card import write_card

    final = home.checkpoints / name
    sweep(home.checkpoints)
    _refuse_taken(final, manifest.run)
    try:
        with placed(final) as partial:
            write(partial)
            weights = sorted(partial.rglob("*.safetensors"))
            files = {str(path.relative_to(partial)): _file_hash(path) for path in weights}
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


def describe_base(base: str) -> str:
    """Hash of a base model: its configuration and weights, wherever it lies.

    Small weights are hashed whole; of large ones the size and evenly spaced blocks, which takes milliseconds.
    """
    directory = base_directory(base)
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for path in sorted([*directory.glob("*.safetensors"), *directory.glob("*.bin")]):
        digest.update(f"{path.name}:{path.stat().st_size}:{_file_hash(path)}".encode())
    return digest.hexdigest()


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
    partial = path.with_name(f".{MANIFEST_FILE}.partial")
    partial.write_text(manifest.model_dump_json(indent=2))
    partial.replace(path)


def check_checkpoint(directory: Path, kind: str, base: str | None = None) -> Manifest:
    """The manifest, after every check that needs no model: kind, files, heads and base; else CheckpointError."""
    manifest = read_manifest(directory)
    if manifest.kind != kind:
        raise CheckpointError(f"{directory} holds a {manifest.kind} checkpoint, not a {kind}.")
    for name, expected in manifest.files.items():
        path = directory / name
        if not path.is_file():
            how = f" as `studio runs show {manifest.run}` tells" if manifest.run else ""
            raise CheckpointError(
                f"The checkpoint {directory} is incomplete: {name} is missing. Where its weights were removed to save "
                f"space, train it again{how}."
            )
        if _file_hash(path) != expected:
            raise CheckpointError(f"The checkpoint {directory} is damaged: {name} is not what was saved.")
    missing = [head for head in manifest.heads if not _has_head(directory, head)]
    if missing:
        raise CheckpointError(
            f"The checkpoint {directory} lacks its head {', '.join(missing)}; with a random one its scores would "
            "mean nothing. Train it again."
        )
    found = describe_base(base or manifest.base)
    if found != manifest.base_hash:
        raise CheckpointError(
            f"The checkpoint {directory} was trained on another base than {base or manifest.base!r}: hash "
            f"{manifest.base_hash[:12]} expected, {found[:12]} found. Put the original base back, or train again."
        )
    return manifest


def load_policy(directory: Path, base: str | None = None, device: str | None = None) -> LoadedPolicy:
    """A policy from its checkpoint, refused unless base, files and probe match. ``base`` says where it lies now."""
    manifest = check_checkpoint(directory, "policy", base)
    model, tokenizer = load_base(base or manifest.base, device, manifest.quantize)
    model = attach_adapter(model, directory)
    check_probe(directory, base or manifest.base, manifest.probe, manifest.kind, model, tokenizer)
    return LoadedPolicy(model, tokenizer, base or manifest.base)


def load_reward(directory: Path, base: str | None = None, device: str | None = None) -> LoadedReward:
    """A reward model with its head, refused unless base, files, head and probe match."""
    manifest = check_checkpoint(directory, "reward", base)
    model, tokenizer = load_scorer(
        base or manifest.base,
        device,
        manifest.pooling,
        manifest.quantize,
        own_name=has_own_name(directory),
        reads_end=manifest.reads_end,
    )
    model = attach_adapter(model, directory)
    if manifest.members > 1:
        model = attach_members(model, directory, manifest.members)
    check_probe(directory, base or manifest.base, manifest.probe, manifest.kind, model, tokenizer)
    return LoadedReward(model, tokenizer, base or manifest.base, manifest.pooling)


def open_replier(db: Database, home: Home, key: str, device: str | None = None) -> Replier:
    """The policy with this id or name, wherever it replies: here, or behind an endpoint."""
    from feedback.store.models.policies import check_can_reply, get_policy
    from training.endpoint import Endpoint

    row = get_policy(db, key)
    if not row.is_endpoint:
        return open_policy(db, home, key, device)
    check_can_reply(row)
    return Endpoint(row.base)


def open_policy(db: Database, home: Home, key: str, device: str | None = None) -> LoadedPolicy:
    """The policy with this id or name, its weights at hand: a bare base, or a base under its checkpoint."""
    from feedback.store.models.policies import get_policy

    row = get_policy(db, key)
    directory = policy_directory(db, home, row)
    if directory is None:
        return LoadedPolicy(*load_base(row.base, device), row.base)
    return load_policy(directory, row.base, device)


def policy_directory(db: Database, home: Home, row: PolicyRow) -> Path | None:
    """Where the checkpoint of a policy lies; None for a bare base. Conflict for one without weights here."""
    from feedback.store.models.checkpoints import get_checkpoint
    from feedback.store.models.policies import check_can_reply, check_has_weights

    check_can_reply(row)
    check_has_weights(row)
    return home.path / get_checkpoint(db, row.checkpoint_id).path if row.checkpoint_id else None


def open_reward(db: Database, home: Home, key: str, device: str | None = None) -> LoadedReward:
    """The reward checkpoint with this id or name, ready to score."""
    from feedback.store.models.checkpoints import get_to_score

    row = get_to_score(db, key)
    return load_reward(home.path / row.path, row.base, device)


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


def _file_hash(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _SAMPLE_ABOVE:
            while block := file.read(2**20):
                digest.update(block)
            return digest.hexdigest()
        for number in range(_BLOCKS):
            file.seek((size - _BLOCK) * number // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return f"{size}:{digest.hexdigest()}"


def _has_head(directory: Path, head: str) -> bool:
    """Whether a head lies within the adapter, or with a role beside it that has its name."""
    within = any(f".{head}." in f".{name}" for name in tensor_names(directory / ADAPTER_FILE))
    return within or (directory / head / HEAD_FILE).is_file()


def has_own_name(directory: Path) -> bool:
    """Whether the head of a saved reward model lies where plain PEFT does not look for it."""
    from training.classifiers import HOLDER

    return any(f".{HOLDER}." in name for name in tensor_names(directory / ADAPTER_FILE))


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file, read from its header alone; none if it is not there."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [name for name in header if name != "__metadata__"]
