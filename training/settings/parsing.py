"""Read settings from text, refuse unknown ones by name, and describe each with its type, range and sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from feedback.errors import UnknownSetting
from training.settings.registry import SETTINGS
from training.settings.train import Settings

# Settings whose value names something that exists; where there may be several, they are separated by commas.
REFERS = {"reward": "reward models", "canary_reward": "reward model", "reward_function": "reward function"}


class Setting(NamedTuple):
    """One line of a form or of a help text; ``range`` is empty where any value will do.

    ``refers`` says what the value names, where it names something: a reward model, several, or a reward function.
    ``simple`` settings are in front on the page.
    """

    name: str
    type: str
    default: Any
    range: str
    sentence: str
    refers: str = ""
    simple: bool = False


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
    default = None if field.is_required() else field.default
    told = field.description or ""
    return Setting(name, _type_name(field.annotation), default, _range(field), told, REFERS.get(name, ""), simple)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) in (UnionType, Union):
        return _type_name(next(part for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is Literal or (isinstance(annotation, type) and issubclass(annotation, StrEnum)):
        return "choice"
    return str(annotation.__name__)


def _range(field: FieldInfo) -> str:
    """The valid values in words: ``0 to 1``, ``above 0 to 0.1``, ``one of constant, linear``; else empty."""
    annotation: Any = field.annotation
    if get_origin(annotation) in (UnionType, Union):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return "one of " + ", ".join(annotation)
    low = high = None
    above = ""
    for mark in field.metadata:
        low = getattr(mark, "ge", None) if low is None else low
        high = getattr(mark, "le", None) if high is None else high
        if getattr(mark, "gt", None) is not None:
            low, above = mark.gt, "above "
    return "" if low is None or high is None else f"{above}{_short(low)} to {_short(high)}"


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
