"""Rounds: recipes that the worker carries out, with people or rules as annotators."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from feedback.errors import InvalidInput
from studio.cli.commands.train import parse_assignments
from studio.cli.session.context import opened
from studio.cli.session.output import AsJson, show_fields, show_json, show_table

rounds = typer.Typer(
    no_args_is_help=True, help="Rounds of labeling, training and evaluation that the worker carries out."
)

Key = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the recipe.")]
Pairs = Annotated[int | None, typer.Option(help="Pairs judged in each round; left out, 200.")]
Count = Annotated[int | None, typer.Option("--rounds", help="How many rounds follow each other; left out, 3.")]
Opinions = Annotated[int | None, typer.Option(help="Judgments that each pair is to get; left out, 1.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Only prompts with this tag; may be repeated.")]
Annotator = Annotated[str | None, typer.Option(help="people, or an oracle's rule such as shorter; left out, people.")]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", help="A training of each round; repeated, one after the other. Default dpo."),
]
MethodSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="[METHOD.]KEY=VALUE", help="A setting of a method, of the last one without METHOD."),
]
Evaluator = Annotated[
    str | None,
    typer.Option(help="Who compares: people, a rule, or reward (the round's own); left out, the annotator."),
]
Prompts = Annotated[int | None, typer.Option(help="Held-out prompts of a comparison; left out, 150.")]
Benchmarks = Annotated[
    list[str] | None, typer.Option("--benchmark", help="A task on which a champion must not get worse; repeatable.")
]
Limits = Annotated[
    list[str] | None, typer.Option("--limit", metavar="KEY=VALUE", help="A limit of the gate, for instance kl=20.")
]
Promote = Annotated[
    str | None, typer.Option(help="ask: a person decides at the gate; auto: the gate decides. Left out, ask.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything drawn; left out, 0.")]


@rounds.command("start")
def start(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the recipe is called; its datasets and policies begin so.")],
    policy: Annotated[str | None, typer.Option(help="The policy to start from; left out, the champion.")] = None,
    count: Count = None,
    pairs: Pairs = None,
    opinions: Opinions = None,
    tags: Tags = None,
    annotator: Annotator = None,
    noise: Annotated[float | None, typer.Option(help="Share of an oracle's verdicts that are flipped.")] = None,
    methods: Methods = None,
    settings: MethodSettings = None,
    evaluator: Evaluator = None,
    prompts: Prompts = None,
    benchmarks: Benchmarks = None,
    limits: Limits = None,
    promote: Promote = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Start rounds: the pool is filled, people (or a rule) judge, a policy is trained, compared, promoted or held.

    The worker of `studio up` or `studio worker` carries them out, whatever is closed or restarted meanwhile.
    """
    given = _given(
        policy=policy, rounds=count, pairs=pairs, opinions=opinions, tags=tags, annotator=annotator, noise=noise,
        evaluator=evaluator, prompts=prompts, benchmarks=benchmarks, promote=promote, seed=seed,
        limits=_limits(limits), methods=_steps(methods, settings),
    )  # fmt: skip
    with opened(context) as session:
        recipe = session.services.rounds.get_recipe(session.services.rounds.start(name, given).id)
    if as_json:
        show_json(recipe)
    else:
        typer.echo(f"Recipe {name} is started; `studio rounds show {name}` tells where it stands.")


