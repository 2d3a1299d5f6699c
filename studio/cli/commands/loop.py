"""What a rule does in place of people: judge, and turn the whole loop. They work beside the services."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from feedback.errors import InvalidInput
from feedback.store.models.rounds import get_recipe
from studio.cli.commands.train import parse_assignments
from studio.cli.session.context import Session, opened
from studio.cli.session.output import AsJson, show_json, tell
from studio.cli.session.waiting import run_to_end
from studio.worker_keeper import worker_for
from training.checkpoints.registration import find_or_add
from training.conversion.prepare import prepare_base
from training.loop.plan import Plan
from training.loop.rounds import Loop, plan_of
from training.rewards.oracle_annotator import annotate


def judge(
    context: typer.Context,
    oracle: Annotated[
        str, typer.Option(help="shorter, longer, keyword:WORD, reward:CHECKPOINT, function:NAME or a style axis.")
    ],
    count: Annotated[int, typer.Option(help="How many matchups to judge.")],
    noise: Annotated[float, typer.Option(help="Share of decisive verdicts that are flipped, 0 to 0.5.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the noise and of the shown order.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Let a rule judge in place of a person; its judgments are marked as simulated for ever."""
    with opened(context) as session:
        sitting = annotate(session.db, session.home, oracle, count, noise=noise, seed=seed)
    if as_json:
        show_json({"annotator": sitting.annotator, "judged": sitting.judged, "ties": sitting.ties})
    else:
        typer.echo(f"{sitting.annotator} judged {sitting.judged} matchups, {sitting.ties} of them ties.")
    if sitting.judged < count:
        tell(f"The pool ran out after {sitting.judged} of {count}; fill it with `studio generate`.")
        raise typer.Exit(0 if sitting.judged else 1)


def loop(
    context: typer.Context,
    oracle: Annotated[
        str | None, typer.Option(help="Whose taste: shorter, longer, keyword:WORD, function:NAME or a style axis.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How many rounds to run.")] = 1,
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
    taken_up: Annotated[
        str | None,
        typer.Option("--resume", metavar="NAME", help="Go on with the loop of this name; nothing else is read."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run whole rounds with an oracle: generate, judge, freeze, train, evaluate, promote or hold.

    The rounds are kept in the home: a loop that was interrupted is taken up by --resume, and `studio rounds show` tells
    how far it is.
    """
    if taken_up is not None:
        with opened(context) as session:
            plan = plan_of(get_recipe(session.db, taken_up))
            _carry_out(session, plan, as_json, taken_up)
        return
    if oracle is None:
        raise InvalidInput("--oracle is missing: say whose taste the loop follows, for instance --oracle shorter.")
    tasks = tuple(name.strip() for name in (benchmarks or "").split(",") if name.strip())
    plan = Plan(rounds, pairs, method, oracle, noise, seed, None, prompts, tasks, parse_assignments(settings or []))
    with opened(context) as session:
        plan.check()
        if policy is not None:
            plan = replace(
                plan, policy=find_or_add(session.db, prepare_base(policy, report=lambda _, text: tell(text))).name
            )  # the loop promotes it, if it can learn
        _carry_out(session, plan, as_json)


def _carry_out(session: Session, plan: Plan, as_json: bool, taken_up: str | None = None) -> None:
    """Run a loop to its end, or continue the one of this name."""
    with worker_for(session.home, standby=True) as keeper:
        turner = Loop(
            session.db,
            session.home,
            plan,
            wait_for=lambda run: run_to_end(session, keeper, run),
            say=tell if as_json else typer.echo,
            name=taken_up,
        )
        tell(f"The rounds are kept as {turner.name}; `studio loop --resume {turner.name}` takes them up again.")
        done = turner.take_up() if taken_up else turner.run()
    if as_json:
        show_json({"name": turner.name, "rounds": [one.as_json() for one in done]})
