"""Table of the targets, places other than this machine where runs can execute, and how one of them is chosen.

A new target is a module here with a ``Target`` and a ``Launcher``, and its class in ``TARGETS``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from feedback.errors import InvalidInput
from training.home import Home
from training.runs.launch.cluster import RayCluster
from training.runs.launch.target import Option, Target

TARGETS: tuple[type[Target], ...] = (RayCluster,)


def options() -> list[Option]:
    """Return the options of all targets, in the order in which the command shows them."""
    return [option for kind in TARGETS for option in kind.OPTIONS]


def naming_options() -> list[Option]:
    """Return the options that name a target, one for each."""
    return [kind.OPTIONS[0] for kind in TARGETS]


def target_named_in(variables: Mapping[str, str] = os.environ) -> Target | None:
    """Return the first target that variables name; None for this machine."""
    kind = _named_in(variables)
    return kind.from_environment(variables) if kind else None


def target_asked_for(home: Home, given: Mapping[str, Any], variables: Mapping[str, str] = os.environ) -> Target | None:
    """Return the target that options, or variables where an option is left out, name for a home.

    ``given`` holds values by the options' parameters, None for an option that was left out. Returns None for this
    machine. Raises InvalidInput for two targets, for options of a target that is not named, and for a home whose runs
    cannot be sent there.
    """
    said = {
        option.variable: str(given[option.parameter]) for option in options() if given.get(option.parameter) is not None
    }
    by_option = [option.flag for option in naming_options() if option.variable in said]
    if len(by_option) > 1:
        raise InvalidInput(f"{' and '.join(by_option)} name different places for the runs; give one of them.")
    kind = _named_in(said) or _named_in({**variables, **said})
    for other in TARGETS:
        if other is not kind:
            _refuse_options(other, given)
    target = kind.from_environment({**variables, **said}) if kind else None
    return target.check(home) if target else None


def lock_details(target: Target | None) -> dict[str, str | None]:
    """Return what a worker writes into its lock about where its runs go: an address by the name of the target."""
    return {kind.NAME: target.at if isinstance(target, kind) else None for kind in TARGETS}


def words_in_lock(holder: Mapping[str, Any]) -> str:
    """Return, in words, where the worker that wrote a lock sends its runs; empty for this machine."""
    return next((kind.words_for(holder[kind.NAME]) for kind in TARGETS if holder.get(kind.NAME)), "")


def _named_in(variables: Mapping[str, str]) -> type[Target] | None:
    return next((kind for kind in TARGETS if variables.get(kind.OPTIONS[0].variable)), None)


def _refuse_options(kind: type[Target], given: Mapping[str, Any]) -> None:
    """Refuse options of a target that is not named."""
    naming, *others = kind.OPTIONS
    lone = [f"{option.flag} {value}" for option in others if (value := given.get(option.parameter)) is not None]
    if lone:
        raise InvalidInput(
            f"{' and '.join(lone)} can be said of {kind.NOUN} alone, and none is named: add {kind.EXAMPLE} "
            f"(or ${naming.variable}), or leave it out; on this machine runs go one at a time."
        )
