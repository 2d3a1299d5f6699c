"""Policies: list, add, check, promote, rebase, lineage; and what is measured of them: benchmarks, people, the gate."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse

from studio.services.policies import Policies, PolicySummary
from studio.web.api.dependencies import Given
from studio.web.api.schemas import BaseIn, CheckIn, ExportIn, ModelIn
from training.checkpoints.registration import Added
from training.evaluation.benchmark_comparison import comparison_json
from training.evaluation.gate import GateLimits
from training.evaluation.people import PEOPLE
from training.model_check.report import ModelReport

router = APIRouter(prefix="/api")


@router.get("/policies", tags=["policies"])
def list_policies(services: Given) -> dict[str, Any]:
    """All policies, newest first, with parent, dataset and newest win rate."""
    return {"policies": [_policy(summary) for summary in services.policies.list_policies()]}


@router.post("/policies", status_code=201, tags=["policies"])
async def add(body: ModelIn, services: Given, request: Request) -> dict[str, Any]:
    """Register a base model as a policy; one that is on this machine is examined first. It does not serve yet.

    A model that was added before, and is asked for by no other name, is given back. 503 while another is examined.
    """
    await run_sync(services.policies.require, Policies.add)  # a refusal is written down, which may take a while
    work = partial(services.policies.add, body.model, body.name, chat_template=body.chat_template, apart=True)
    added: Added = await request.app.state.examining.run(request, work)
    return _policy(await run_sync(services.policies.get_policy, added.policy.id))


@router.post("/policies/check", tags=["policies"])
async def check_model(body: CheckIn, services: Given, request: Request) -> dict[str, Any]:
    """What a model can be used for on this machine, and at what cost, before it is added. Nothing is added.

    It is fetched where it is not at hand, and tried for some seconds where it fits. 503 while another is examined.
    """
    await run_sync(services.policies.require, Policies.check)
    work = partial(services.policies.check, body.model, chat_template=body.chat_template, apart=True)
    report: ModelReport = await request.app.state.examining.run(request, work)
    return report.as_json()


@router.get("/policies/{key}", tags=["policies"])
def get_policy(key: str, services: Given) -> dict[str, Any]:
    """One policy by id or name."""
    return _policy(services.policies.get_policy(key))


@router.get("/board", tags=["policies"])
def board(services: Given, reference: str | None = None, by: str = PEOPLE) -> dict[str, Any]:
    """How strong each policy is by one judge: log-odds over ``reference``, left out the champion.

    ``by`` is ``people``, ``oracle:RULE`` or ``reward:NAME``; ``judges`` of the answer lists those there are.
    """
    return services.evaluation.board(reference, by).as_json()


@router.get("/board/{a}/{b}", tags=["policies"])
def board_pair(a: str, b: str, services: Given) -> dict[str, Any]:
    """Policy ``a`` over policy ``b``: every win rate, first those that the gate reads, and what the gate says."""
    return services.evaluation.pair(a, b).as_json()


@router.get("/policies/{key}/check", tags=["policies"])
def check(key: str, services: Given) -> dict[str, Any]:
    """What the base of a policy can be used for on this machine, and at what cost, estimated without loading it."""
    return services.policies.check_policy(key).as_json()


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


@router.post("/policies/{key}/export", status_code=202, tags=["policies"])
def start_export(key: str, body: ExportIn, services: Given) -> dict[str, Any]:
    """Queue a run that packs a policy into an archive, checked against it; one under way is given back instead."""
    return {"run_id": services.policies.start_export(key, body.form, body.quantization).id}


@router.get("/policies/{key}/export", tags=["policies"])
def download_export(
    key: str,
    services: Given,
    form: Literal["adapter", "merged", "gguf"] = "merged",
    quantization: Literal["f16", "q8_0"] = "f16",
) -> FileResponse:
    """The newest archive of a policy in this form; 404 until a run has made one."""
    path, name = services.policies.exported_archive(key, form, quantization)
    return FileResponse(path, media_type="application/zip", filename=name)


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


@router.get("/benchmarks", tags=["benchmarks"])
def list_benchmarks(services: Given, policy: str | None = None) -> dict[str, Any]:
    """What policies scored on benchmark tasks, newest first. A run of the method `benchmark` takes some."""
    return {"benchmarks": [row.model_dump(mode="json") for row in services.evaluation.list_benchmarks(policy)]}


@router.get("/policies/{key}/benchmarks", tags=["benchmarks"])
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


@router.get("/policies/{key}/people", tags=["benchmarks"])
def by_people(key: str, services: Given) -> dict[str, Any]:
    """How often people preferred this policy's replies, blind, to those of each they were asked to compare it with.

    A run of the method `generate` with `policy`, `against` and `split=evaluation` asks them.
    """
    return {"people": services.evaluation.list_by_people(key)}


@router.get("/policies/{key}/gate", tags=["benchmarks"])
def gate(
    key: str,
    services: Given,
    against: str | None = None,
    margin: Annotated[float | None, Query(ge=0)] = None,
    kl: Annotated[float | None, Query(ge=0)] = None,
) -> dict[str, Any]:
    """May this policy serve? PROMOTE, HOLD or REJECT, with every sentence the verdict rests on. Changes nothing."""
    return services.evaluation.decide(key, against, GateLimits(margin=margin, kl=kl)).as_json()
