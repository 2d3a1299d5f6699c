"""Who can reply, who serves, and where each came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.session.context import opened
from studio.cli.session.output import AsJson, show_fields, show_json, show_table, tell
from training.evaluation.gate import GateLimits, in_words
from training.evaluation.standing import judge_of

if TYPE_CHECKING:
    from studio.services.policies import PolicySummary

policies = typer.Typer(no_args_is_help=True, help="Models that can reply; the champion is the one that serves.")


@policies.command("list")
def show_policies(context: typer.Context, as_json: AsJson = False) -> None:
    """List policies, oldest first, with the newest win rate of each."""
    with opened(context) as session:
        rows = [_shown(summary) for summary in reversed(session.services.policies.list_policies())]
    if as_json:
        show_json(rows)
        return
    table = [
        (row["name"], "champion" if row["champion"] else "", row["parent"], _win_rate(row), row["created_at"][:19])
        for row in rows
    ]
    headers = ("name", "", "parent", "win rate", "made")
    show_table(headers, table, "No policies yet; `studio policies add MODEL` registers one.")


@policies.command("show")
def show_policy(context: typer.Context, policy: str, as_json: AsJson = False) -> None:
    """Show one policy with its scorecards, and with what people said of it beside others."""
    with opened(context) as session:
        found = session.services.policies.get_policy(policy)
        summary = _shown(found)
        cards = [card.model_dump(mode="json") for card in session.services.policies.list_scorecards(found.policy.id)]
        people = session.services.evaluation.list_by_people(found.policy.id)
    if as_json:
        show_json({**summary, "scorecards": cards, "people": people})
        return
    show_fields(summary)
    for figures in people:
        typer.echo("\npreferred by people")
        show_fields(figures)
    for card in cards:
        typer.echo(f"\n{card['kind']} {card['created_at'][:19]}")
        show_fields(card["figures"])


@policies.command("add")
def add(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model directory, a Hugging Face id, or a server: http://HOST:PORT/v1#MODEL."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What it is called here; left out, after the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Register a base model, or one behind an OpenAI-compatible server, so that it can reply. It does not serve yet.

    A model that is on this machine is examined first: its configuration, tokenizer, chat template, weights and window.
    """
    with opened(context) as session:
        added = session.services.policies.add(model, name)
        row, seen = added.policy, added.examination
        if as_json:
            examined = {} if seen is None else {"examined": seen.examined, "not_examined": seen.not_examined}
            show_json({**_shown(session.services.policies.get_policy(row.id)), **examined})
            return
    next_step = f"`studio generate --policy {row.name}` has people judge its replies."
    if seen is None:
        typer.echo(f"{row.name} is registered: {next_step}")
        return
    if seen.examined:
        typer.echo(f"Examined and in order: {', '.join(seen.examined)}.")
    if seen.is_complete:
        typer.echo(f"{row.name} can reply now: {next_step}")
        return
    for what in seen.not_examined:
        typer.echo(f"Not examined: {what}.")
    typer.echo(f"{row.name} is registered, and whether it can reply shows when it is first used: {next_step}")


