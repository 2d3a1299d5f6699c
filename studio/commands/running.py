"""Work in the background: train, evaluate, runs, loop."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feedback.errors import InvalidInput, UnknownSetting
from feedback.jsonl import write_lines
from feedback.labeling.run_replies import USUAL_LIMIT, send_to_annotators
from feedback.store.models.policies import get_policy
from feedback.store.models.runs import get_run, list_metrics, list_runs
from feedback.store.reports.comparisons import withdraw_comparisons
from feedback.tables import MetricRow, RunRow
from feedback.types import RunState
from studio.commands.session import (
    AsJson,
    Session,
    ending_of,
    opened,
    run_json,
    run_to_end,
    show_fields,
    show_json,
    show_table,
    submit_and_wait,
    tell,
)
from studio.curves import metric_lines
from studio.workers import worker_for
from training.checkpoints.registration import find_or_add
from training.evaluation.gate import in_words
from training.evaluation.people import asked_of_people, by_people
from training.loop.plan import Plan
from training.loop.rounds import Loop
from training.methods import METHODS
from training.private import users_umask
from training.runs import lifecycle
from training.runs import queue as run_queue
from training.runs.reproduce import command_of, spec_of
from training.settings.parsing import settings_class

TRAINERS = sorted(name for name, method in METHODS.items() if method.kind == "train")
runs = typer.Typer(no_args_is_help=True, help="Background jobs: generate, train, evaluate, benchmark.")


def train(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help=f"One of {', '.join(TRAINERS)}.")],
    dataset: Annotated[
        str | None, typer.Option(help="The frozen dataset to learn from; rft, rloo and ppo can do without.")
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
            run = run_queue.submit(session.db, method, config, home=session.home)
            if session.home.worker_holder() is None:
                tell("No worker is alive: the run waits until `studio up` or `studio worker` is started.")
    if as_json:
        show_json({"run_id": run.id, **run_json(run)})
    elif wait:
        show_fields({"run": run.id, **run.result})
    else:
        typer.echo(run.id)


def evaluate(
    context: typer.Context,
    a: Annotated[str | None, typer.Argument(help="The policy that is measured.")] = None,
    b: Annotated[str | None, typer.Argument(help="The policy it is measured against.")] = None,
    prompts: Annotated[int, typer.Option(help="How many held-out prompts are replied to.")] = 150,
    oracle: Annotated[str | None, typer.Option(help="The rule that judges.")] = None,
    reward: Annotated[str | None, typer.Option(help="The reward checkpoint that judges.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the draw; left out, 0, and a fresh one where people judge.")
    ] = None,
    best_of: Annotated[int, typer.Option(help="A draws so many replies and gives the best: no training needed.")] = 1,
    picker: Annotated[
        str | None, typer.Option(help="Who picks A's best reply: a reward checkpoint or a reward function.")
    ] = None,
    people: Annotated[
        bool, typer.Option("--people", help="People judge, blind: pairs of A and B come first on the Label tab.")
    ] = False,
    stop: Annotated[
        bool,
        typer.Option("--stop", help="With --people: withdraw the pairs that nobody has judged; what was said stays."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the win rate of policy A over B on held-out prompts, with its 95 % interval.

    Without A and B, a reward model is measured: on how many fresh pairs --reward agrees with --oracle.
    """
    if stop and not people:
        raise InvalidInput("--stop withdraws what people were asked: `studio evaluate A B --people --stop`.")
    if people:
        if a is None or b is None or oracle or reward or picker or best_of > 1:
            raise InvalidInput("--people needs two policies and no other judge: `studio evaluate A B --people`.")
        if stop:
            _stop_asking(context, a, b)
        else:
            _ask_people(context, a, b, prompts, seed, as_json)
        return
    config = {"a": a, "b": b, "prompts": prompts, "oracle": oracle, "reward": reward, "seed": seed}
    config |= {"best_of": best_of, "picker": picker}
    with opened(context) as session, worker_for(session.home, standby=False) as keeper:
        run = submit_and_wait(session, keeper, "evaluate", config)
    if as_json:
        show_json({"run_id": run.id, **run.result})
        return
    first = f"the best of {best_of} by {a}" if best_of > 1 else a
    measured, figure = (f"{first} over {b}", "win_rate") if a else (f"{reward} is right", "accuracy")
    low, high = ("low", "high") if a else ("accuracy_low", "accuracy_high")
    shares = [f"{100 * run.result[name]:.1f} %" for name in (figure, low, high)]
    typer.echo(f"{measured}: {shares[0]} [{shares[1]}, {shares[2]}], judged by {oracle or reward}.")
    show_fields({name: value for name, value in run.result.items() if name not in (figure, low, high, "gate")})
    if "gate" in run.result:
        typer.echo("\n".join(in_words(run.result["gate"])))


