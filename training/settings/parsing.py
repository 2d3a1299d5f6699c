"""Read settings from text, refuse unknown ones by name, and describe each with its type, range and sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from feedback.errors import UnknownSetting
from training.settings.registry import SETTINGS
from training.settings.train import Settings

# Settings whose value names something that exists; where there may be several, they are separated by commas.
REFERS = {"reward": "reward models", "canary_reward": "reward model", "reward_function": "reward function"}


class Setting(NamedTuple):
    """One line of a form or of a help text.

    ``choices`` are the valid words. ``minimum`` and ``maximum`` bound a number, each None where it is open; with
    ``above_minimum`` the minimum itself is not valid. ``refers`` says what the value names, where it names something: a
    reward model, several, or a reward function. ``simple`` settings are in front on the page.
    """

    name: str
    type: str
    default: Any
    sentence: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above_minimum: bool = False
    refers: str = ""
    simple: bool = False

    @property
    def range(self) -> str:
        """The valid values in words: ``0 to 1``, ``above 0 to 0.1``, ``one of constant, linear``; else empty."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.minimum is None or self.maximum is None:
            return ""
        return f"{'above ' if self.above_minimum else ''}{_short(self.minimum)} to {_short(self.maximum)}"


def settings_class(method: str) -> type[Settings]:
    """The settings class of a method, or UnknownSetting with the methods there are."""
    if method not in SETTINGS:
        raise UnknownSetting(f"There is no method {method!r}. Methods: {', '.join(sorted(SETTINGS))}.")
    return SETTINGS[method]


def describe(method: str) -> list[Setting]:
    """Every setting of a method with type, default, range and sentence, in the order of the class."""
    kind = settings_class(method)
    return [_describe(name, field, name in kind.SIMPLE) for name, field in kind.model_fields.items()]


def parse_settings(method: str, config: Mapping[str, Any]) -> Any:
    """The settings a run asks for; strings from a command line become values.

    An unknown key, a value out of range or a missing one raises UnknownSetting, which lists the valid keys.
    """
    kind = settings_class(method)
    values = {key: _from_text(kind, key, value) for key, value in config.items()}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UnknownSetting(_explain(method, error)) from None


def _from_text(kind: type[Settings], key: str, value: Any) -> Any:
    """A command line has no way to say None but by a word; and true is no number, though Python counts it as 1."""
    field = kind.model_fields.get(key)
    if isinstance(value, bool) and field is not None and _is_number(field):
        return json.dumps(value)  # a word, which is refused with the range as any other word is
    if isinstance(value, str) and field is not None and type(None) in get_args(field.annotation):
        return None if value.strip().lower() in ("", "none", "null", "default") else value
    return value


def _is_number(field: FieldInfo) -> bool:
    parts = set(get_args(field.annotation)) or {field.annotation}
    return bool(parts & {int, float}) and not parts & {bool, str}


def _describe(name: str, field: FieldInfo, simple: bool) -> Setting:
    minimum, maximum, above = _limits(field)
    return Setting(
        name,
        _type_name(field.annotation),
        None if field.is_required() else field.default,
        field.description or "",
        choices=_choices(field.annotation),
        minimum=minimum,
        maximum=maximum,
        above_minimum=above,
        refers=REFERS.get(name, ""),
        simple=simple,
    )


def _without_none(annotation: Any) -> Any:
    """The type of a value that is given: that of ``int | None`` is ``int``, whatever validates it."""
    if get_origin(annotation) in (UnionType, Union):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _type_name(annotation: Any) -> str:
    return "choice" if _choices(annotation) else str(_without_none(annotation).__name__)


def _choices(annotation: Any) -> tuple[str, ...]:
    """The words of a Literal or of a StrEnum; none for any other type."""
    kind = _without_none(annotation)
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return tuple(map(str, kind)) if isinstance(kind, type) and issubclass(kind, StrEnum) else ()


def _limits(field: FieldInfo) -> tuple[float | None, float | None, bool]:
    """The least and the greatest valid number, and whether the least is itself left out."""
    low: float | None = None
    high: float | None = None
    above = False
    for mark in field.metadata:
        low = getattr(mark, "ge", None) if low is None else low
        high = getattr(mark, "le", None) if high is None else high
        if getattr(mark, "gt", None) is not None:
            low, above = mark.gt, True
    return low, high, above


def _short(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _explain(method: str, error: ValidationError) -> str:
    """One sentence per problem, then the valid settings with their ranges."""
    known = {setting.name: setting for setting in describe(method)}
    problems = []
    for detail in error.errors():
        key = str(detail["loc"][0]) if detail["loc"] else ""
        if not key:
            problems.append(f"{method}: {detail['msg'].removeprefix('Value error, ')}.")
        elif key not in known:
            problems.append(f"{method} has no setting {key!r}.")
        elif detail["type"] == "missing":
            problems.append(f"{method} needs {key}: {known[key].sentence}")
        else:
            expected = known[key].range or detail["msg"].removeprefix("Value error, ")
            problems.append(f"{key}={detail['input']!r} is not valid for {method}: {known[key].type}, {expected}.")
    if not any(detail["loc"] for detail in error.errors()):
        return " ".join(problems)  # each setting is valid, only not beside the others: a list would bury the reason
    valid = ", ".join(f"{name} ({setting.range or setting.type})" for name, setting in known.items())
    return " ".join(problems) + f" Valid settings: {valid}."
