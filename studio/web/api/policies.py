"""Policies: list, promote, rebase, lineage."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from studio.services.policies import PolicySummary
from studio.web.api.dependencies import Given
from studio.web.api.schemas import BaseIn

router = APIRouter(prefix="/api")


@router.get("/policies", tags=["policies"])
def list_policies(services: Given) -> dict[str, Any]:
    """All policies, newest first, with parent, dataset and newest win rate."""
    return {"policies": [_policy(summary) for summary in services.policies.list_policies()]}


@router.get("/policies/{key}", tags=["policies"])
def get_policy(key: str, services: Given) -> dict[str, Any]:
    """One policy by id or name."""
    return _policy(services.policies.get_policy(key))


@router.post("/policies/{key}/promote", tags=["policies"])
def promote(key: str, services: Given) -> dict[str, Any]:
    """Make a policy the champion; the next pairs come from it. Undone by promoting ``previous``."""
    promotion = services.policies.promote(key)
    run_id = promotion.run.id if promotion.run else None
    return {
        "id": promotion.policy.id,
        "name": promotion.policy.name,
        "champion": True,
        "previous": promotion.previous,
        "run_id": run_id,
    }


@router.post("/policies/{key}/rebase", tags=["policies"])
def rebase(key: str, body: BaseIn, services: Given) -> dict[str, Any]:
    """Say where the base of a policy lies now, for every policy and reward model on it; proved by its hash."""
    return services.policies.rebase(key, body.base).as_json()


@router.get("/policies/{key}/lineage", tags=["policies"])
def lineage(key: str, services: Given) -> dict[str, Any]:
    """Everything a policy came from, back to its base model."""
    return services.policies.lineage(key)


def _policy(summary: PolicySummary) -> dict[str, Any]:
    policy, card = summary.policy, summary.win_rate
    return {
        "id": policy.id,
        "name": policy.name,
        "champion": summary.is_champion,
        "base": policy.base,
        "parent": summary.parent,
        "dataset": summary.dataset,
        "run_id": policy.run_id,
        "checkpoint_id": policy.checkpoint_id,
        "win_rate": {**card.figures, "against": summary.against, "settings": card.settings} if card else None,
        "created_at": policy.created_at.isoformat(),
    }