@rounds.command("list")
def show_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List recipes, newest first, each with the state of its newest round."""
    with opened(context) as session:
        rows = session.services.rounds.list_recipes()
    if as_json:
        show_json(rows)
        return
    table = [
        (
            row["name"],
            row["state"],
            f"{row['round']} of {row['of']}",
            row["round_state"],
            row["reason"] or row["waits_for"],
        )
        for row in rows
    ]
    show_table(
        ("name", "", "round", "state", "waits for"), table, "No rounds yet; `studio rounds start NAME` begins some."
    )


@rounds.command("show")
def show(context: typer.Context, name: Key, as_json: AsJson = False) -> None:
    """Show a recipe: its settings, the state of each round, and what to do next."""
    with opened(context) as session:
        recipe = session.services.rounds.get_recipe(name)
    if as_json:
        show_json(recipe)
        return
    given = {key: value for key, value in recipe["settings"].items() if value not in (None, "", [], {})}
    show_fields({key: recipe[key] for key in ("name", "state", "reason")} | given)
    table = [
        (row["number"], row["state"], row["champion"], row["evidence"].get("policy", ""), _rate(row), row["waits_for"])
        for row in recipe["rounds"]
    ]
    typer.echo("")
    show_table(("round", "state", "from", "policy", "win rate", "waits for"), table, "")
    for sentence in filter(None, [*recipe["guidance"], recipe["command"]]):
        typer.echo(f"\n{sentence}")


@rounds.command("pause")
def pause(context: typer.Context, name: Key) -> None:
    """Begin nothing more; runs under way go on to their end."""
    with opened(context) as session:
        session.services.rounds.pause(name)
    typer.echo(f"{name} is paused; `studio rounds resume {name}` goes on.")


@rounds.command("resume")
def resume(context: typer.Context, name: Key) -> None:
    """Go on with a paused recipe; runs of its round that failed are queued again."""
    with opened(context) as session:
        session.services.rounds.resume(name)
    typer.echo(f"{name} goes on.")


@rounds.command("skip")
def skip(context: typer.Context, name: Key) -> None:
    """Wait no longer in the present state: freeze what was judged, or decide by what was measured."""
    with opened(context) as session:
        follows = session.services.rounds.skip(name)
    typer.echo(f"{name} waits no longer: {follows}.")


@rounds.command("decide")
def decide(context: typer.Context, name: Key, choice: Annotated[str, typer.Argument(metavar="promote|hold")]) -> None:
    """Answer the gate of a recipe that asks: promote the new policy, or hold it."""
    if choice not in ("promote", "hold"):
        raise InvalidInput(f"{choice!r:.40} is no decision. Valid: promote, hold.")
    with opened(context) as session:
        session.services.rounds.decide(name, choice)  # type: ignore[arg-type]
    typer.echo(f"{name}: {choice}.")


@rounds.command("fork")
def fork(
    context: typer.Context,
    name: Key,
    new_name: Annotated[str, typer.Argument(metavar="NEW_NAME")],
    count: Count = None,
    pairs: Pairs = None,
    opinions: Opinions = None,
    tags: Tags = None,
    annotator: Annotator = None,
    methods: Methods = None,
    settings: MethodSettings = None,
    evaluator: Evaluator = None,
    prompts: Prompts = None,
    promote: Promote = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Start a recipe with the settings of another, but for those given, from where its newest round started."""
    if settings and not methods:
        raise InvalidInput("--set needs --method: name the methods of the new recipe with it.")
    changes = _given(
        rounds=count, pairs=pairs, opinions=opinions, tags=tags, annotator=annotator, evaluator=evaluator,
        prompts=prompts, promote=promote, seed=seed, methods=_steps(methods, settings),
    )  # fmt: skip
    with opened(context) as session:
        recipe = session.services.rounds.get_recipe(session.services.rounds.fork(name, new_name, changes).id)
    if as_json:
        show_json(recipe)
    else:
        typer.echo(f"Recipe {new_name} is started with the settings of {name}.")


@rounds.command("cancel")
def cancel(
    context: typer.Context, name: Key, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """End a recipe: its runs are cancelled and its open pairs withdrawn. What it made is kept."""
    if not yes:
        typer.confirm(
            f"Cancel {name}? Its runs end and its open pairs are withdrawn; datasets and policies stay", abort=True
        )
    with opened(context) as session:
        session.services.rounds.cancel(name)
    typer.echo(f"{name} is cancelled; `studio rounds fork {name} NEW_NAME` begins again with its settings.")


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, [], {})}


def _limits(limits: list[str] | None) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in parse_assignments(limits or []).items()}
    except ValueError as error:
        raise InvalidInput(f"--limit needs a number: {error}.") from error


def _steps(methods: list[str] | None, settings: list[str] | None) -> list[dict[str, Any]] | None:
    """The methods in order, each with its settings."""
    if not methods and not settings:
        return None
    names = methods or ["dpo"]
    steps: list[dict[str, Any]] = [{"method": name, "settings": {}} for name in names]
    for key, value in parse_assignments(settings or []).items():
        method, dot, own = key.partition(".")
        step = next((step for step in steps if step["method"] == method), None) if dot else steps[-1]
        if step is None:
            raise InvalidInput(f"--set {key}: no method {method!r} in this recipe, which has {', '.join(names)}.")
        step["settings"][own if dot else key] = value
    return steps


def _rate(row: dict[str, Any]) -> str:
    figures = row["evidence"].get("over_champion") or {}
    if figures.get("win_rate") is None:
        return ""
    return f"{100 * figures['win_rate']:.1f} % [{100 * figures['low']:.1f}, {100 * figures['high']:.1f}]"
