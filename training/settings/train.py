"""Settings that methods share; each method's own class is beside it, with a sentence and a range under every field.

The classes are the single source of the ``--set`` keys, the page's form and the help texts. Pure pydantic, so
that the studio can validate a run without loading torch. ``None`` for a learning rate means *chosen by the
size of the base model*: a 3 M starter wants a hundred times the rate of a 7 B model.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from feedback.types import SamplingSettings, usable_name, usable_stop
from training.settings.plots import ACCURACY, LOSS, Plot

BASE_CHANGING = ("pissa", "olora")  # adapters that change the base's weights when they begin
# Parameters from which a base learns in a few steps, without noise, and by its last token
LARGE_MODEL = 100_000_000
BILLION = 1_000_000_000
Rates = tuple[float, float, float]  # for a base below LARGE_MODEL, below a billion parameters, and beyond


def rate_by_size(rates: Rates, parameters: int) -> float:
    """The learning rate for a base of so many parameters."""
    return rates[(parameters >= LARGE_MODEL) + (parameters >= BILLION)]


class Settings(BaseModel):
    """What every method's settings share: unknown keys are refused, values never change after validation.

    The names in capitals are what a method declares about itself. A default that decides a check is the strict one, so
    that a method which forgets the declaration is checked too much rather than too little.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    METHOD: ClassVar[str] = ""
    # What the method is for, in a sentence of the page.
    SUMMARY: ClassVar[str] = ""
    # The kind of checkpoint that a run leaves.
    MAKES: ClassVar[Literal["policy", "reward", "nothing"]] = "nothing"
    # Settings in front on the page; the others are folded away.
    SIMPLE: ClassVar[tuple[str, ...]] = ()
    # The two plots of a run that tell most about it.
    FIRST_PLOTS: ClassVar[tuple[Plot, Plot]] = (LOSS, ACCURACY)
    # A dataset that is named must hold training pairs: two at least, and FEWEST without allow_few.
    NEEDS_PAIRS: ClassVar[bool] = True
    FEWEST: ClassVar[int] = 2
    # The policy, or the parent, must have its weights here: an endpoint that only replies will not do.
    NEEDS_WEIGHTS: ClassVar[bool] = True
    # lm-evaluation-harness must be installed.
    NEEDS_HARNESS: ClassVar[bool] = False


_STOP = (
    'Strings before which a reply ends, for instance User: or ["\\n\\n", "User:"] (JSON); left out, as the model\'s '
    "configuration says, else none."
)


def _read_stop(value: Any) -> Any:
    """Stop strings as a command line gives them: a JSON list, or one string."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [value]
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f'a list of stop strings is JSON, as in ["\\n\\n", "User:"]: {error}') from error


Stop = Annotated[list[str], BeforeValidator(_read_stop), AfterValidator(usable_stop)]


class _Sampled(Settings):
    """Settings of a method that draws replies."""

    temperature: float | None = Field(
        None,
        ge=0.0,
        le=5.0,
        description="Spread of the draw; 0 always takes the likeliest token, 1 draws by the model's probabilities; "
        "left out, what the model's generation config names (0.5 at least), else 1.",
    )
    top_p: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="Draws only from the likeliest tokens that add up to this probability; left out, as the model's "
        "generation config says, else 1.",
    )
    top_k: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Draws only from this many likeliest tokens, 0 means all; left out, as the model's generation "
        "config says, else all.",
    )
    max_new_tokens: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="A reply is cut after this many tokens, its reasoning included; left out, as the model's "
        "generation config says, else 96.",
    )
    stop: Stop | None = Field(None, description=_STOP)
    batch_size: int = Field(
        128, ge=1, le=1024, description="How many replies are drawn side by side at most; fewer where they are long."
    )
    precision: Literal["auto", "fp32"] = Field(
        "auto",
        description="auto: a model of 50 M parameters or more draws in bf16 on a CPU that computes so, twice as fast; "
        "fp32: never on a CPU, and the seed of a reply alone draws it again.",
    )

    def sampling(self) -> SamplingSettings:
        """The part of the settings that is stored with every generation."""
        return SamplingSettings(**{name: value for name, value in self._sampling_fields().items() if value is not None})

    def resolved(self, own: SamplingSettings) -> Self:
        """These settings with the model's ``own`` sampling in the place of what is left out."""
        missing = [name for name, value in self._sampling_fields().items() if value is None]
        return self.model_copy(update={name: getattr(own, name) for name in missing})

    def _sampling_fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SamplingSettings.model_fields}