def _ask_people(context: typer.Context, a: str, b: str, prompts: int, seed: int | None, as_json: bool) -> None:
    """Draw pairs of two policies for people to judge, and say how they judged so far."""
    with opened(context) as session, worker_for(session.home, standby=False) as keeper:
        run = submit_and_wait(session, keeper, "generate", asked_of_people(a, b, prompts, seed))
        figures = by_people(session.db, get_policy(session.db, a).id, get_policy(session.db, b).id)
    if as_json:
        show_json({"run_id": run.id, **run.result, "people": figures})
        return
    drawn = run.result.get("matchups", 0)
    come = "pair comes" if drawn == 1 else "pairs come"
    typer.echo(f"{drawn} {come} first on the Label tab now: replies of {a} and of {b}, side by side.")
    if drawn < prompts:
        typer.echo(
            f"{prompts} were asked for: there are no more held-out prompts, or some were refused or given the same "
            "reply by both, which counts as a tie."
        )
    typer.echo(f"What people say of them: `studio policies gate {a} --against {b}`.")


def _stop_asking(context: typer.Context, a: str, b: str) -> None:
    with opened(context) as session:
        count = withdraw_comparisons(session.db, get_policy(session.db, a).id, get_policy(session.db, b).id)
    typer.echo(f"{count} pairs are withdrawn; what people said stays. `studio evaluate {a} {b} --people` asks again.")


def loop(
    context: typer.Context,
    oracle: Annotated[str, typer.Option(help="Whose taste: shorter, longer, keyword:WORD or a style axis.")],
    rounds: Annotated[int, typer.Option(help="How many rounds to turn.")] = 1,
    pairs: Annotated[int, typer.Option(help="Judgments in each round.")] = 200,
    method: Annotated[str, typer.Option(help="How the policy learns.")] = "dpo",
    noise: Annotated[float, typer.Option(help="Share of decisive verdicts that are flipped, 0 to 0.5.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
    policy: Annotated[str | None, typer.Option(help="The policy to start from; left out, the champion.")] = None,
    prompts: Annotated[int, typer.Option(help="Held-out prompts each evaluation uses.")] = 150,
    benchmarks: Annotated[
        str | None,
        typer.Option(help="Benchmark tasks, separated by commas, on which a new champion must not be worse."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn whole rounds with an oracle: generate, judge, freeze, train, evaluate, promote or hold."""
    tasks = tuple(name.strip() for name in (benchmarks or "").split(",") if name.strip())
    plan = Plan(rounds, pairs, method, oracle, noise, seed, None, prompts, tasks, parse_assignments(settings or []))
    with opened(context) as session:
        plan.check()
        if policy is not None:
            plan = replace(plan, policy=find_or_add(session.db, policy).name)  # the loop promotes it, if it can learn
        with worker_for(session.home, standby=True) as keeper:
            turner = Loop(
                session.db,
                session.home,
                plan,
                wait_for=lambda run: run_to_end(session, keeper, run),
                say=tell if as_json else typer.echo,
            )
            done = turner.run()
    if as_json:
        show_json({"rounds": [one.as_json() for one in done]})


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
    if method is not None:
        settings_class(method)
    with opened(context) as session:
        lifecycle.reconcile(session.db)
        rows = list_runs(session.db, states=state or None, method=method, name=name, before=before, limit=limit + 1)
    more = len(rows) > limit
    rows = rows[:limit]
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
    if more:
        typer.echo(
            f"There are older runs: `--before {rows[-1].id}` shows them, `--limit` shows more at once.", err=True
        )


@runs.command("show")
def show_run(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Show one run: state, progress, settings, result, and the newest value of each curve."""
    with opened(context) as session:
        lifecycle.reconcile(session.db)
        run = get_run(session.db, run_id)
        metrics = list_metrics(session.db, run.id)
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
        points = list_metrics(session.db, get_run(session.db, run_id).id)
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
        run = get_run(session.db, run_id)
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
        run = run_queue.cancel(session.db, run_id)
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
        count = len(send_to_annotators(session.db, run_id, limit=limit))
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
        run = run_queue.resume(session.db, session.home, run_id)
        if wait:
            with worker_for(session.home, standby=False) as keeper:
                run = run_to_end(session, keeper, run)
    if wait and run.state is not RunState.succeeded:
        tell(ending_of(run))
        raise typer.Exit(1)
    _tell_state(run, as_json)


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


def _print_log(session: Session, run: RunRow, *, follow: bool) -> None:
    path = session.home.log_path(run.id)
    while follow and not path.exists() and not get_run(session.db, run.id).state.is_terminal:
        time.sleep(0.2)
    if not path.exists():
        return
    with path.open(errors="replace") as log:
        while True:
            ended = get_run(session.db, run.id).state.is_terminal
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
