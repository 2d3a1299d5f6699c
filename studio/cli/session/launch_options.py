"""Options of the command that the targets of runs declare: added to a command's own, in the place of one parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NewType

import typer

from training.runs.launch.target import Option

LaunchOptions = NewType("LaunchOptions", dict[str, Any])
"""The values of the options by their parameters; None for one that was left out."""


def takes_options(declared: Sequence[Option]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Show the options where the command has its parameter ``launch``, and collect their values in that parameter."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            given = {option.parameter: arguments.pop(option.parameter) for option in declared}
            command(**arguments, launch=LaunchOptions(given))

        own = inspect.signature(command, eval_str=True)
        shown: list[inspect.Parameter] = []
        for parameter in own.parameters.values():
            shown += map(_parameter, declared) if parameter.name == "launch" else [parameter]
        # Typer reads a command's options from its signature.
        run.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    shown = typer.Option(None, metavar=option.metavar, help=option.help)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(option.parameter, kind, default=shown, annotation=option.type | None)
