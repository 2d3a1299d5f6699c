"""A home in one file and back: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studio.cli.session.context import home_of, opened
from studio.cli.session.output import AsJson, show_json, show_line, tell
from training.home import Home
from training.operations.backup import back_up
from training.operations.backup import restore as restore_home
from training.operations.rebase import missing_bases, missing_in_words, remedy_for
from training.private_files import users_umask


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The archive to write; - is standard output.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write everything the home holds into one archive; the studio may run meanwhile."""
    with opened(context, seed=False) as session, users_umask():
        report = back_up(session.home, session.db, file, replace=force)
    if as_json:
        show_json({"path": str(report.path), "files": report.files, "bytes": report.size}, apart_from=file)
    else:
        line = f"Wrote {report.files} files, {report.size / 1e6:.1f} MB, to {report.path}."
        show_line(line, apart_from=file)


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="What `studio backup` wrote.")],
    force: Annotated[
        bool, typer.Option("--force", help="Into a home that is not empty; the present one is kept aside.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the home from an archive, once every file in it has proved whole."""
    report = restore_home(home_of(context), file, force=force)
    kept = None if report.kept_aside is None else str(report.kept_aside)
    if as_json:
        show_json({"home": str(report.home), "files": report.files, "kept_aside": kept})
    else:
        typer.echo(f"Restored {report.files} files into {report.home}.")
        if kept:
            typer.echo(f"What was there before is in {kept}.")
    _tell_missing_bases(home_of(context))


def _tell_missing_bases(home: Home) -> None:
    """An archive holds no base models: say which of them do not lie where they lay when it was made."""
    db = home.open()
    try:
        missing = missing_bases(db)
    finally:
        db.dispose()
    if missing:
        tell(f"An archive holds no base models, and {missing_in_words(missing)}. {remedy_for(missing)}")
