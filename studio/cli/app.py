"""The ``studio`` command: everything the page does, scriptable.

``--home`` and ``--database-url`` are understood before and after the command. A failed command exits non-zero with
one sentence on standard error; a traceback means a bug, never a user's mistake.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from feedback.database.stored_values import MET_ON_DAMAGE, require_values
from feedback.errors import DatabaseDamaged, StudioError
from feedback.store.rows import reason_of
from studio import __version__
from studio.cli.commands import (
    benchmarks,
    data,
    evaluate,
    loop,
    policies,
    review,
    rounds,
    runs,
    serve,
    storage,
    train,
    users,
)
from studio.cli.session.context import Asked
from training.home import Home
from training.private_files import keep_private

HOME_OPTIONS = ("--home", "--database-url")

# Typer carries its own copy of click and shows only the class below this one.
UsageError: Any = typer.BadParameter.__base__


class StudioGroup(TyperGroup):
    """The top command: takes the home's options from anywhere, and turns errors into a sentence and a status."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, those about the home first wherever they stand."""
        try:
            refuse_other_encodings(args)
            return super().parse_args(ctx, home_options_first(args))
        except UsageError as error:
            raise _told(error) from error

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise _told(error) from error
        except StudioError as error:
            reason = str(error)
        except ValidationError as error:
            reason = _damage_behind(ctx) or reason_of(error)
        except MET_ON_DAMAGE as error:
            if (damage := _damage_behind(ctx)) is None:
                raise
            reason = f"{damage} (met as {type(error).__name__})"
        typer.echo(reason, err=True)
        raise typer.Exit(1)


def _damage_behind(ctx: Any) -> str | None:
    """What is wrong in the database, where a command met something that nobody foresaw; None where it is sound."""
    if not isinstance(ctx.obj, Asked):
        return None
    try:
        db = Home.locate(ctx.obj.home, ctx.obj.database_url).look()
        if db is not None:
            try:
                require_values(db)
            finally:
                db.dispose()
    except DatabaseDamaged as error:
        return str(error)
    except Exception:
        return None  # what was met first is to be told, not what this met
    return None


def _told(error: Any) -> Exception:
    """A misspelt command as one sentence and status 2; a command group without a command shows its help instead."""
    if "NoArgs" in type(error).__name__:
        return error  # type: ignore[no-any-return]
    said = str(error.format_message()).replace("Value error, ", "").rstrip(".")
    path = error.ctx.command_path.split() if error.ctx else []
    words = " ".join(["studio", *(path[path.index("studio.cli") + 1 :] if "studio.cli" in path else path[1:])])
    typer.echo(f"{said}; `{words} --help` shows what can be given.", err=True)
    return typer.Exit(2)


def home_options_first(args: list[str]) -> list[str]:
    """The same arguments with ``--home DIR`` and ``--database-url URL`` moved before the command."""
    first: list[str] = []
    rest: list[str] = []
    remaining = iter(args)
    for argument in remaining:
        if argument == "--":
            rest += [argument, *remaining]
        elif argument in HOME_OPTIONS:
            first += [argument, *[value for value in [next(remaining, None)] if value is not None]]
        elif argument.startswith(tuple(f"{option}=" for option in HOME_OPTIONS)):
            first.append(argument)
        else:
            rest.append(argument)
    return first + rest


def refuse_other_encodings(args: list[str]) -> None:
    """Raise a usage error for an argument that is not UTF-8.

    File names are no exception: what a command was given goes to the audit log, which the database lets only grow.
    """
    for argument in args:
        typed = argument.encode(errors="surrogateescape")  # how Python keeps the bytes that it could not read
        shown = typed.decode(errors="backslashreplace")
        if shown != argument:
            raise UsageError(f"'{shown}' is not UTF-8; write it in UTF-8, or rename the file that it names")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit()


app = typer.Typer(
    name="studio",
    cls=StudioGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="People rank what a model says, and the model becomes what they prefer.",
    epilog="--home and --database-url may stand before or after a command.",
)


@app.callback()
def start(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="Where all state is; else $STUDIO_HOME, else ~/.rlhf-studio.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="PostgreSQL in place of the SQLite file; else $STUDIO_DATABASE_URL.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """People rank what a model says, and the model becomes what they prefer."""
    context.obj = Asked(home, database_url)


app.command()(serve.up)
app.command()(serve.worker)
app.command()(serve.doctor)
app.command()(storage.backup)
app.command()(storage.restore)
app.add_typer(users.users, name="users")
app.command()(users.audit)
app.add_typer(data.prompts, name="prompts")
app.command()(data.generate)
app.command()(loop.judge)
app.add_typer(data.dataset, name="dataset")
app.command()(data.export)
app.command("import")(data.import_data)
app.command()(train.train)
app.add_typer(runs.runs, name="runs")
app.add_typer(policies.policies, name="policies")
app.add_typer(storage.checkpoints, name="checkpoints")
app.command()(evaluate.evaluate)
app.add_typer(benchmarks.benchmark, name="benchmark")
app.command()(loop.loop)
app.add_typer(rounds.rounds, name="rounds")
app.add_typer(review.review, name="review")
app.add_typer(review.batches, name="batches")


def main() -> None:
    """Run the command line."""
    keep_private()
    app()
