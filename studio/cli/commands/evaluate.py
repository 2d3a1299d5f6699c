"""Measure how often one policy wins over another."""

from __future__ import annotations

from typing import Annotated

import typer

from feedback.errors import InvalidInput
from studio.cli.session.context import opened
from studio.cli.session.output import AsJson, show_fields, show_json
from studio.cli.session.waiting import submit_and_wait
from studio.worker_keeper import worker_for
from training.evaluation.gate import in_words
from training.evaluation.people import asked_of_people


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
    precision: Annotated[
        str | None, typer.Option(help="auto, or fp32: never in bf16, so that a seed alone draws a reply again.")
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
    config |= {"best_of": best_of, "picker": picker, "precision": precision}
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
        figures = session.services.evaluation.by_people(a, b)
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
        count = session.services.evaluation.withdraw(a, b)
    typer.echo(f"{count} pairs are withdrawn; what people said stays. `studio evaluate {a} {b} --people` asks again.")
