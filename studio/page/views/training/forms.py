"""A method's settings as a form, and what a filled-in form says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from feedback.errors import InvalidInput
from feedback.tables import CheckpointRow
from studio.page.text import label_of
from training.settings.parsing import Setting

CHOSEN_ELSEWHERE = ("dataset", "parent", "name", "dry_run")
"""Settings that have a field or a button of their own outside the method's form."""

BY_ITSELF = "default"
"""The choice that leaves a choice to the method."""


class FormField(NamedTuple):
    """One setting as a form shows it; ``widget`` is number, integer, choice, toggle, existing or text.

    ``existing`` is a list of what there is: ``refers`` says of what, in the plural where several may be chosen.
    """

    name: str
    label: str
    info: str
    widget: str
    default: Any
    choices: tuple[str, ...]
    simple: bool
    refers: str = ""

    @property
    def several(self) -> bool:
        """Whether more than one may be chosen."""
        return self.refers.endswith("s")


def form_fields(settings: Sequence[Setting]) -> list[FormField]:
    """A method's settings as form fields, in the order of its class, without those chosen elsewhere."""
    return [_form_field(setting) for setting in settings if setting.name not in CHOSEN_ELSEWHERE]


def _form_field(setting: Setting) -> FormField:
    choices, default = setting.choices, setting.default
    if choices and default is None:
        choices, default = (BY_ITSELF, *choices), BY_ITSELF
    # A number field cannot be empty, so a number the method chooses by itself is asked for as text.
    kind = "text" if setting.default is None and setting.type in ("int", "float") else setting.type
    widget = {"int": "integer", "float": "number", "choice": "choice", "bool": "toggle"}.get(kind, "text")
    widget = "existing" if setting.refers else widget
    limits = f" ({setting.range})" if setting.range and not choices else ""
    return FormField(
        setting.name,
        label_of(setting.name),
        f"{setting.sentence.rstrip('.')}{limits}.",
        widget,
        default,
        choices,
        setting.simple,
        setting.refers,
    )


def chosen_settings(fields: Sequence[FormField], values: Sequence[Any]) -> dict[str, Any]:
    """What the form says beyond the defaults: emptied and untouched fields are left to the method."""
    said = {
        field: ",".join(value) if isinstance(value, list) else value
        for field, value in zip(fields, values, strict=True)
    }
    return {field.name: value for field, value in said.items() if value not in (None, "") and value != field.default}


def existing_choices(rewards: Sequence[CheckpointRow], functions: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """What a field that names something can be given, by what it refers to."""
    models = [(row.name, row.name) for row in rewards if row.removed_at is None]
    return {
        "reward models": models,
        "reward model": models,
        "reward function": [(name, name) for name in functions],
    }


def settings_of(forms: Mapping[str, Sequence[FormField]], method: str, values: Sequence[Any]) -> dict[str, Any]:
    """What the form of one method says; ``values`` holds the fields of all methods, one after the other."""
    if method not in forms:
        raise InvalidInput("Choose a method.")
    start = sum(len(forms[name]) for name in list(forms)[: list(forms).index(method)])
    return chosen_settings(forms[method], values[start : start + len(forms[method])])
