"""Load policies and reward models from checkpoints, and check them against their probe."""

from __future__ import annotations

from pathlib import Path

from feedback.errors import CheckpointError, InvalidInput
from training.checkpoints.hashing import describe_base, hash_file, tensor_names
from training.checkpoints.manifest import ADAPTER_FILE, Manifest, has_own_name, read_manifest
from training.checkpoints.probe import check_probe
from training.models.ensemble import attach_members
from training.models.loading import HEAD_FILE, LoadedPolicy, LoadedReward, attach_adapter, load_base, load_scorer


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
        if hash_file(path) != expected:
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


def _has_head(directory: Path, head: str) -> bool:
    """Whether a head lies within the adapter, or with a role beside it that has its name."""
    within = any(f".{head}." in f".{name}" for name in tensor_names(directory / ADAPTER_FILE))
    return within or (directory / head / HEAD_FILE).is_file()


def refuse_other_base(name: str, reward_base: str, reward_hash: str | None, base: str) -> None:
    """Refuse a reward checkpoint of another base, in the words of what to do, before anything is loaded."""
    from training.checkpoints.hashing import describe_base

    if reward_base != base and reward_hash is not None and reward_hash != describe_base(base):
        raise InvalidInput(
            f"The reward checkpoint {name!r} was trained on the base {reward_base!r}, and the policy is on "
            f"{base!r}: they cannot share one model. Train a reward model with a parent on {base!r}: "
            "`studio train reward --dataset D --parent POLICY`."
        )
