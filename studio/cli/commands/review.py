"""The quality of judgments from the shell: report, judgments, acts, gold; and batches of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback.errors import InvalidInput
from feedback.store.labeling.batches import BatchSummary
from feedback.tables import ReviewRow
from feedback.types import Batch, Checks, Purpose
from studio.cli.session.context import opened, whoami
from studio.cli.session.output import AsJson, show_fields, show_json, show_table

if TYPE_CHECKING:
    from feedback.quality.agreement import Measure

review = typer.Typer(help="How good the judgments are, and what to do about it.", no_args_is_help=True)
batches = typer.Typer(help="Parts of the pool with a purpose and a priority of their own.", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", help="Why; whoever reads it later must understand it.")]


@review.command("report")
def show_report(context: typer.Context, as_json: AsJson = False) -> None:
    """Agreement, the ceiling it implies, and one line per annotator, the least reliable first."""
    with opened(context) as session:
        report = session.services.review.report()
    if as_json:
        show_json(report.as_json())
        return
    show_fields(
        {
            "judgments": report.judgments,
            "agreement": _spelled(report.agreement),
            "alpha": _spelled(report.alpha),
            "ceiling": _spelled(report.ceiling),
        }
    )
    headers = ("annotator", "judgments", "right", "left", "longer", "same again", "gold", "seconds", "look at")
    rows = [
        (
            line.name,
            line.judgments,
            *(_value(m) for m in (line.accuracy, line.left, line.longer, line.consistency, line.gold, line.seconds)),
            ", ".join(line.flags) or None,
        )
        for line in report.annotators
    ]
    typer.echo()
    show_table(headers, rows, "Nobody has judged yet.")


@review.command("judgments")
def show_judgments(
    context: typer.Context,
    annotator: Annotated[str | None, typer.Option(help="Only this annotator's.")] = None,
    matchup: Annotated[str | None, typer.Option(help="Only this matchup's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List judgments with what others said of the same replies."""
    with opened(context) as session:
        found = session.services.review.list_evidence(annotator=annotator, matchup_id=matchup, limit=limit)
    if as_json:
        show_json(
            [
                {**item.judgment.model_dump(mode="json"), "others": item.others, "responses": item.responses}
                for item in found
            ]
        )
        return
    rows = [
        (
            item.judgment.id,
            item.judgment.matchup_id,
            item.judgment.annotator,
            item.judgment.state.value,
            item.judgment.verdict.value if item.judgment.verdict else str(item.judgment.ranking),
            ", ".join(f"{answer} {count}" for answer, count in item.others.items()) or None,
        )
        for item in found
    ]
    show_table(("judgment", "matchup", "annotator", "state", "said", "others"), rows, "No such judgment.")


@review.command("lineage")
def lineage(
    context: typer.Context,
    judgment: Annotated[str, typer.Argument(help="Its id.")],
    as_json: AsJson = False,
) -> None:
    """Walk from a judgment to what was made with it: datasets, reward models, policies."""
    with opened(context) as session:
        made = session.services.review.lineage(judgment)
    if as_json:
        show_json(made)
        return
    told = made["judgment"]
    typer.echo(f"{told['id']} by {told['annotator']} ({told['source']}, {told['state']})")
    for kind in ("datasets", "rewards", "policies"):
        names = ", ".join(one["name"] for one in made[kind])
        typer.echo(f"  {kind}: {names or 'none'}")


@review.command("exclude")
def exclude(
    context: typer.Context,
    judgment: Annotated[str, typer.Argument(help="Its id.")],
    reason: Reason,
    requeue: Annotated[bool, typer.Option("--requeue", help="Ask somebody else in its place.")] = False,
) -> None:
    """Take a judgment out of everything derived from judgments; it is kept, marked, with the reason."""
    with opened(context) as session:
        _told(session.services.review.exclude(judgment, whoami(), reason, requeue=requeue))


@review.command("restore")
def restore(context: typer.Context, judgment: Annotated[str, typer.Argument(help="Its id.")], reason: Reason) -> None:
    """Let an excluded judgment count again."""
    with opened(context) as session:
        _told(session.services.review.restore(judgment, whoami(), reason))


@review.command("requeue")
def requeue(context: typer.Context, matchup: Annotated[str, typer.Argument(help="Its id.")], reason: Reason) -> None:
    """Ask for one more opinion on a matchup."""
    with opened(context) as session:
        _told(session.services.review.requeue(matchup, whoami(), reason))


@review.command("message")
def message(
    context: typer.Context,
    annotator: Annotated[str, typer.Argument(help="To whom.")],
    text: Annotated[str, typer.Argument(help="What to say.")],
) -> None:
    """Leave a message for an annotator."""
    with opened(context) as session:
        _told(session.services.review.message(annotator, whoami(), text))


