"""Table of the methods, in the order in which the page offers them.

A method ``x`` is one name in ``NAMES``, its settings class in ``training/settings/x.py``, and a function ``run`` in
``training/methods/x.py``. Everything else about the method is declared on the settings class.
"""

from __future__ import annotations

from importlib import import_module

from training.settings.train import Settings

NAMES = (
    "generate",
    "judge",
    "evaluate",
    "benchmark",
    "export",
    "reward",
    "dpo",
    "sft",
    "kto",
    "rft",
    "rloo",
    "ppo",
)


def _settings_of(name: str) -> type[Settings]:
    """Return the one class of a settings module that declares the method's name."""
    module = import_module(f"training.settings.{name}")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Settings)]
    own = [kind for kind in kinds if kind.__module__ == module.__name__ and name == kind.METHOD and kind.SUMMARY]
    if len(own) != 1:
        raise TypeError(f"{module.__name__} must define one settings class with METHOD = {name!r} and a SUMMARY.")
    return own[0]


SETTINGS: dict[str, type[Settings]] = {name: _settings_of(name) for name in NAMES}
