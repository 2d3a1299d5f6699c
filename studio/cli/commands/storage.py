"""What a home holds on disk: one archive of it and back, and the checkpoints that training left."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from feedback.errors import InvalidInput
from feedback.store.models.checkpoints import list_checkpoints
from studio.cli.session.context import home_of, opened
from studio.cli.session.output import AsJson, show_json, show_line, show_table, tell
from training.home import Home
from training.operations.backup import back_up
from training.operations.backup import restore as restore_home
from training.operations.rebase import missing_bases, missing_in_words, remedy_for
from training.operations.retention import RetentionLimits, plan_removals, protected, remove
from training.private_files import users_umask

checkpoints = typer.Typer(no_args_is_help=True, help="What training left on disk.")


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


@checkpoints.command("list")
def show_checkpoints(context: typer.Context, as_json: AsJson = False) -> None:
    """List checkpoints, newest first, with their size and whether they are kept whatever the limits."""
    with opened(context) as session:
        kept = protected(session.db)
        rows = [
            {
                "name": row.name,
                "kind": row.kind,
                "adapter": row.manifest.get("adapter", {}).get("kind"),
                "megabytes": round(sum(p.stat().st_size for p in (session.home.path / row.path).rglob("*")) / 1e6, 2),
                "protected": row.id in kept,
                "removed_at": row.removed_at.isoformat() if row.removed_at else None,
                "created_at": row.created_at.isoformat(),
            }
            for row in list_checkpoints(session.db)
        ]
    if as_json:
        show_json(rows)
        return
    table = [
        (row["name"], row["kind"], row["adapter"], row["megabytes"], "removed" if row["removed_at"] else
         "protected" if row["protected"] else "", str(row["created_at"])[:19])
        for row in rows
    ]  # fmt: skip
    show_table(("name", "kind", "adapter", "MB", "", "made"), table, "No checkpoints yet.")


@checkpoints.command("prune")
def prune(
    context: typer.Context,
    keep_best: Annotated[int, typer.Option(help="So many of each kind stay, the best measured first.")] = 3,
    days: Annotated[float | None, typer.Option("--older-than", metavar="DAYS", help="Only what is older.")] = None,
    gigabytes: Annotated[float | None, typer.Option("--max-gb", help="Only until the rest fits into this.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the weights of checkpoints beyond the limits; asks first.

    Promoted policies, their ancestors and whatever a waiting run needs are never touched, nor is any manifest.
    """
    with opened(context) as session:
        planned = plan_removals(session.db, session.home, RetentionLimits(keep_best, days, gigabytes))
        listed = [
            {"name": one.name, "megabytes": round(one.size / 1e6, 2), "days": round(one.days, 1)} for one in planned
        ]
        if not as_json:
            rows = [(one["name"], one["megabytes"], one["days"]) for one in listed]
            show_table(("goes", "MB", "days old"), rows, "Nothing is beyond these limits.")
        if planned and not yes and not _agreed(len(planned)):
            raise typer.Exit(1)
        freed = remove(session.db, planned)
    if as_json:
        show_json({"removed": listed, "freed_bytes": freed})
    elif planned:
        typer.echo(f"Freed {freed / 1e6:.1f} MB; the manifests are kept.")


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise InvalidInput(f"{count} would lose their weights for good; nothing was removed. Say --yes to do it.")
    return typer.confirm("Their weights cannot be brought back. Remove them?")
