"""Bases: which policies and checkpoints stand on which model, and where that model lies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sqlmodel import col, select

from feedback.database.engine import Database, one_at_a_time
from feedback.store.people.audit import list_events, save_event
from feedback.tables import CheckpointRow, PolicyRow

BASE_NOTED = "policy.base"
"""The verb under which the audit log keeps what the base of a policy was when it was registered."""


@dataclass
class BaseUse:
    """Everything that stands on one base. A policy without a checkpoint is the base itself."""

    base: str
    policies: list[PolicyRow] = field(default_factory=list)
    checkpoints: list[CheckpointRow] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of its policies and of its reward models."""
        rewards = [row.name for row in self.checkpoints if row.kind == "reward"]
        return [*(row.name for row in self.policies), *rewards]


def list_bases(db: Database) -> dict[str, BaseUse]:
    """Every base whose weights this studio needs, with what stands on it; servers and mere names are left out.

    A checkpoint whose weights were removed counts too: training it again needs the base.
    """
    found: dict[str, BaseUse] = {}
    with db.read() as session:
        policies = session.exec(select(PolicyRow).order_by(col(PolicyRow.created_at), col(PolicyRow.id))).all()
        checkpoints = session.exec(
            select(CheckpointRow).order_by(col(CheckpointRow.created_at), col(CheckpointRow.id))
        ).all()
    for policy in policies:
        if policy.can_reply and not policy.is_endpoint:
            found.setdefault(policy.base, BaseUse(policy.base)).policies.append(policy)
    for checkpoint in checkpoints:
        found.setdefault(checkpoint.base, BaseUse(checkpoint.base)).checkpoints.append(checkpoint)
    return found


def move_base(db: Database, new: str, policies: Collection[str], checkpoints: Collection[str]) -> None:
    """Let the policies and checkpoints with these ids stand on a base at its new place, all or none."""
    with db.write() as session:
        one_at_a_time(session, "rebase")
        for table, ids in ((PolicyRow, policies), (CheckpointRow, checkpoints)):
            for key in ids:
                row = session.get(table, key)
                if row is not None:
                    row.base = new
                    session.add(row)


def note_base_hash(db: Database, policy: PolicyRow, base_hash: str) -> None:
    """Write down which model a policy's base was when it was registered, so that a move can be proved."""
    save_event(db, "studio", BASE_NOTED, policy.id, base=policy.base, hash=base_hash)


def noted_base_hash(db: Database, policy: PolicyRow) -> str | None:
    """The hash that was written down when the policy was registered; None where that was not done."""
    events = list_events(db, verb=BASE_NOTED, subject=policy.id, limit=1)
    return str(events[0].detail.get("hash")) if events else None
