"""What the modules of REST share: how a route is given its services and its caller, and what a task looks like."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Request

from feedback.labeling.assignment import Task
from studio.identity import PERSON
from studio.services.facade import Services


async def _services(request: Request) -> Services:  # async, for a plain function would cost a hop between threads
    """The services as the person behind the request is given them."""
    services: Services = request.app.state.services
    return services.acting_as(request.scope.get(PERSON))


Given = Annotated[Services, Depends(_services)]
Name = Annotated[str | None, Header(alias="X-Annotator", max_length=80)]


def task_json(task: Task, guidelines: str) -> dict[str, Any]:
    """What whoever judges is sent, field by field: nothing that names a policy or tells a check from other tasks."""
    reasoning = {"reasoning": list(task.reasoning)} if any(task.reasoning) else {}
    return {
        "lease": task.lease_id,
        "kind": task.kind.value,
        "prompt": task.messages,
        "responses": task.responses,
        **reasoning,
        "guidelines": guidelines,
        "expires_at": task.expires_at.isoformat(),
    }
