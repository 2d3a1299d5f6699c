"""Has a home lost its database? Then its files are there and the database is not, or is empty.

A full disk, a bad copy or a power cut can leave a database without a byte. To open it would make a new, empty one in
its place, and a studio without users, which everybody on the machine may use as an admin.
"""

from __future__ import annotations

from pathlib import Path

from feedback.database.engine import file_of
from feedback.database.read_only import count_tables
from feedback.errors import DatabaseDamaged


def require_database(home: Path, database_url: str, *, traces: list[Path], directories: list[Path]) -> None:
    """Raise DatabaseDamaged where ``traces`` exist or ``directories`` hold something, and the database has no tables.

    Nothing is created. The traces are looked for first: a process that makes a home at this moment leaves them only
    when its database has tables.
    """
    file = file_of(database_url)
    found = [path.name for path in traces if path.exists()]
    found += [f"{path.name}/{name}" for path in directories if (name := _first_entry(path))]
    if file is not None:
        _require_log_with_file(file)
        if _was_written(file):
            found.append(f"{file.name}.turn")
    if found and count_tables(database_url) == 0:
        what = "has no tables" if file is None else _state_of(file)
        raise DatabaseDamaged(
            f"{file or 'it'} {what}, though the home {home} was in use (it holds {', '.join(found)})", _remedy(file)
        )


def _require_log_with_file(file: Path) -> None:
    """A write-ahead log belongs to its database: SQLite would throw it away with the changes that are only there."""
    log = file.with_name(f"{file.name}-wal")
    if _size(file) == 0 and _size(log) > 0 and _size(file) == 0:  # again: another process may be making both
        raise DatabaseDamaged(
            f"{file} {_state_of(file)}, and its log {log.name} is there alone; it is left as it is",
            f"Put the {file.name} that belongs to it back beside it. {_remedy(file)}",
        )


def _was_written(file: Path) -> bool:
    """A file that writers have queued for (``feedback.database.write_queue``) was a database once, with its tables."""
    return file.with_name(f"{file.name}.turn").exists()


def _first_entry(directory: Path) -> str | None:
    try:
        return min((path.name for path in directory.iterdir() if not path.name.startswith(".")), default=None)
    except OSError:
        return None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _state_of(file: Path) -> str:
    if not file.exists():
        return "is gone"
    return "has no tables" if _size(file) else "is empty"


def _remedy(file: Path | None) -> str:
    copies = sorted(file.parent.glob(f"{file.name}.before-*"), key=_size) if file is not None else []
    older = f", or copy {copies[-1].name} over it, which is older" if copies else ""
    return (
        f"Put a backup back with `studio restore FILE --force`, which keeps the present home aside{older}. "
        "To begin anew, name another --home."
    )
