"""How commands speak: tables, fields, JSON, progress.

Results go to standard output; progress and complaints go to standard error, so that ``--json`` prints JSON and
nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from feedback.outputs import find_output
from feedback.tables import RunRow
from feedback.types import RunState

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
INTERRUPTED = 130


def tell(line: str) -> None:
    """Say something that is not the result."""
    typer.echo(line, err=True)


def show_json(value: Any, *, apart_from: Path | None = None) -> None:
    """Print a result for a program."""
    show_line(json.dumps(value, indent=2, ensure_ascii=False), apart_from=apart_from)


def show_line(line: str, *, apart_from: Path | None = None) -> None:
    """Print a result; on standard error where what was written to ``apart_from`` is on standard output already."""
    typer.echo(line, err=apart_from is not None and find_output(apart_from).is_standard_output)


def show_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """Print a result for a person: columns as wide as they must be, or a sentence when there is nothing."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        typer.echo(empty)
        return
    widths = [max(len(row[column]) for row in [list(headers), *cells]) for column in range(len(headers))]
    for row in [list(headers), *cells]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_fields(fields: dict[str, Any]) -> None:
    """Print one thing for a person, a field a line; nested values as JSON."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if value in (None, "", {}, []):
            continue
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else _cell(value)
        typer.echo(f"{name.ljust(width)}  {text}")


def ending_of(run: RunRow) -> str:
    """One sentence on how a run ended."""
    if run.state is RunState.succeeded:
        return f"Run {run.id} succeeded."
    return f"Run {run.id} is {run.state.value}" + (f": {run.error}" if run.error else ".")


def run_json(run: RunRow) -> dict[str, Any]:
    """A run as JSON."""
    return run.model_dump(mode="json")


class ProgressLine:
    """One line that is rewritten on a terminal, and a line per change of state elsewhere."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._rewrites = sys.stderr.isatty()
        self._width = 0
        self._state: RunState | None = None

    def show(self, run: RunRow) -> None:
        """Show where the run stands."""
        text = f"{self.title}: {run.state.value}"
        if self._rewrites:
            if run.state is RunState.running:
                text += f" {100 * run.progress:3.0f} % {run.progress_text}"
            elif run.state is RunState.starting and run.progress_text:
                text += f", {run.progress_text}"
            sys.stderr.write("\r" + text[:110].ljust(self._width))
            self._width = len(text[:110])
            sys.stderr.flush()
        elif run.state is not self._state:
            tell(text)
        self._state = run.state

    def end(self) -> None:
        """Leave the line as it is."""
        if self._rewrites and self._width:
            sys.stderr.write("\n")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return str(value)