@review.command("gold")
def gold(
    context: typer.Context,
    matchup: Annotated[str, typer.Argument(help="Its id.")],
    answer: Annotated[str, typer.Option(help='first, second, tie, or ranks in stored order as "2,1,3".')],
) -> None:
    """Put a matchup whose answer is known before every annotator, in the form of any other task."""
    with opened(context) as session:
        made = session.services.review.make_gold(matchup, _answer(answer))
    typer.echo(f"Everybody will meet it as {made.id}; {matchup} left the pool.")


@review.command("acts")
def show_acts(context: typer.Context, as_json: AsJson = False) -> None:
    """List what reviewers did, newest first."""
    with opened(context) as session:
        rows = session.services.review.list_acts()
    if as_json:
        show_json([row.model_dump(mode="json") for row in rows])
        return
    cells = [
        (row.act.value, row.judgment_id or row.matchup_id or row.annotator, row.reason, row.actor, row.created_at)
        for row in rows
    ]
    show_table(("act", "about", "reason", "by", "when"), cells, "No reviewer has acted yet.")


@review.command("checks")
def checks(
    context: typer.Context,
    gold_share: Annotated[float | None, typer.Option(help="Share of tasks with a known answer, 0 to 0.5.")] = None,
    repeat_share: Annotated[float | None, typer.Option(help="Share of tasks shown again, 0 to 0.5.")] = None,
    repeat_after: Annotated[float | None, typer.Option(help="Seconds before a task may come back.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how many tasks are gold or repeats, or change it; what is left out stays as it is."""
    given = {"gold_share": gold_share, "repeat_share": repeat_share, "repeat_after": repeat_after}
    changed = {name: value for name, value in given.items() if value is not None}
    with opened(context) as session:
        if changed:
            now: Checks = session.services.labeling.change_checks(changed)
        else:
            now = session.services.labeling.checks()
    shown = {"version": 0, **now.model_dump(include={"version", *given})}
    show_json(shown) if as_json else show_fields(shown)


@batches.command("add")
def add_batch(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")],
    count: Annotated[int | None, typer.Option(min=1, help="Take this many from the pool.")] = None,
    matchup: Annotated[list[str] | None, typer.Option(help="Take this matchup; may be repeated.")] = None,
    purpose: Annotated[Purpose, typer.Option(help="collect trains; evaluate only measures.")] = Purpose.collect,
    priority: Annotated[int, typer.Option(help="Higher comes first; 0 is the pool's own.")] = 0,
    required: Annotated[int, typer.Option(help="Opinions per matchup.")] = 1,
    max_required: Annotated[int, typer.Option(help="Opinions at most, where people disagree; 0: no more.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Give a part of the pool its own purpose, priority and number of opinions."""
    batch = Batch(name=name, purpose=purpose, priority=priority, required=required, max_required=max_required)
    with opened(context) as session:
        made = session.services.review.add_batch(batch, matchup_ids=matchup, count=count)
    if as_json:
        show_json(_batch(made))
    else:
        typer.echo(f"{made.batch.name} has {made.states.get('open', 0)} matchups.")


@batches.command("list")
def show_batches(context: typer.Context, as_json: AsJson = False) -> None:
    """List batches with their progress."""
    with opened(context) as session:
        found = session.services.review.list_batches()
    if as_json:
        show_json([_batch(summary) for summary in found])
        return
    rows = [
        (s.batch.name, s.batch.purpose.value, s.batch.priority, s.batch.required, s.batch.max_required,
         ", ".join(f"{state} {number}" for state, number in s.states.items()))
        for s in found
    ]  # fmt: skip
    show_table(("name", "purpose", "priority", "opinions", "at most", "matchups"), rows, "No batches yet.")


@batches.command("priority")
def set_priority(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name or id.")],
    priority: Annotated[int, typer.Argument(help="Higher comes first.")],
) -> None:
    """Move a batch forward or back in the queue."""
    with opened(context) as session:
        moved = session.services.review.set_priority(name, priority)
    typer.echo(f"{moved.batch.name} now has priority {moved.batch.priority}.")


def _told(row: ReviewRow) -> None:
    typer.echo(f"{row.act.value} noted as {row.id}; nothing was deleted.")


def _answer(answer: str) -> dict[str, Any]:
    if "," not in answer:
        return {"verdict": answer}
    try:
        return {"ranking": [int(rank) for rank in answer.split(",")]}
    except ValueError as error:
        raise InvalidInput(f"{answer!r} is not a list of ranks; write them in stored order, as 2,1,3.") from error


def _batch(summary: BatchSummary) -> dict[str, Any]:
    return {**summary.batch.model_dump(mode="json"), "matchups": summary.states}


def _value(measure: Measure) -> str | None:
    return None if measure.value is None else f"{measure.value:.2f}"


def _spelled(measure: Measure) -> str:
    if measure.value is None:
        return measure.note
    if measure.low is None or measure.high is None:
        return f"{measure.value:.3f}"
    return f"{measure.value:.3f} [{measure.low:.3f}, {measure.high:.3f}]"
