"""One validated settings class per method; a sentence and a range under every field.

The classes are the single source of the ``--set`` keys, the page's form and the help texts. Pure pydantic, so
that the studio can validate a run without loading torch. ``None`` for a learning rate means *chosen by the
size of the base model*: a 3 M starter wants a hundred times the rate of a 7 B model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from types import UnionType
from typing import Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from feedback.errors import UnknownSetting
from feedback.types import MatchupKind, SamplingSettings, Split, usable_name

BASE_CHANGING = ("pissa", "olora")  # adapters that change the base's weights when they begin
LARGE_MODEL = 100_000_000  # parameters; from here on the rates for 0.5-8 B models apply


class Settings(BaseModel):
    """What every method's settings share: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    METHOD: ClassVar[str] = ""


class _Sampled(Settings):
    """Settings of a method that draws replies."""

    temperature: float = Field(
        1.0,
        ge=0.0,
        le=5.0,
        description="Spread of the draw; 0 always takes the likeliest token, 1 is the model's own.",
    )
    top_p: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Draws only from the likeliest tokens that add up to this probability.",
    )
    top_k: int = Field(0, ge=0, le=1000, description="Draws only from this many likeliest tokens; 0 means all.")
    max_new_tokens: int = Field(96, ge=1, le=8192, description="A reply is cut after this many tokens.")
    batch_size: int = Field(128, ge=1, le=1024, description="How many replies are drawn side by side.")

    def sampling(self) -> SamplingSettings:
        """The part of the settings that is stored with every generation."""
        return SamplingSettings(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_new_tokens,
        )


class GenerateSettings(_Sampled):
    """Fill the pool: draw replies to work prompts and pair them up for the annotators."""

    METHOD: ClassVar[str] = "generate"

    policy: str | None = Field(None, description="The policy that replies; left out, the champion.")
    per_prompt: int = Field(2, ge=2, le=9, description="Replies drawn for each prompt.")
    limit: int = Field(50, ge=1, le=100_000, description="How many prompts are given replies, least judged first.")
    seed: int | None = Field(None, ge=0, le=2**31 - 1, description="Seed of the draw; left out, a fresh one is drawn.")
    split: Split = Field(Split.work, description="Which prompts are used; evaluation prompts never reach a dataset.")
    required: int = Field(1, ge=1, le=50, description="Judgments each matchup is to get.")
    kind: MatchupKind = Field(MatchupKind.pair, description="Pairs, or one ranking of all replies to a prompt.")
    against: str | None = Field(
        None,
        description="A second policy: each pair holds a reply of both. Of evaluation prompts such pairs are put before "
        "people alone, first of all, and only measure which of the two they prefer.",
    )

    @model_validator(mode="after")
    def _can_be_halved(self) -> GenerateSettings:
        if self.against is not None and (self.per_prompt % 2 or self.kind is not MatchupKind.pair):
            raise ValueError(
                f"against pairs the replies of two policies: kind must be pair, not {self.kind.value}, and per_prompt "
                f"even, not {self.per_prompt}"
            )
        return self

    @property
    def is_measurement(self) -> bool:
        """Whether the pairs only measure which policy people prefer; nothing is trained on them."""
        return self.against is not None and self.split is Split.evaluation


class EvaluateSettings(_Sampled):
    """Measure a policy against another, or a reward model against held-out pairs."""

    METHOD: ClassVar[str] = "evaluate"

    a: str | None = Field(None, description="The policy that is measured; left out, a reward model is measured.")
    b: str | None = Field(None, description="The policy it is measured against.")
    oracle: str | None = Field(None, description="The rule that judges, for instance 'shorter' or a style axis.")
    reward: str | None = Field(None, description="The reward checkpoint that judges, or that is itself measured.")
    prompts: int = Field(150, ge=2, le=100_000, description="How many held-out prompts both policies reply to.")
    samples: int = Field(2, ge=1, le=16, description="Replies per prompt and policy.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the draw and of the oracle's noise.")
    noise: float = Field(0.0, ge=0.0, le=0.5, description="Share of the oracle's verdicts that are flipped.")
    best_of: int = Field(
        1, ge=1, le=256, description="Policy A draws this many replies and gives the best: better without training."
    )
    picker: str | None = Field(
        None,
        description="Who picks A's best reply: a reward checkpoint, or a reward function such as length_band:20-60.",
    )

    @model_validator(mode="after")
    def _one_question(self) -> EvaluateSettings:
        if (self.a is None) != (self.b is None):
            raise ValueError("give both policies, a and b, or neither to measure a reward model")
        if self.a is not None and (self.oracle is None) == (self.reward is None):
            raise ValueError("two policies need exactly one judge: an oracle or a reward checkpoint")
        if self.a is None and (self.oracle is None or self.reward is None):
            raise ValueError("measuring a reward model needs reward (the checkpoint) and oracle (who is right)")
        if self.best_of > 1 and (self.a is None or self.picker is None):
            raise ValueError("best_of needs policy A, who replies, and picker, who picks the best reply")
        return self


