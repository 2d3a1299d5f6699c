"""REST for what is measured of policies: benchmarks, paired comparisons, what people prefer, the gate."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from studio.web.api.dependencies import Given
from training.evaluation.benchmark_comparison import comparison_json
from training.evaluation.gate import GateLimits

router = APIRouter(prefix="/api", tags=["benchmarks"])


@router.get("/benchmarks")
def list_benchmarks(services: Given, policy: str | None = None) -> dict[str, Any]:
    """What policies scored on benchmark tasks, newest first. A run of the method `benchmark` takes some."""
    return {"benchmarks": [row.model_dump(mode="json") for row in services.evaluation.list_benchmarks(policy)]}


@router.get("/policies/{key}/benchmarks")
def compare(
    key: str,
    services: Given,
    against: str | None = None,
    metric: str | None = None,
    items: Annotated[int, Query(ge=0, le=1000)] = 0,
) -> dict[str, Any]:
    """A policy against another (the champion, if none is named) on the benchmark tasks both took, item by item.

    ``items`` so many of those that differ come along, what the policy lost first.
    """
    found = services.evaluation.compare(key, against, metric)
    return {
        "comparisons": [
            {
                **comparison_json(one),
                "items": [row._asdict() for row in services.evaluation.list_differing(one, items)] if items else [],
            }
            for one in found.comparisons
        ],
        "unlike": list(found.unlike),
    }


@router.get("/policies/{key}/people")
def by_people(key: str, services: Given) -> dict[str, Any]:
    """How often people preferred this policy's replies, blind, to those of each they were asked to compare it with.

    A run of the method `generate` with `policy`, `against` and `split=evaluation` asks them.
    """
    return {"people": services.evaluation.list_by_people(key)}


@router.get("/policies/{key}/gate")
def gate(
    key: str,
    services: Given,
    against: str | None = None,
    margin: Annotated[float | None, Query(ge=0)] = None,
    kl: Annotated[float | None, Query(ge=0)] = None,
) -> dict[str, Any]:
    """May this policy serve? PROMOTE, HOLD or REJECT, with every sentence the verdict rests on. Changes nothing."""
    return services.evaluation.decide(key, against, GateLimits(margin=margin, kl=kl)).as_json()
