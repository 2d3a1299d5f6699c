"""What a rule does in place of people: judge, and turn the whole loop. They work beside the services."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from studio.cli.commands.train import parse_assignments
from studio.cli.session.context import opened
from studio.cli.session.output import AsJson, show_json, tell
from studio.cli.session.waiting import run_to_end
from studio.worker_keeper import worker_for
from training.checkpoints.registration import find_or_add
from training.loop.oracle_annotator import annotate
from training.loop.plan import Plan
from training.loop.rounds import Loop


def judge(
    context: typer.Context,
    oracle: Annotated[str, typer.Option(help="shorter, longer, keyword:WORD, reward:CHECKPOINT or a style axis.")],
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