class BenchmarkSettings(Settings):
    """Have a policy take tasks of lm-evaluation-harness; its score on every item is kept."""

    METHOD: ClassVar[str] = "benchmark"

    policy: str | None = Field(None, description="The policy that is measured; left out, the champion.")
    tasks: tuple[str, ...] = Field(
        ("starter_topic",), min_length=1, description="Names of tasks or groups of tasks, separated by commas."
    )
    include: str | None = Field(
        None, description="A folder with tasks of your own (the harness's YAML files); left out, those of the studio."
    )
    limit: int | None = Field(None, ge=2, le=1_000_000, description="Only this many items of each task; left out, all.")
    num_fewshot: int | None = Field(
        None, ge=0, le=64, description="Solved examples shown before each item; left out, as the task says."
    )
    chat_template: bool = Field(True, description="Ask in the policy's chat template, as it was trained to be asked.")
    batch_size: int = Field(16, ge=1, le=1024, description="How many items are answered side by side.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the choice of examples and of what is drawn.")

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, tasks: Any) -> Any:
        return tuple(name.strip() for name in tasks.split(",") if name.strip()) if isinstance(tasks, str) else tasks


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
        description="Pairs held in memory at once; left out, chosen by the size of the base model.",
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

    RATES: ClassVar[tuple[float, float]] = (1e-3, 1e-4)
    # Of a small base; a large one takes its epochs, however few steps they make.
    SMALL_BASE_STEPS: ClassVar[int] = 60
    SMALL_BASE_NOISE: ClassVar[float] = 10.0
    # The parent, with which what was trained is compared, is the base with its adapters off.
    REFERENCE_IS_BASE: ClassVar[bool] = True
    FEWEST: ClassVar[int] = 2

    @model_validator(mode="after")
    def _keeps_the_reference(self) -> TrainSettings:
        if self.REFERENCE_IS_BASE and self.adapter in BASE_CHANGING:
            raise ValueError(
                f"adapter={self.adapter} takes its start out of the base's own weights, so that the base with its "
                f"adapters off, which is the reference of {self.METHOD or 'this method'}, would be another model; "
                "choose lora, rslora, dora, ia3, adalora or bottleneck"
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
        return self.RATES[parameters >= LARGE_MODEL]

    def noise_for(self, parameters: int) -> float:
        """The embedding noise for a base of so many parameters: a small one needs it to learn more than the words."""
        if self.embedding_noise is not None:
            return self.embedding_noise
        return 0.0 if parameters >= LARGE_MODEL else self.SMALL_BASE_NOISE

    @property
    def ranks(self) -> int:
        """How many processes share a step."""
        return 1

    def micro_batch_for(self, parameters: int) -> int:
        """Pairs a process holds at once for a base of so many parameters: as wanted, or fewer so as to fill a batch."""
        share = self.batch_size // self.ranks
        wanted = min(self.micro_batch or (4 if parameters >= LARGE_MODEL else share), share)
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


class RewardSettings(SharedSettings):
    """Learn to score replies as the annotators did."""

    METHOD: ClassVar[str] = "reward"
    RATES: ClassVar[tuple[float, float]] = (1e-3, 1e-4)
    SMALL_BASE_STEPS: ClassVar[int] = 110
    SMALL_BASE_NOISE: ClassVar[float] = 5.0
    REFERENCE_IS_BASE: ClassVar[bool] = False
    FEWEST: ClassVar[int] = 8

    centering: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="Pull of the scores towards 0, so that they stay comparable between runs.",
    )
    pooling: Literal["last", "sum", "mean"] | None = Field(
        None,
        description="What the head reads: the last token, or the sum or mean over all of them, which a small base "
        "learns from fewer pairs. ppo lengthens replies to please a sum where length is not what is asked for, and "
        "shortens them too far to please a mean where brevity is. Left out, chosen by the size of the base model.",
    )
    rankings: bool = Field(
        False, description="Learns from whole rankings, each reply read once, instead of from pairs; ties included."
    )
    ties: float = Field(
        1.0,
        ge=0.0,
        le=10.0,
        description="How much two replies called equally good count beside a preference: they are pulled to one "
        "score; 0 leaves ties out.",
    )
    margin: float = Field(
        0.0,
        ge=0.0,
        le=5.0,
        description="By how much scores are to differ for each degree of preference strength; 0 leaves strength out.",
    )
    label_smoothing: float = Field(
        0.0, ge=0.0, le=0.45, description="Share of the judgments expected to be wrong: they then count less."
    )
    estimate_noise: bool = Field(
        False, description="Sets label_smoothing from how often people who judged the same pair disagree."
    )
    members: int = Field(
        1, ge=1, le=8, description="Reward models trained side by side on one base; their spread tells doubt."
    )

    @model_validator(mode="after")
    def _one_way_at_a_time(self) -> RewardSettings:
        if self.members > 1 and self.processes > 1:
            raise ValueError(
                f"members={self.members} train one after the other, which processes={self.processes} cannot share; "
                "train single reward models, several of which may judge together (reward=one,two)"
            )
        return self

    def pooling_for(self, parameters: int) -> Literal["last", "sum", "mean"]:
        """What the head reads on a base of so many parameters: the pooling asked for, else by size."""
        return self.pooling or ("last" if parameters >= LARGE_MODEL else "sum")


