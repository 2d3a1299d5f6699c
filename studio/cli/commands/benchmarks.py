"""What policies score on benchmarks, and whether two of them differ: run, list, compare, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.session.context import Session, opened
from studio.cli.session.output import AsJson, show_json, show_table, tell
from studio.cli.session.waiting import submit_and_wait
from studio.worker_keeper import worker_for
from training.evaluation.benchmark_comparison import Comparison, comparison_json
from training.settings.benchmark import STANDARD_TASKS

benchmark = typer.Typer(no_args_is_help=True, help="Tasks of lm-evaluation-harness, compared item by item.")

SHOWN_CHARACTERS = 160


@benchmark.command("run")
def run_benchmark(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(help="The policy that takes the tasks.")],
    tasks: Annotated[
        str, typer.Option(help="Tasks or groups, separated by commas; `lm_eval ls tasks` lists those there are.")
    ] = ",".join(STANDARD_TASKS),
    include: Annotated[Path | None, typer.Option(help="A folder with tasks of your own.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only this many items of each task.")] = None,
    num_fewshot: Annotated[int | None, typer.Option("--fewshot", help="Solved examples before each item.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have a policy take benchmark tasks, and keep its score on every item."""
    config = {
        "policy": policy,
        "tasks": tasks,
        "include": str(include.resolve()) if include else None,
        "limit": limit,
        "num_fewshot": num_fewshot,
    }
    with opened(context) as session, worker_for(session.home, standby=False) as keeper:
        run = submit_and_wait(session, keeper, "benchmark", config)
    if as_json:
        show_json({"run_id": run.id, **run.result})
        return
    rows = [
        (task, metric, f"{mean:.4f}", means["n"])
        for task, means in run.result["tasks"].items()
        for metric, mean in means.items()
        if metric != "n"
    ]
    show_table(("task", "metric", "score", "items"), rows, "Nothing was taken.")


@benchmark.command("list")
def show_benchmarks(
    context: typer.Context,
    policy: Annotated[str | None, typer.Option(help="Only those of this policy.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what policies scored, newest first."""
    with opened(context) as session:
        taken = session.services.evaluation.list_benchmarks(policy or None)
        names = session.services.runs.names()
    rows = [{**row.model_dump(mode="json"), "policy": names[row.policy_id]} for row in taken]
    if as_json:
        show_json(rows)
        return
    table = [
        (row["policy"], row["task"], metric, f"{mean:.4f}", row["n"], row["created_at"][:19])
        for row in rows
        for metric, mean in row["means"].items()
    ]
    headers = ("policy", "task", "metric", "score", "items", "taken")
    show_table(headers, table, "No benchmark was taken yet; `studio benchmark run POLICY` takes one.")


@benchmark.command("compare")
def show_comparison(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="The policy that is measured.")],
    b: Annotated[str, typer.Argument(help="The policy it is measured against.")],
    metric: Annotated[str | None, typer.Option(help="By this metric; left out, each task's main one.")] = None,
    items: Annotated[int, typer.Option(min=0, max=1000, help="So many items that differ are shown, lost first.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two policies on the tasks both took: paired, item by item, with what so many items can show at all."""
    with opened(context) as session:
        found = session.services.evaluation.compare_two(a, b, metric)
        differing = {one.task: _differing(session, one, items) for one in found.comparisons if items > 0}
    if as_json:
        comparisons = [{**comparison_json(one), "items": differing.get(one.task, [])} for one in found.comparisons]
        show_json({"comparisons": comparisons, "unlike": found.unlike})
        return
    rows = [_row(one) for one in found.comparisons]
    headers = ("task", "metric", a, b, "difference", "95 %", "p", "shows from", "items", "")
    show_table(headers, rows, f"{a} and {b} took no task in common; `studio benchmark run` takes one.")
    if len(rows) > 1:
        tell(f"p is adjusted for {len(rows)} tasks (Holm).")
    for sentence in found.unlike:
        tell(sentence)
    for task, lines in differing.items():
        typer.echo(f"\n{task}: items that differ")
        for line in lines:
            typer.echo(f"  {line['score_a']:g} against {line['score_b']:g}: {_short(line['asked'])}")
            typer.echo(f"    {a}: {_short(line['answer_a'])}\n    {b}: {_short(line['answer_b'])}")


@benchmark.command("import")
def import_benchmarks(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A results_*.json of lm_eval --log_samples, or the folder it is in.")],
    policy: Annotated[str, typer.Option(help="The policy that took the tasks.")],
    as_json: AsJson = False,
) -> None:
    """Bring in what lm_eval measured elsewhere, with its items."""
    with opened(context) as session:
        kept, left_out = session.services.evaluation.import_benchmarks(policy, path)
    for name in left_out:
        tell(f"{name} has no score of its items, so it is left out.")
    if as_json:
        show_json([row.model_dump(mode="json") for row in kept])
        return
    table = [(row.task, name, f"{mean:.4f}", row.n) for row in kept for name, mean in row.means.items()]
    show_table(("task", "metric", "score", "items"), table, "The report holds no task.")


def _row(one: Comparison) -> tuple[Any, ...]:
    pair = one.paired
    return (
        one.task,
        one.metric,
        f"{pair.mean_a:.4f}",
        f"{pair.mean_b:.4f}",
        f"{pair.difference:+.4f}",
        f"[{pair.low:+.4f}, {pair.high:+.4f}]",
        f"{one.p_adjusted:.3g}",
        f"±{pair.detectable:.4f}",
        pair.n,
        one.finding.value,
    )


def _differing(session: Session, one: Comparison, limit: int) -> list[dict[str, Any]]:
    return [row._asdict() for row in session.services.evaluation.list_differing(one, limit)]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else "…" + line[1 - SHOWN_CHARACTERS :]
