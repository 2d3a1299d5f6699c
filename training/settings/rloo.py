"""Settings of the method ``rloo``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from training.settings.plots import Plot
from training.settings.train import Rates, _Drawn


class RlooSettings(_Drawn):
    """Draw replies, score them, and make those likelier that beat the others to the same prompt."""

    METHOD: ClassVar[str] = "rloo"
    SUMMARY: ClassVar[str] = "Draw, score and reinforce."
    SIMPLE: ClassVar[tuple[str, ...]] = (*_Drawn.SIMPLE, "beta")
    # The loss on drawn replies shows next to nothing.
    FIRST_PLOTS: ClassVar[tuple[Plot, Plot]] = (Plot("Reward", ("reward",)), Plot("Nats per token", ("kl_per_token",)))
    REWARDS_SHARE_BASE: ClassVar[bool] = False
    RATES: ClassVar[Rates] = (1e-3, 2e-5, 2e-5)

    # Noise on what is read would make the drawn replies another distribution than the one that is trained
    embedding_noise: ClassVar[None] = None  # type: ignore[misc, assignment]
    max_length: ClassVar[None] = None  # type: ignore[misc, assignment]
    train_layers: ClassVar[str] = "all"  # type: ignore[misc, assignment]
    # TRL draws and trains with one model, whose replies would be another policy's in another precision
    precision: ClassVar[None] = None  # type: ignore[misc, assignment]

    # TRL's own drawing knows end tokens alone
    stop: ClassVar[None] = None  # type: ignore[misc, assignment]

    batch_size: int = Field(64, ge=2, le=4096, description="Replies per optimizer step.")
    samples: int = Field(4, ge=2, le=64, description="Replies drawn for each prompt; a divisor of batch_size.")
    epochs: int = Field(1, ge=1, le=100, description="How often the prompts are gone through.")
    prompts: int = Field(1000, ge=2, le=1_000_000, description="How many prompts are replied to at most.")
    temperature: float = Field(1.0, gt=0.0, le=5.0, description="Spread of the draw; 1 is the model's own.")
    beta: float = Field(
        0.05, ge=0.0, le=10.0, description="What each nat away from the parent costs; higher moves the policy less."
    )
    advantage: Literal["rloo", "grpo"] = Field(
        "rloo",
        description="What a reply is compared with: the mean of the others (rloo), or the group in units of its spread "
        "(grpo).",
    )
    clip: float = Field(0.2, gt=0.0, le=1.0, description="How far one step may change how likely a reply is.")

    @model_validator(mode="after")
    def _whole_groups(self) -> RlooSettings:
        if self.batch_size % self.samples:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of samples ({self.samples})")
        return self
