"""Train a policy or a reward model."""

from __future__ import annotations

from typing import Annotated

import typer

from feedback.errors import InvalidInput, UnknownSetting
from studio.cli.session.context import opened
from studio.cli.session.output import AsJson, run_json, show_fields, show_json, tell
from studio.cli.session.waiting import submit_and_wait
from studio.worker_keeper import worker_for
from training.methods import METHODS, trainers_without_dataset

TRAINERS = sorted(name for name, method in METHODS.items() if method.kind == "train")
_FREE = " and ".join(", ".join(trainers_without_dataset()).rsplit(", ", 1))


def train(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help=f"One of {', '.join(TRAINERS)}.")],
    dataset: Annotated[
        str | None, typer.Option(help=f"The frozen dataset to learn from; {_FREE} can do without.")
    ] = None,
    parent: Annotated[str | None, typer.Option(help="The policy to start from; left out, the champion.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of what comes of it; left out, one is made up.")] = None,
    after: Annotated[str | None, typer.Option(help="Begin when this run has succeeded.")] = None,
    priority: Annotated[int | None, typer.Option(help="Runs with a higher one begin first; 0 is usual.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Take two steps, report rows, time and memory, and leave nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the run has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train on a dataset. Queues a run and returns, unless told to --wait."""
    check_trains(method)
    named = {"dataset": dataset, "parent": parent, "name": name, "after": after, "priority": priority}
    # What was left out hides nothing that --set says of the same.
    config = parse_assignments(settings or []) | {key: value for key, value in named.items() if value is not None}
    config |= {"dry_run": True} if dry_run else {}
    with opened(context) as session:
        if wait:
            with worker_for(session.home, standby=False) as keeper:
                run = submit_and_wait(session, keeper, method, config)
        else:
            run = session.services.runs.submit_run(method, config)
            if session.home.worker_holder() is None:
                tell("No worker is alive: the run waits until `studio up` or `studio worker` is started.")
    if as_json:
        show_json({"run_id": run.id, **run_json(run)})
    elif wait:
        show_fields({"run": run.id, **run.result})
    else:
        typer.echo(run.id)


def check_trains(method: str) -> None:
    """Refuse what is no training method, naming those that are."""
    if method not in TRAINERS:
        raise UnknownSetting(f"There is no training method {method!r}. Valid: {', '.join(TRAINERS)}.")


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """``key=value`` arguments as a dictionary; what the values mean is the settings class's business."""
    values: dict[str, str] = {}
    for assignment in assignments:
        key, sign, value = assignment.partition("=")
        if not sign or not key.strip():
            raise InvalidInput(f"--set {assignment!r} is not KEY=VALUE; write for instance --set epochs=3.")
        values[key.strip()] = value.strip()
    return values
