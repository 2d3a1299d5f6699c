"""Who can reply, who serves, and where each came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.session.context import opened
from studio.cli.session.output import AsJson, show_fields, show_json, show_table, tell
from training.evaluation.gate import GateLimits, in_words
from training.evaluation.people import PEOPLE
from training.evaluation.standing import judge_of
from training.export.exporting import Form
from training.plain_templates import PLAIN_TEMPLATES
from training.private_files import users_umask

if TYPE_CHECKING:
    from studio.services.policies import PolicySummary
    from training.board.bradley_terry import Strength

policies = typer.Typer(no_args_is_help=True, help="Models that can reply; the champion is the one that serves.")

ChatTemplate = Annotated[
    str | None,
    typer.Option(
        "--chat-template",
        metavar="NAME|FILE",
        help=f"How conversations are written, for a model without a template: {', '.join(PLAIN_TEMPLATES)}, or a file "
        "with a Jinja template. It stays with the policy.",
    ),
]


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


@policies.command("board")
def board(
    context: typer.Context,
    reference: Annotated[str | None, typer.Option(help="Has strength 0; left out, the champion.")] = None,
    by: Annotated[str, typer.Option(metavar="JUDGE", help="Who judged: people, oracle:RULE or reward:NAME.")] = PEOPLE,
    as_json: AsJson = False,
) -> None:
    """Rank all policies by one judge: Bradley-Terry strengths with 95 % intervals, and how few votes reverse two.

    By people the intervals come from resampled prompts. By a rule or a reward model they come from the intervals of
    the win rates that `studio evaluate` measured.
    """
    with opened(context) as session:
        found = session.services.evaluation.board(reference, by)
    if as_json:
        show_json(found.as_json())
        return
    rows = [
        (
            row.policy,
            row.unknown or _interval(row.strength),
            _interval(row.at_equal_length),
            row.votes,
            row.prompts,
            row.votes_to_reverse,
        )
        for row in found.standings
    ]
    headers = ("policy", f"log-odds over {found.reference}", "at equal length", "votes", "prompts", "votes to reverse")
    show_table(
        headers, rows, "People have compared no two policies yet; `studio evaluate A B --people` asks them to, blind."
    )
    others = [judge for judge in found.judges if judge != found.by]
    if others:
        tell(f"Boards by other judges: {', '.join(f'--by {judge}' for judge in others)}.")


@policies.command("add")
def add(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model directory, a GGUF file, a Hugging Face id, a server (http://HOST:PORT/v1#MODEL), smollm2 or "
            "starter.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What it is called here; left out, after the model.")] = None,
    chat_template: ChatTemplate = None,
    as_json: AsJson = False,
) -> None:
    """Register a base model, or one behind an OpenAI-compatible server, so that it can reply. It does not serve yet.

    A model that is on this machine is examined first: its configuration, tokenizer, chat template, weights and window.
    """
    with opened(context) as session:
        added = session.services.policies.add(model, name, chat_template=chat_template, say=tell)
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


@policies.command("check")
def check(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A policy of this home, or whatever `studio policies add` takes.")
    ],
    chat_template: ChatTemplate = None,
    as_json: AsJson = False,
) -> None:
    """Say what a model can be used for on this machine, and at what cost, before anything is started. Adds nothing."""
    with opened(context) as session:
        report = session.services.policies.check(model, chat_template=chat_template, say=tell)
    if as_json:
        show_json(report.as_json())
        return
    show_fields(report.facts())
    typer.echo("")
    rows = [(one.method, f"{one.needed_mb:,} MB", _seconds(one.step_seconds), one.verdict) for one in report.methods]
    show_table(("method", "memory", "a step", ""), rows, "")


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:,.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


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


@policies.command("export")
def export(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the policy.")],
    form: Annotated[
        Form, typer.Option("--as", help="A PEFT adapter, a merged model, a GGUF file, or a repository of the Hub.")
    ],
    out: Annotated[str, typer.Option(metavar="PATH", help="An empty or new directory; for the Hub, USER/REPO.")],
    quantization: Annotated[
        str, typer.Option("--quantization", help="How a GGUF file stores matrices: f16 or q8_0.")
    ] = "f16",
    prompts: Annotated[int, typer.Option(min=1, help="On how many prompts policy and export are compared.")] = 8,
    contents: Annotated[Form, typer.Option(help="What a repository of the Hub holds: merged, adapter or gguf.")] = (
        Form.merged
    ),
    public: Annotated[bool, typer.Option("--public", help="Let everybody read the repository of the Hub.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take a policy away: for PEFT, transformers, llama.cpp and Ollama, or the Hub. It is checked before it appears."""
    with opened(context) as session, users_umask():
        exported = session.services.policies.export(
            policy,
            form,
            out,
            quantization=quantization,
            prompts=prompts,
            contents=contents,
            public=public,
            say=tell,
        )
    if as_json:
        show_json(exported.as_json())
        return
    typer.echo(f"Exported {policy} as {exported.form} to {exported.place}: {', '.join(exported.files)}.")


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


def _interval(strength: Strength | None) -> str:
    return "" if strength is None else f"{strength.value:+.2f} [{strength.low:+.2f}, {strength.high:+.2f}]"


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