class TrainSettings(Settings):
    """What every training method shares."""

    dataset: str = Field(min_length=1, description="The frozen dataset to learn from.")
    parent: str | None = Field(None, description="The policy to start from; left out, the champion.")
    name: str | None = Field(None, description="Name of what the run makes; left out, one is made up.")
    learning_rate: float | None = Field(
        None, gt=0.0, le=0.1, description="Step size; left out, chosen by the size of the base model."
    )
    epochs: int = Field(3, ge=1, le=100, description="How often the whole dataset is read.")
    min_steps: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Optimizer steps at least, however few rows there are; left out, chosen by the size of the base "
        "model: a small one needs many, a large one learns few rows by heart.",
    )
    batch_size: int = Field(16, ge=1, le=1024, description="Pairs per optimizer step.")
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Pairs held in memory at once; left out, as many as their tokens allow.",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description="How the step size falls over the run."
    )
    warmup: float = Field(0.1, ge=0.0, le=0.5, description="Share of the run in which the step size rises from 0.")
    embedding_noise: float | None = Field(
        None,
        ge=0.0,
        le=100.0,
        description="Noise on what is read (NEFTune's alpha), so that few labels are not learnt by heart; "
        "left out, chosen by the size of the base model.",
    )
    max_length: int = Field(1024, ge=16, le=131_072, description="Pairs longer than this many tokens are left out.")
    adapter: Literal["lora", "rslora", "dora", "ia3", "adalora", "bottleneck", "pissa", "olora"] = Field(
        "lora",
        description="The kind of adapter that is trained on the frozen base; a parent's own is trained on, and another "
        "kind refused.",
    )
    adapter_layout: Literal["houlsby", "pfeiffer"] = Field(
        "houlsby", description="Where bottleneck adapters stand: after attention and MLP, or after the MLP alone."
    )
    reduction: int = Field(
        16, ge=1, le=1024, description="A bottleneck adapter is the hidden size divided by this wide."
    )
    train_layers: Literal["all", "upper half", "upper third"] = Field(
        "all",
        description="Which layers are trained. The hidden states that enter the lowest of them are computed once per "
        "row and cached, which saves time and about half of the memory; the policy moves less.",
    )
    precision: Literal["auto", "fp32", "bf16"] | None = Field(
        "auto",
        description="Of matrix products: auto is bf16 on a GPU, and on a processor that has instructions for it and a "
        "base of 100 million parameters or more; the adapter's own weights are fp32.",
    )
    quantize: Literal["none", "8bit", "4bit"] = Field(
        "none", description="Hold the frozen base in 8 or 4 bits to save memory; needs bitsandbytes."
    )
    lora_rank: int = Field(16, ge=1, le=512, description="Rank of the adapter: how much it can change.")
    lora_alpha: int = Field(32, ge=1, le=1024, description="Weight of the adapter; twice the rank is usual.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the adapter's start and the order of the pairs.")
    save_every: int = Field(50, ge=1, le=100_000, description="Steps between two points to resume from.")
    log_every: int = Field(1, ge=1, le=1000, description="Steps between two metric points.")
    sample_every: int = Field(
        0, ge=0, le=100_000, description="Steps between two looks at replies to three fixed prompts; 0 for none."
    )
    report_to: Literal["none", "tensorboard", "trackio", "wandb"] = Field(
        "none",
        description="A tracker the curves are mirrored to as well; it must be installed; the log says where they are.",
    )
    allow_few: bool = Field(False, description="Train even on fewer pairs than the method can learn from.")
    dry_run: bool = Field(
        False, description="Take two steps, report time and memory, and leave nothing: a look before a long run."
    )

    MAKES: ClassVar[Literal["policy", "reward", "nothing"]] = "policy"
    SIMPLE: ClassVar[tuple[str, ...]] = ("epochs", "learning_rate", "adapter")
    # The adapter of the parent is trained on, so that its kind must be one that can be.
    CONTINUES_PARENT: ClassVar[bool] = True
    RATES: ClassVar[Rates] = (1e-3, 1e-4, 1e-4)
    # Of a small base; a large one takes its epochs, however few steps they make.
    SMALL_BASE_STEPS: ClassVar[int] = 60
    SMALL_BASE_NOISE: ClassVar[float] = 10.0
    # The parent, with which what was trained is compared, is the base with its adapters off.
    REFERENCE_IS_BASE: ClassVar[bool] = True

    @model_validator(mode="after")
    def _keeps_the_reference(self) -> TrainSettings:
        if self.REFERENCE_IS_BASE and self.adapter in BASE_CHANGING:
            raise ValueError(
                f"adapter={self.adapter} takes its start out of the base's own weights, so that the base with its "
                f"adapters off, which is the reference of {self.METHOD or 'this method'}, would be another model; "
                "choose lora, rslora, dora, ia3, adalora or bottleneck"
            )
        return self

    @model_validator(mode="after")
    def _adalora_trains_all_layers(self) -> TrainSettings:
        if self.adapter == "adalora" and self.train_layers != "all":
            raise ValueError(
                f"adapter=adalora moves ranks among all layers, train_layers={self.train_layers} trains some of them; "
                "leave train_layers at all, or choose lora, rslora, dora, ia3 or bottleneck"
            )
        return self

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str | None) -> str | None:
        return name if name is None else usable_name(name, "policy")

    def rate_for(self, parameters: int) -> float:
        """The learning rate for a base of so many parameters: the one asked for, else by size."""
        if self.learning_rate is not None:
            return self.learning_rate
        return rate_by_size(self.RATES, parameters)

    def noise_for(self, parameters: int) -> float:
        """The embedding noise for a base of so many parameters: a small one needs it to learn more than the words."""
        if self.embedding_noise is not None:
            return self.embedding_noise
        return 0.0 if parameters >= LARGE_MODEL else self.SMALL_BASE_NOISE

    @property
    def ranks(self) -> int:
        """How many processes share a step."""
        return 1

    def micro_batch_for(self, fitting: int) -> int:
        """Rows a process holds at once where so many fit: as wanted, or fewer so as to fill a batch, one at least."""
        share = self.batch_size // self.ranks
        wanted = min(self.micro_batch or max(1, fitting), share)
        return max(size for size in range(1, wanted + 1) if share % size == 0)

    def steps_for(self, rows: int, parameters: int) -> int:
        """Optimizer steps for so many rows on a base of so many parameters."""
        per_epoch = -(-rows // self.batch_size)
        least = 1 if parameters >= LARGE_MODEL else self.SMALL_BASE_STEPS
        return max(per_epoch * self.epochs, self.min_steps or least)


class SharedSettings(TrainSettings):
    """What the methods share that several processes of one machine can train together."""

    processes: int = Field(
        1, ge=1, le=64, description="Processes that share each step, one GPU (or a part of the cores) for each."
    )

    @model_validator(mode="after")
    def _can_be_shared(self) -> SharedSettings:
        if self.batch_size % self.processes:
            raise ValueError(f"batch_size={self.batch_size} cannot be shared evenly by {self.processes} processes")
        if self.processes > 1 and self.adapter == "adalora":
            raise ValueError("adapter=adalora hands out its ranks in one process; set processes=1 or another adapter")
        return self

    @property
    def ranks(self) -> int:
        """How many processes share a step."""
        return self.processes


class RewardedSettings(TrainSettings):
    """What the methods share that learn from scored replies instead of pairs."""

    SIMPLE: ClassVar[tuple[str, ...]] = (*TrainSettings.SIMPLE, "reward", "reward_function")
    NEEDS_PAIRS: ClassVar[bool] = False
    # Reward models that score must be adapters of the policy's own base.
    REWARDS_SHARE_BASE: ClassVar[bool] = True

    dataset: str | None = Field(  # type: ignore[assignment]
        None, description="The frozen dataset whose prompts are replied to; left out, all work prompts."
    )
    reward: str | None = Field(
        None, description="The reward checkpoint that scores replies; several, separated by commas, score together."
    )
    reward_function: str | None = Field(
        None, description="A reward function that scores replies, for instance 'length_band:20-60'."
    )

    @model_validator(mode="after")
    def _one_judge(self) -> RewardedSettings:
        if (self.reward is None) == (self.reward_function is None):
            raise ValueError("give either reward (a checkpoint) or reward_function, and not both")
        return self

    def reward_checkpoints(self) -> list[str]:
        """The reward checkpoints that score together; none where a function does."""
        return [name.strip() for name in (self.reward or "").split(",") if name.strip()]


class _Drawn(RewardedSettings):
    """Settings of a method that scores replies it draws itself."""

    max_new_tokens: int = Field(96, ge=1, le=8192, description="A drawn reply is cut after this many tokens.")
    stop: Stop | None = Field(None, description=_STOP)
    combine: Literal["mean", "worst", "uncertain"] = Field(
        "mean",
        description="How several reward models score together: mean, worst, or uncertain (the mean less the variance).",
    )
    doubt: float = Field(
        0.5, ge=0.0, le=10.0, description="For combine=uncertain: what the variance between reward models costs."
    )


Combination = Literal["mean", "worst", "uncertain"]