class DpoSettings(SharedSettings):
    """Move a policy towards the chosen replies and away from the rejected ones."""

    METHOD: ClassVar[str] = "dpo"
    RATES: ClassVar[tuple[float, float]] = (3e-3, 2e-5)
    SMALL_BASE_STEPS: ClassVar[int] = 90

    beta: float = Field(
        0.1,
        ge=0.001,
        le=10.0,
        description="How strongly the policy is held to its parent; higher moves it less.",
    )
    loss: Literal["sigmoid", "ipo", "hinge", "robust", "simpo"] = Field(
        "sigmoid",
        description="The form of the loss: robust expects wrong labels, ipo resists overfitting few pairs, simpo needs "
        "no reference and counts per token.",
    )
    noise: float = Field(0.1, ge=0.0, le=0.45, description="For the robust loss: share of the labels that are wrong.")
    length_weight: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="What the part of a reply beyond the length of the shorter one counts; below 1 it keeps replies "
        "from growing.",
    )
    anchor: float = Field(
        0.1,
        ge=0.0,
        le=10.0,
        description="How much the chosen replies' own likelihood counts beside the comparison (RPO's alpha): it keeps "
        "a policy from forgetting how to speak; 0 is plain DPO.",
    )
    simpo_beta: float = Field(2.0, ge=0.01, le=20.0, description="For the simpo loss: in the place of beta.")
    simpo_margin: float = Field(
        1.0, ge=0.0, le=20.0, description="For the simpo loss: by how much the chosen reply should lead."
    )


class RewardedSettings(TrainSettings):
    """What the methods share that learn from scored replies instead of pairs."""

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


class SftSettings(SharedSettings):
    """Learn to reply as the best replies do: those that people edited, and those they chose."""

    METHOD: ClassVar[str] = "sft"
    RATES: ClassVar[tuple[float, float]] = (3e-3, 1e-4)

    batch_size: int = Field(16, ge=1, le=1024, description="Replies (or packs of replies) per optimizer step.")
    replies: Literal["all", "edited", "chosen"] = Field(
        "all", description="What is imitated: replies people edited, replies people chose, or both."
    )
    packing: bool = Field(
        False, description="Puts several short replies into one row, which saves padding; no reply sees another."
    )


class KtoSettings(SharedSettings):
    """Make good replies likelier and bad ones less likely, each by itself; no pairs are needed."""

    METHOD: ClassVar[str] = "kto"
    RATES: ClassVar[tuple[float, float]] = (3e-3, 2e-5)
    SMALL_BASE_STEPS: ClassVar[int] = 90

    batch_size: int = Field(16, ge=2, le=1024, description="Replies per optimizer step.")
    beta: float = Field(
        0.1, ge=0.001, le=10.0, description="How strongly the policy is held to its parent; higher moves it less."
    )
    good_weight: float | None = Field(
        None, gt=0.0, le=100.0, description="What a good reply counts; left out, set so that both kinds weigh the same."
    )
    bad_weight: float | None = Field(
        None, gt=0.0, le=100.0, description="What a bad reply counts; left out, set so that both kinds weigh the same."
    )


class _Drawn(RewardedSettings):
    """Settings of a method that scores replies it draws itself."""

    max_new_tokens: int = Field(96, ge=1, le=8192, description="A drawn reply is cut after this many tokens.")
    combine: Literal["mean", "worst", "uncertain"] = Field(
        "mean",
        description="How several reward models score together: mean, worst, or uncertain (the mean less the variance).",
    )
    doubt: float = Field(
        0.5, ge=0.0, le=10.0, description="For combine=uncertain: what the variance between reward models costs."
    )


