"""List, watch, cancel and resume runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feedback.jsonl import write_lines
from feedback.labeling.run_replies import USUAL_LIMIT
from feedback.tables import MetricRow, RunRow
from feedback.types import RunState
from studio.cli.session.context import Session, opened
from studio.cli.session.output import AsJson, ending_of, run_json, show_fields, show_json, show_table, tell
from studio.cli.session.waiting import run_to_end
from studio.metrics_export import metric_lines
from studio.worker_keeper import worker_for
from training.private_files import users_umask
from training.runs.reproduce import command_of, spec_of
from training.settings.parsing import settings_class

runs = typer.Typer(no_args_is_help=True, help="Background jobs: generate, train, evaluate, benchmark.")


@runs.command("list")
def show_runs(
    context: typer.Context,
    state: Annotated[list[RunState] | None, typer.Option(help="Only in this state; may be repeated.")] = None,
    method: Annotated[str | None, typer.Option(help="Only of this method.")] = None,
    name: Annotated[str | None, typer.Option(help="Only with this in the name or the id.")] = None,
    before: Annotated[str | None, typer.Option(help="The id of a run: only older ones.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    from studio.services.runs import RunsAsked  # the help needs none of it

    if method is not None:
        settings_class(method)
    with opened(context) as session:
        asked = RunsAsked(method, tuple(state) if state else None, name, before)
        page = session.services.runs.page_of_runs(asked, limit)
    rows = page.runs
    if as_json:
        show_json([run_json(row) for row in rows])
        return
    table = [
        (
            row.id,
            row.method,
            row.state.value,
            f"{100 * row.progress:.0f} %",
            row.attempt,
            row.created_at,
            row.error or "",
        )
        for row in rows
    ]
    is_narrowed = bool(state) or any(value is not None for value in (method, name, before))
    none = "No run is like this." if is_narrowed else "No runs yet."
    show_table(("id", "method", "state", "done", "attempt", "queued", "error"), table, none)
    if page.older is not None:
        typer.echo(f"There are older runs: `--before {page.older}` shows them, `--limit` shows more at once.", err=True)


@runs.command("show")
def show_run(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Show one run: state, progress, settings, result, and the newest value of each curve."""
    with opened(context) as session:
        run = session.services.runs.get_run(run_id)
        metrics = session.services.runs.run_metrics(run.id)
    again = {"command": command_of(run), "spec": spec_of(run)}
    if as_json:
        points = [point.model_dump(mode="json", include={"step", "name", "value", "at"}) for point in metrics]
        show_json({**run_json(run), "metrics": _newest(metrics), "curves": points, "reproduce": again})
        return
    fields = run.model_dump() | {"state": run.state.value, "progress": f"{100 * run.progress:.0f} %"}
    if run.pid_started is not None:
        fields["pid_started"] = datetime.fromtimestamp(run.pid_started, UTC)
    show_fields(fields | {"metrics": {name: float(f"{value:.4g}") for name, value in _newest(metrics).items()}} | again)


@runs.command("metrics")
def export_metrics(
    context: typer.Context,
    run_id: str,
    kind: Annotated[str, typer.Option("--format", help="csv (a column per curve) or jsonl (a line per step).")] = "csv",
    out: Annotated[Path | None, typer.Option(help="A file; left out or -, standard output.")] = None,
) -> None:
    """Export a run's curves."""
    with opened(context) as session:
        points = session.services.runs.run_metrics(run_id)
    lines = metric_lines(points, kind)
    if out is None:
        typer.echo("".join(lines), nl=False)
        return
    with users_umask():
        write_lines(out, lines)
    tell(f"Wrote {len({point.step for point in points})} steps to {out}.")


@runs.command("logs")
def show_log(
    context: typer.Context,
    run_id: str,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the run has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what the run's process said."""
    with opened(context) as session:
        run = session.services.runs.get_recorded_run(run_id)
        path = session.home.log_path(run.id)
        if as_json:
            text = path.read_text(errors="replace") if path.exists() else ""
            show_json({"run_id": run.id, "log": text})
            return
        if not path.exists() and not follow:
            tell(f"Run {run.id} is {run.state.value} and has written nothing yet.")
            return
        _print_log(session, run, follow=follow)


@runs.command("cancel")
def cancel_run(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """End a waiting run at once; ask a working one to stop."""
    with opened(context) as session:
        run = session.services.runs.cancel_run(run_id)
    _tell_state(run, as_json)


@runs.command("annotate")
def annotate_run(
    context: typer.Context,
    run_id: str,
    limit: Annotated[int, typer.Option(help="How many pairs at most.")] = USUAL_LIMIT,
    as_json: AsJson = False,
) -> None:
    """Send what a run's policy replied while it learnt to the annotators, as pairs."""
    with opened(context) as session:
        count = len(session.services.runs.annotate_run(run_id, limit))
    if as_json:
        show_json({"matchups": count})
        return
    typer.echo(f"{count} {'pair waits' if count == 1 else 'pairs wait'} on the Label page.")


@runs.command("resume")
def resume_run(
    context: typer.Context,
    run_id: str,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the run has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Queue a failed, cancelled or interrupted run again, from its last checkpoint, under the same id."""
    with opened(context) as session:
        run = session.services.runs.resume_run(run_id)
        if wait:
            with worker_for(session.home, standby=False) as keeper:
                run = run_to_end(session, keeper, run)
    if wait and run.state is not RunState.succeeded:
        tell(ending_of(run))
        raise typer.Exit(1)
    _tell_state(run, as_json)


def _print_log(session: Session, run: RunRow, *, follow: bool) -> None:
    path = session.home.log_path(run.id)
    look = session.services.runs.get_recorded_run
    while follow and not path.exists() and not look(run.id).state.is_terminal:
        time.sleep(0.2)
    if not path.exists():
        return
    with path.open(errors="replace") as log:
        while True:
            ended = look(run.id).state.is_terminal
            text = log.read()
            typer.echo(text, nl=False)
            if ended or not follow:
                return
            time.sleep(0.3)


def _newest(metrics: list[MetricRow]) -> dict[str, float]:
    return {point.name: point.value for point in metrics}


def _tell_state(run: RunRow, as_json: bool) -> None:
    if as_json:
        show_json(run_json(run))
    else:
        typer.echo(f"Run {run.id} is {run.state.value}.")
