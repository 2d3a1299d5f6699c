"""Every method a run can have, made from the table in ``training.settings.registry``.

A method's module offers ``run(context) -> dict``, whatever it does; it is imported when it is first asked
for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from training.settings.registry import SETTINGS
from training.settings.train import Settings

if TYPE_CHECKING:
    from training.reporting.reporter import RunContext


@dataclass(frozen=True)
class Method:
    """One thing a run can do, as its settings class declares it."""

    settings: type[Settings]

    @property
    def name(self) -> str:
        """What the method is called."""
        return self.settings.METHOD

    @property
    def module(self) -> str:
        """The module that holds its ``run``."""
        return f"training.methods.{self.name}"

    @property
    def summary(self) -> str:
        """What it is for, in a sentence."""
        return self.settings.SUMMARY

    @property
    def kind(self) -> Literal["train", "job"]:
        """*train* where a checkpoint comes of it, else *job*."""
        return "job" if self.settings.MAKES == "nothing" else "train"

    @property
    def needs_dataset(self) -> bool:
        """Whether it cannot do without a dataset."""
        field = self.settings.model_fields.get("dataset")
        return field is not None and field.is_required()

    def run(self, context: RunContext) -> dict[str, Any]:
        """Do it, and return what came of it."""
        return dict(import_module(self.module).run(context))


METHODS: Mapping[str, Method] = {name: Method(settings) for name, settings in SETTINGS.items()}


def trainers_without_dataset() -> list[str]:
    """Names of the training methods that can do without a dataset, in the order of the table."""
    return [name for name, method in METHODS.items() if method.kind == "train" and not method.needs_dataset]
