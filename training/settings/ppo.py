"""Settings of the method ``ppo``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from training.settings.plots import Plot
from training.settings.train import LARGE_MODEL, Rates, _Drawn, rate_by_size


class PpoSettings(_Drawn):
    """Move a policy towards replies that score higher, drawing fresh ones as it goes."""

    METHOD: ClassVar[str] = "ppo"
    SUMMARY: ClassVar[str] = "Move a policy towards replies that score higher."
    SIMPLE: ClassVar[tuple[str, ...]] = (*_Drawn.SIMPLE, "beta")
    # The loss on drawn replies shows next to nothing.
    FIRST_PLOTS: ClassVar[tuple[Plot, Plot]] = (
        Plot("Score", ("score", "canary_score")),
        Plot("Nats per reply", ("kl",)),
    )
    CONTINUES_PARENT: ClassVar[bool] = False  # it trains a copy that it reads itself, whatever the kind
    RATES: ClassVar[Rates] = (3e-3, 3e-5, 3e-5)

    # Settings of training on pairs that have no meaning for replies drawn on the way
    min_steps: ClassVar[None] = None  # type: ignore[misc, assignment]
    embedding_noise: ClassVar[None] = None  # type: ignore[misc, assignment]
    max_length: ClassVar[None] = None  # type: ignore[misc, assignment]
    log_every: ClassVar[None] = None  # type: ignore[misc, assignment]
    report_to: ClassVar[None] = None  # type: ignore[misc, assignment]  # mirrors are the reporters of TRL's trainers
    sample_every: ClassVar[None] = None  # type: ignore[misc, assignment]  # the canary looks, every ``canary_every``
    train_layers: ClassVar[str] = "all"  # type: ignore[misc, assignment]  # see ``still_layers``
    precision: ClassVar[None] = None  # type: ignore[misc, assignment]  # its own core computes in fp32 on a processor
    quantize: ClassVar[None] = None  # type: ignore[misc, assignment]  # the roles are loaded in full

    iterations: int = Field(16, ge=1, le=100_000, description="How often replies are drawn, scored and learnt from.")
    episodes: int = Field(64, ge=2, le=65_536, description="Replies drawn in each iteration.")
    per_prompt: int = Field(
        1, ge=1, le=64, description="Replies drawn to each prompt; leave-one-out needs at least two."
    )
    temperature: float = Field(
        1.0, gt=0.0, le=5.0, description="Spread of the draw; every log-probability is taken at the same one."
    )
    epochs: int = Field(2, ge=1, le=100, description="How often each iteration's replies are gone through.")
    batch_size: int = Field(16, ge=1, le=65_536, description="Replies per optimizer step.")
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Replies that a forward takes at once; left out, 4.",
    )
    still_layers: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Layers, from below, that keep still: they are run once per reply instead of in every epoch; left "
        "out, two thirds of them on a small base, none on a large one.",
    )
    value_learning_rate: float | None = Field(
        None, gt=0.0, le=0.1, description="Step size of the value; left out, chosen by the size of the base model."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "linear", description="How the step sizes fall over the run."
    )
    warmup: float = Field(0.0, ge=0.0, le=0.5, description="Share of the run in which the step sizes rise from 0.")
    baseline: Literal["value", "leave_one_out"] = Field(
        "value",
        description="What a reply is measured by: a learned value at each token, or the other replies to its prompt.",
    )
    value_warmup: int = Field(
        1, ge=0, le=1000, description="Iterations in which only the value learns, on replies of the parent."
    )
    gamma: float = Field(1.0, ge=0.0, le=1.0, description="Weight of a later token's reward; 1 counts all alike.")
    lam: float = Field(
        0.95, ge=0.0, le=1.0, description="Between trusting the value (0) and the reward that came in the end (1)."
    )
    clip: float = Field(0.2, gt=0.0, le=1.0, description="How far a token's probability may move in one iteration.")
    clip_high: float | None = Field(
        None, gt=0.0, le=10.0, description="The same upwards, where that is to be wider; left out, as downwards."
    )
    value_clip: float = Field(0.2, gt=0.0, le=100.0, description="How far a value may move in one iteration.")
    clip_norm: float = Field(1.0, gt=0.0, le=1000.0, description="Gradients longer than this are shortened.")
    divergence_stop: float = Field(
        0.03,
        gt=0.0,
        le=100.0,
        description="An iteration's replies are left when the policy moved this far from them, in nats per token.",
    )
    beta: float = Field(
        0.3, ge=0.0, le=10.0, description="Cost of moving away from the parent, in scores per nat; 0 makes it free."
    )
    kl_target: float | None = Field(
        None,
        gt=0.0,
        le=10_000.0,
        description="Distance from the parent that beta is adapted to, in nats per reply; left out, beta is fixed.",
    )
    kl_horizon: int = Field(
        2000, ge=1, le=10_000_000, description="Replies over which an adapted beta may change by a fifth."
    )
    kl_budget: float = Field(
        20.0, gt=0.0, le=100_000.0, description="Nats per reply from the parent at which the run ends."
    )
    missing_end_penalty: float = Field(
        3.0, ge=0.0, le=1000.0, description="Taken off the score of a reply that did not end by itself."
    )
    min_tokens: int = Field(
        0, ge=0, le=8192, description="A reply of fewer tokens gets the same penalty; 0 sets no least length."
    )
    score_clip: float = Field(
        5.0, gt=0.0, le=1000.0, description="Scores beyond this many deviations from the parent's mean are cut."
    )
    canary_every: int = Field(
        4, ge=0, le=100_000, description="Iterations between two looks at prompts kept apart; 0 never looks."
    )
    canary_prompts: int = Field(48, ge=1, le=4096, description="Prompts kept apart for those looks.")
    canary_reward: str | None = Field(
        None, description="A reward checkpoint that judges there and never trains; left out, the training ones."
    )
    stop_on_alarm: bool = Field(False, description="End the run when its reward rises while the held-out score falls.")
    save_every: int = Field(1, ge=1, le=100_000, description="Iterations between two points to resume from.")

    @model_validator(mode="after")
    def _settings_fit(self) -> PpoSettings:
        if self.adapter == "adalora":
            raise ValueError("ppo cannot hand out adalora's ranks: try lora, rslora, dora, ia3 or bottleneck")
        if self.baseline == "leave_one_out" and self.per_prompt < 2:
            raise ValueError("leave_one_out compares replies to one prompt: give per_prompt=2 or more")
        if self.episodes % self.per_prompt:
            raise ValueError(f"episodes ({self.episodes}) must be a multiple of per_prompt ({self.per_prompt})")
        return self

    def value_rate_for(self, parameters: int) -> float:
        """The value's learning rate for a base of so many parameters."""
        return self.value_learning_rate or rate_by_size((1e-3, 5e-5, 5e-5), parameters)

    def micro_batch_for(self, fitting: int) -> int:
        """Replies that a forward takes at once, however many fit; never more than a batch.

        On a small base a core pool processes the parts of a batch in parallel, and shorter ones hold less padding.
        """
        return min(self.micro_batch or 4, self.batch_size)

    def still_layers_for(self, parameters: int, layers: int) -> int:
        """The number of frozen layers for a base of ``parameters`` and ``layers``; the last layer always trains."""
        usual = 0 if parameters >= LARGE_MODEL else 2 * layers // 3
        return min(usual if self.still_layers is None else self.still_layers, layers - 1)
