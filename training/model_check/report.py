"""The report on a model: its facts, and for each method whether it works, in how much memory, and how fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class MethodOutlook:
    """What a method can do with a model: ``reason`` says why it does not work; a step's time is None where unknown."""

    method: str
    works: bool
    reason: str
    needed_mb: int
    step_seconds: float | None

    @property
    def verdict(self) -> str:
        """One word, and the reason where there is one."""
        return "works" if self.works else f"no: {self.reason}"


@dataclass(frozen=True)
class ModelReport:
    """What was found out about a model; memory in megabytes, ``timing`` says how the times of a step were got."""

    base: str
    architecture: str
    parameters: int
    weights: str
    chat_template: str
    system_role: bool
    end_tokens: tuple[str, ...]
    pad_token: str
    window: str
    device: str
    free_mb: int
    timing: str
    methods: tuple[MethodOutlook, ...]
    not_examined: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> ModelReport:
        """The report that ``as_json`` gave."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found.items()
        }
        values["methods"] = tuple(MethodOutlook(**one) for one in found["methods"])
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def facts(self) -> dict[str, str]:
        """The facts in words, by what they are about."""
        shown = {
            "base": self.base,
            "architecture": self.architecture,
            "parameters": f"{self.parameters / 1e6:,.1f} million",
            "weights": self.weights,
            "chat template": self.chat_template,
            "system role": "yes" if self.system_role else "no: a system message begins the first user message",
            "end tokens": ", ".join(self.end_tokens),
            "pad token": self.pad_token,
            "window": self.window,
            "free memory": f"{self.free_mb:,} MB on {self.device}",
            "time of a step": self.timing,
        }
        return shown | ({"not examined": "; ".join(self.not_examined)} if self.not_examined else {})
