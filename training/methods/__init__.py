"""Every method a run can have. Adding one: a file here, a settings class in ``training.settings``, a line below.

A method's module offers ``run(context) -> dict``, whatever it does; it is imported when it is first asked
for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from training.settings.benchmark import BenchmarkSettings
from training.settings.dpo import DpoSettings
from training.settings.evaluate import EvaluateSettings
from training.settings.generate import GenerateSettings
from training.settings.kto import KtoSettings
from training.settings.ppo import PpoSettings
from training.settings.reward import RewardSettings
from training.settings.rft import RftSettings
from training.settings.rloo import RlooSettings
from training.settings.sft import SftSettings
from training.settings.train import Settings

if TYPE_CHECKING:
    from training.reporting.reporter import RunContext


@dataclass(frozen=True)
class Method:
    """One thing a run can do. ``kind`` is *train* where a checkpoint comes of it, else *job*."""

    name: str
    settings: type[Settings]
    module: str
    summary: str
    kind: Literal["train", "job"]

    def run(self, context: RunContext) -> dict[str, Any]:
        """Do it, and return what came of it."""
        return dict(import_module(self.module).run(context))


def _table(*methods: Method) -> Mapping[str, Method]:
    return {method.name: method for method in methods}


METHODS: Mapping[str, Method] = _table(
    Method("generate", GenerateSettings, "training.methods.generate", "Draw replies and pair them up.", "job"),
    Method(
        "evaluate",
        EvaluateSettings,
        "training.methods.evaluate",
        "Measure a policy or a reward model.",
        "job",
    ),
    Method("benchmark", BenchmarkSettings, "training.methods.benchmark", "Have a policy take benchmark tasks.", "job"),
    Method("reward", RewardSettings, "training.methods.reward", "Learn to score replies as people did.", "train"),
    Method("dpo", DpoSettings, "training.methods.dpo", "Move a policy towards the chosen replies.", "train"),
    Method("sft", SftSettings, "training.methods.sft", "Imitate edited and chosen replies.", "train"),
    Method("kto", KtoSettings, "training.methods.kto", "Learn from good and bad replies, without pairs.", "train"),
    Method("rft", RftSettings, "training.methods.rft", "Imitate the best of many drawn replies.", "train"),
    Method("rloo", RlooSettings, "training.methods.rloo", "Draw, score and reinforce.", "train"),
    Method("ppo", PpoSettings, "training.methods.ppo", "Move a policy towards replies that score higher.", "train"),
)