class RftSettings(_Drawn):
    """Reply several times to each prompt, keep what scores best, and learn to reply like that."""

    METHOD: ClassVar[str] = "rft"
    RATES: ClassVar[tuple[float, float]] = (3e-3, 1e-4)
    SMALL_BASE_STEPS: ClassVar[int] = 120

    batch_size: int = Field(16, ge=1, le=1024, description="Replies (or packs of replies) per optimizer step.")
    samples: int = Field(8, ge=2, le=256, description="Replies drawn for each prompt.")
    keep: int = Field(1, ge=1, le=64, description="How many of them are imitated, best first.")
    prompts: int = Field(1000, ge=2, le=1_000_000, description="How many prompts are replied to at most.")
    temperature: float = Field(1.0, gt=0.0, le=5.0, description="Spread of the draw; 1 is the model's own.")
    sampling_batch: int = Field(128, ge=1, le=4096, description="How many replies are drawn side by side.")
    packing: bool = Field(
        False, description="Puts several short replies into one row, which saves padding; no reply sees another."
    )

    @model_validator(mode="after")
    def _some_are_left_out(self) -> RftSettings:
        if self.keep >= self.samples:
            raise ValueError(f"keep ({self.keep}) must be below samples ({self.samples}): else nothing is chosen")
        return self


class RlooSettings(_Drawn):
    """Draw replies, score them, and make those likelier that beat the others to the same prompt."""

    METHOD: ClassVar[str] = "rloo"
    RATES: ClassVar[tuple[float, float]] = (1e-3, 2e-5)

    # Noise on what is read would make the drawn replies another distribution than the one that is trained
    embedding_noise: ClassVar[None] = None  # type: ignore[misc, assignment]
    max_length: ClassVar[None] = None  # type: ignore[misc, assignment]

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


class PpoSettings(_Drawn):
    """Move a policy towards replies that score higher, drawing fresh ones as it goes."""

    METHOD: ClassVar[str] = "ppo"
    RATES: ClassVar[tuple[float, float]] = (3e-3, 3e-5)

    # Settings of training on pairs that have no meaning for replies drawn on the way
    min_steps: ClassVar[None] = None  # type: ignore[misc, assignment]
    embedding_noise: ClassVar[None] = None  # type: ignore[misc, assignment]
    max_length: ClassVar[None] = None  # type: ignore[misc, assignment]
    log_every: ClassVar[None] = None  # type: ignore[misc, assignment]
    report_to: ClassVar[None] = None  # type: ignore[misc, assignment]  # mirrors are the reporters of TRL's trainers
    sample_every: ClassVar[None] = None  # type: ignore[misc, assignment]  # the canary looks, every ``canary_every``
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
        return self.value_learning_rate or (1e-3, 5e-5)[parameters >= LARGE_MODEL]

    def micro_batch_for(self, parameters: int) -> int:
        """Replies that a forward takes at once; never more than a batch.

        On a small base a crew works on the parts of a batch side by side, and shorter ones hold less padding.
        """
        return min(self.micro_batch or 4, self.batch_size)

    def still_layers_for(self, parameters: int, layers: int) -> int:
        """The layers that keep still in a base of so many parameters and layers; the last always learns."""
        usual = 0 if parameters >= LARGE_MODEL else 2 * layers // 3
        return min(usual if self.still_layers is None else self.still_layers, layers - 1)

    def reward_checkpoints(self) -> list[str]:
        """The reward checkpoints that score together; none where a function does."""
        return [name.strip() for name in (self.reward or "").split(",") if name.strip()]


SETTINGS: dict[str, type[Settings]] = {
    kind.METHOD: kind
    for kind in (
        GenerateSettings,
        EvaluateSettings,
        BenchmarkSettings,
        RewardSettings,
        DpoSettings,
        SftSettings,
        KtoSettings,
        RftSettings,
        RlooSettings,
        PpoSettings,
    )
}


# Settings whose value names something that exists; where there may be several, they are separated by commas.
REFERS = {"reward": "reward models", "canary_reward": "reward model", "reward_function": "reward function"}


class Setting(NamedTuple):
    """One line of a form or of a help text; ``range`` is empty where any value will do.

    ``refers`` says what the value names, where it names something: a reward model, several, or a reward function.
    """

    name: str
    type: str
    default: Any
    range: str
    sentence: str
    refers: str = ""


def settings_class(method: str) -> type[Settings]:
    """The settings class of a method, or UnknownSetting with the methods there are."""
    if method not in SETTINGS:
        raise UnknownSetting(f"There is no method {method!r}. Methods: {', '.join(sorted(SETTINGS))}.")
    return SETTINGS[method]


def describe(method: str) -> list[Setting]:
    """Every setting of a method with type, default, range and sentence, in the order of the class."""
    return [_describe(name, field) for name, field in settings_class(method).model_fields.items()]


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


def _describe(name: str, field: FieldInfo) -> Setting:
    default = None if field.is_required() else field.default
    told = field.description or ""
    return Setting(name, _type_name(field.annotation), default, _range(field), told, REFERS.get(name, ""))


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
