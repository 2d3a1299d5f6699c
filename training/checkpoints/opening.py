"""Open the policy or reward model that a name stands for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.models.loading import LoadedPolicy, LoadedReward, load_base

if TYPE_CHECKING:
    from feedback.database.engine import Database
    from feedback.tables import PolicyRow
    from training.generation.sampling import Replier
    from training.home import Home
from training.checkpoints.loading import load_policy, load_reward


def open_replier(db: Database, home: Home, key: str, device: str | None = None) -> Replier:
    """The policy with this id or name, wherever it replies: here, or behind an endpoint."""
    from feedback.store.models.policies import check_can_reply, get_policy
    from training.generation.endpoint import Endpoint

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