@policies.command("rebase")
def rebase_policies(
    context: typer.Context,
    key: Annotated[
        str, typer.Argument(metavar="NAME-OR-OLDPATH", help="A policy on the base, or the path at which the base lay.")
    ],
    new: Annotated[str, typer.Argument(metavar="NEWPATH", help="Where the same model lies now.")],
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Take your word where nothing recorded which model the base was.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say where a base that was moved lies now, for every policy and reward model on it. Its hash proves it."""
    with opened(context) as session:
        moved = session.services.policies.rebase(key, new, unproven=unproven)
    if as_json:
        show_json(moved.as_json())
        return
    followed = ", ".join(dict.fromkeys([*moved.policies, *moved.checkpoints]))
    typer.echo(f"The base of {followed} lies at {moved.new} now (hash {moved.base_hash[:12]}).")
    if not moved.proved:
        tell("Nothing recorded which model it was: that it is the same, you said.")
    if moved.left:
        tell(f"Left at {moved.old}, for they stand on another model that had this path: {', '.join(moved.left)}.")


@policies.command("promote")
def promote(context: typer.Context, policy: str, as_json: AsJson = False) -> None:
    """Make a policy the champion; the next pairs come from it. Undone by promoting the one before."""
    with opened(context) as session:
        has_worker = session.home.worker_holder() is not None  # without one a queued run would wait unseen
        promotion = session.services.policies.promote(policy, fill=has_worker)
        row, run = promotion.policy, promotion.run
        if as_json:
            show_json(_shown(session.services.policies.get_policy(row.id)))
            return
    if run is None:
        typer.echo(f"{row.name} is the champion now; fill the pool with its replies by `studio generate`.")
    else:
        typer.echo(f"{row.name} is the champion now; run {run.id} fills the pool with its replies.")


@policies.command("gate")
def gate(
    context: typer.Context,
    policy: str,
    against: Annotated[str | None, typer.Option(help="Measured against this policy; left out, the champion.")] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0.0, help="How much of a benchmark's score may be lost; left out, as the task says, or 0.01."),
    ] = None,
    kl: Annotated[float | None, typer.Option(min=0.0, help="How many nats per reply it may have moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a policy may serve by what was measured: PROMOTE, HOLD or REJECT, and why. Changes nothing."""
    with opened(context) as session:
        decision = session.services.evaluation.decide(policy, against, GateLimits(margin=margin, kl=kl))
    if as_json:
        show_json(decision.as_json())
        return
    for line in in_words(decision.as_json()):
        typer.echo(line)


@policies.command("lineage")
def lineage(context: typer.Context, policy: str, as_json: AsJson = False) -> None:
    """Walk from a policy to the people who made it."""
    with opened(context) as session:
        walked = session.services.policies.lineage(policy)
    if as_json:
        show_json(walked)
        return
    step: dict[str, Any] | None = walked
    while step is not None:
        for line in _lineage_lines(step):
            typer.echo(line)
        step = step["parent"]


def _lineage_lines(step: dict[str, Any]) -> list[str]:
    policy, run, dataset, judgments = step["policy"], step["run"], step["dataset"], step["judgments"]
    lines = [f"{policy['name']} (over {policy['base']})"]
    if run:
        lines.append(f"  made by run {run['id']} ({run['method']}, {run['state']})")
    if dataset and step["prompts_only"]:
        lines.append(f"  with the prompts of dataset {dataset['name']}, hash {dataset['hash'][:12]}")
    elif dataset:
        lines += _dataset_lines(dataset, judgments, indent="  ")
    if step["reward_function"]:
        lines.append(f"  scored by the function {step['reward_function']}")
    for reward in step["rewards"]:
        lines.append(f"  scored by reward model {reward['checkpoint']['name']}")
        if reward["dataset"]:
            lines += _dataset_lines(reward["dataset"], reward["judgments"], indent="    ")
    if step["parent"]:
        lines.append("  trained from:")
    return lines


def _dataset_lines(dataset: dict[str, Any], judgments: dict[str, Any], indent: str) -> list[str]:
    sources = ", ".join(f"{count} {source}" for source, count in judgments["by_source"].items())
    people = ", ".join(f"{name} ({votes})" for name, votes in judgments["annotators"].items())
    return [
        f"{indent}from dataset {dataset['name']}, hash {dataset['hash'][:12]}, {dataset['counts']['pairs']} pairs",
        f"{indent}of {judgments['count']} judgments ({sources}) by {people}",
    ]


def _shown(summary: PolicySummary) -> dict[str, Any]:
    row = summary.policy
    return {
        "id": row.id,
        "name": row.name,
        "champion": summary.is_champion,
        "parent": summary.parent,
        "base": row.base,
        "checkpoint_id": row.checkpoint_id,
        "run_id": row.run_id,
        "created_at": row.model_dump(mode="json")["created_at"],
        "win_rate": _figures(summary),
    }


def _figures(summary: PolicySummary) -> dict[str, Any] | None:
    card = summary.win_rate
    if card is None:
        return None
    figures = {name: card.figures.get(name) for name in ("win_rate", "low", "high", "n_prompts")}
    return {"against": summary.against, **figures, "judge": judge_of(card)}


def _win_rate(row: dict[str, Any]) -> str:
    figures = row["win_rate"]
    if not figures or figures["win_rate"] is None:
        return "–"
    return (
        f"{100 * figures['win_rate']:.1f} % [{100 * figures['low']:.1f}, {100 * figures['high']:.1f}] "
        f"over {figures['against']}, judge {figures['judge']}"
    )
