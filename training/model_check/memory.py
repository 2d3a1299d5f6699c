"""How much memory each method needs with a model, from its configuration alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.generation.decoding import CACHE_BYTES, bytes_per_token
from training.models.memory_estimate import memory_needed, plan_batches
from training.settings.dpo import DpoSettings
from training.settings.generate import GenerateSettings
from training.settings.kto import KtoSettings
from training.settings.ppo import PpoSettings
from training.settings.reward import RewardSettings
from training.settings.sft import SftSettings
from training.settings.train import TrainSettings

PROMPT_TOKENS, REPLY_TOKENS = 256, 256
"""The exchange that every figure is for; shorter where the window is."""
_DATASET = "any"
TRAINED: dict[str, tuple[TrainSettings, int]] = {
    "reward": (RewardSettings(dataset=_DATASET), 2),
    "dpo": (DpoSettings(dataset=_DATASET), 2),
    "kto": (KtoSettings(dataset=_DATASET), 1),
    "sft": (SftSettings(dataset=_DATASET), 1),
    "ppo": (PpoSettings(reward_function="no_repetition"), 1),
}
"""The methods that train, with their default settings, and how many sequences a row of theirs has."""
_PPO_ROLES = 3  # adapters beside one another: policy, value, reward model


@dataclass(frozen=True)
class Sketch:
    """A model as the estimates ask about it, its weights nowhere: ``shapes`` are parameters on the meta device."""

    config: Any
    device: Any
    dtype: Any
    shapes: tuple[Any, ...]
    num_labels: int = 2

    def parameters(self) -> Iterator[Any]:
        """The parameters, for those who count them."""
        return iter(self.shapes)

    @property
    def weight_bytes(self) -> int:
        """What the loaded base takes."""
        return sum(int(one.numel()) for one in self.shapes) * int(self.dtype.itemsize)


def exchange_tokens(window: int) -> int:
    """The tokens of the exchange that the figures are for."""
    return min(PROMPT_TOKENS + REPLY_TOKENS, window)


def memory_by_method(sketch: Sketch, window: int) -> dict[str, int]:
    """Bytes that each method takes with this model, the loaded base included."""
    tokens, base = exchange_tokens(window), sketch.weight_bytes
    drawn = min(CACHE_BYTES, GenerateSettings().batch_size * tokens * bytes_per_token(sketch))
    needed = {"generate": base + drawn}
    for method, (settings, sequences) in TRAINED.items():
        plan = plan_batches(sketch, settings, sequences * tokens)
        added = memory_needed(
            sketch, settings, tokens=plan.micro_batch * sequences * tokens, checkpointing=plan.checkpointing
        )
        roles = (_PPO_ROLES - 1) * memory_needed(sketch, settings, tokens=0) + drawn if method == "ppo" else 0
        needed[method] = base + added + roles
    return needed
