"""The reward model: learns to score a reply so that chosen ones score higher than rejected ones.

TRL's trainer on LoRA over the base of a policy, with a scalar head that is saved with the adapter. What it is
worth is measured at once on the dataset's test pairs, beside what reply length alone would have said.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput
from feedback.types import PreferencePair
from training.adapters.build import adapter_config, adapter_writer
from training.checkpoints.hashing import describe_base
from training.checkpoints.manifest import Adapter, Manifest, has_own_name, library_versions
from training.checkpoints.probe import measure_probe
from training.checkpoints.saving import check_name_free, register_checkpoint, save_checkpoint
from training.data.pairs import TokenPair, pair_tokens, usable_pairs
from training.evaluation.reward_accuracy import pair_accuracy
from training.forward.trainer_forward import TrainerForward
from training.methods.reward_ensemble import train_members
from training.models.classifiers import head_of
from training.models.loading import HEAD, LoadedReward, load_scorer
from training.reporting.reporter import Reporter, RunContext
from training.settings.reward import RewardSettings
from training.trainer.arguments import trainer_arguments
from training.trainer.callbacks import step_callback
from training.trainer.dropout import disable_dropout
from training.trainer.ranking_trainer import Ranked, as_rankings, build_ranking_trainer, is_decisive, usable_rankings
from training.trainer.running import resume_point, run_trainer, trainer_scope
from training.trainer.subclasses import silenced

MOST_NOISE = 0.45  # beyond this, labels say next to nothing
COUNTS = ("pairs", "ties", "too_long", "refused", "cut")
CURVES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "margin": "margin",
    "mean_reward": "mean_reward",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
}


@dataclass
class RewardOutcome:
    """A trained reward model with the closing figures of its curves and the number of pairs it learnt from.

    ``pairs`` count rankings where it learnt from those; ties stand beside them. ``too_long`` and ``refused`` were left
    out; ``cut`` were kept although a reply of theirs was cut at its length limit.
    """

    reward: LoadedReward
    figures: dict[str, float]
    pairs: int
    ties: int
    too_long: int
    refused: int = 0
    cut: int = 0


def run(context: RunContext) -> dict[str, Any]:
    """Train a reward model on a dataset's pairs; the result names the checkpoint and how often it is right."""
    from feedback.datasets.examples import list_rankings, list_ties
    from feedback.store.datasets.datasets import get_dataset, list_pairs
    from feedback.store.models.policies import get_champion, get_policy

    settings: RewardSettings = context.settings
    dataset = get_dataset(context.db, settings.dataset)
    parent = get_policy(context.db, settings.parent) if settings.parent else get_champion(context.db)
    if parent is None:
        raise InvalidInput("There is no champion whose base a reward model could use: name a parent policy.")
    name = settings.name or f"{context.run.method}-{context.run.id.partition('-')[2]}"
    check_name_free(context.db, context.home, name, context.run.id)
    context.progress.report(0.0, f"loading the base of {parent.name}")
    base_hash = describe_base(parent.base)
    settings = _with_noise(context, settings)
    rankings = list_rankings(context.db, dataset.id, split="train") if settings.rankings else None
    ties = list_ties(context.db, dataset.id, split="train") if settings.ties else []
    told = {ranking.matchup_id for ranking in rankings or ()}  # with their ties
    train_one = train_ensemble if settings.members > 1 else train_reward
    outcome = train_one(
        parent.base,
        list_pairs(context.db, dataset.id, split="train"),
        settings,
        context.run_dir / "trainer",
        context.progress,
        attempt=context.run.attempt,
        rankings=rankings,
        ties=[tie for tie in ties if tie.matchup_id not in told],
    )
    model = outcome.reward.model
    manifest = Manifest(
        kind="reward",
        name=name,
        base=get_policy(context.db, parent.id).base,  # where it lies by now
        base_hash=base_hash,
        adapter=Adapter.of(model.peft_config["default"].to_dict()),
        members=settings.members,
        heads=[HEAD],
        pooling=outcome.reward.pooling,
        reads_end=True,
        dataset=dataset.id,
        dataset_hash=dataset.hash,
        run=context.run.id,
        method=RewardSettings.METHOD,
        config=settings.model_dump(mode="json"),
        seed=settings.seed,
        versions=library_versions(),
        probe=measure_probe("reward", model, outcome.reward.tokenizer),
    )
    held_out = pair_accuracy(outcome.reward, list_pairs(context.db, dataset.id, split="test"))
    path = save_checkpoint(context.home, name, adapter_writer(model), manifest)
    checkpoint = register_checkpoint(context.db, context.home, context.run, manifest, path)
    shutil.rmtree(context.run_dir / "trainer", ignore_errors=True)  # nothing is left to resume
    figures = {f"train_{key}" if key == "accuracy" else key: value for key, value in outcome.figures.items()}
    rare = {name: count for name in ("refused", "cut") if (count := getattr(outcome, name))}
    counts = {"pairs": outcome.pairs, "ties": outcome.ties, "too_long": outcome.too_long, **rare}
    return {"checkpoint": checkpoint.name, **counts, **figures, **held_out}


def train_reward(
    base: str,
    pairs: Sequence[PreferencePair],
    settings: RewardSettings,
    directory: Path,
    reporter: Reporter,
    *,
    attempt: int = 1,
    device: str | None = None,
    rankings: Sequence[Ranked] | None = None,
    ties: Sequence[Ranked] = (),
) -> RewardOutcome:
    """Train on plain values; ``directory`` keeps the states to resume from.

    Rankings take the place of the pairs; ``ties`` are pairs that were called equally good, and come on top.
    """
    import torch

    from training.models.reward_heads import pooling_of

    with trainer_scope():
        torch.manual_seed(settings.seed)  # the new head's start
        model, tokenizer = load_scorer(
            base, device, pooling=settings.pooling_for, quantize=settings.quantize, precision=settings.precision
        )
        pooling = pooling_of(head_of(model))
    encoded: Any
    ranked = _ranked(pairs, rankings, ties, settings)
    if ranked is None:
        encoded, encoder = usable_pairs(tokenizer, model, pairs, settings, reporter)
    else:
        encoded, encoder = usable_rankings(tokenizer, model, ranked, settings, reporter)
        if len({pair.weight for pair in pairs}) > 1:
            reporter.log("the pairs are weighted by how far their annotators can be believed")
    figures: dict[str, float] = {}
    with trainer_scope():
        build: Any = _build if ranked is None else build_ranking_trainer
        trainer = build(model, tokenizer, encoded, settings, directory, reporter)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:  # a head in bf16 would round its own small steps away
                parameter.data = parameter.data.float()
        trainer.add_callback(step_callback(reporter, CURVES, figures))
        run_trainer(trainer, directory, _attempt(trainer, directory, attempt, reporter), reporter)
    model = trainer.model.eval()
    head_of(model.get_base_model()).to(model.dtype)  # as it will be when loaded again
    tied = 0 if ranked is None else sum(not is_decisive(row["ranks"]) for row in encoded)
    reward = LoadedReward(model, tokenizer, base, pooling)
    counts = (len(encoded) - tied, tied, encoder.too_long, encoder.refused, encoder.cut)
    return RewardOutcome(reward, figures, *counts)


def _attempt(trainer: Any, directory: Path, attempt: int, reporter: Reporter) -> int:
    """The attempt, or 1 to begin again where an earlier version left states whose head lies elsewhere."""
    from training.models.classifiers import HOLDER

    point = resume_point(directory, attempt)
    if point is None or has_own_name(Path(point)) == hasattr(trainer.model.get_base_model(), HOLDER):
        return attempt
    reporter.log("the state to resume from was left by an earlier version, whose head read otherwise: it begins again")
    return 1


def _ranked(
    pairs: Sequence[PreferencePair], rankings: Sequence[Ranked] | None, ties: Sequence[Ranked], settings: RewardSettings
) -> list[Ranked] | None:
    """What there is to learn, as rankings; None where plain pairs, which TRL's own loss reads, say all of it."""
    asked = settings.rankings or settings.margin > 0 or settings.label_smoothing > 0
    unlike = len({pair.weight for pair in pairs}) > 1
    if not (asked or unlike or ties):
        return None
    return [*(as_rankings(pairs) if rankings is None else rankings), *ties]


def train_ensemble(
    base: str,
    pairs: Sequence[PreferencePair],
    settings: RewardSettings,
    directory: Path,
    reporter: Reporter,
    *,
    attempt: int = 1,
    device: str | None = None,
    rankings: Sequence[Ranked] | None = None,
    ties: Sequence[Ranked] = (),
) -> RewardOutcome:
    """Train ``settings.members`` reward models as ``train_reward`` would, and give them as one ensemble."""

    def train_member(shift: int, place: Path, part: Reporter) -> tuple[LoadedReward, dict[str, Any]]:
        own = settings.model_copy(update={"seed": settings.seed + shift})
        outcome = train_reward(
            base, pairs, own, place, part, attempt=attempt, device=device, rankings=rankings, ties=ties
        )
        return outcome.reward, {**outcome.figures, **{name: getattr(outcome, name) for name in COUNTS}}

    reward, figures = train_members(
        base,
        settings.members,
        train_member,
        directory,
        reporter,
        device,
        quantize=settings.quantize,
        pooling_for=settings.pooling_for,
    )
    return RewardOutcome(reward, figures, *(int(figures.pop(name)) for name in COUNTS))


def _with_noise(context: RunContext, settings: RewardSettings) -> RewardSettings:
    """The settings with the label smoothing that the dataset's disagreement suggests, where that is asked for."""
    from feedback.datasets.examples import label_noise

    if not settings.estimate_noise:
        return settings
    noise = label_noise(context.db, settings.dataset)
    if noise is None:
        context.progress.log("warning: nobody judged the same pair twice, so the noise cannot be estimated")
        return settings
    context.progress.log(f"disagreement on pairs judged more than once suggests that {100 * noise:.1f} % are wrong")
    return settings.model_copy(update={"label_smoothing": min(noise, MOST_NOISE)})


def _build(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[TokenPair],
    settings: RewardSettings,
    directory: Path,
    reporter: Reporter,
) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows: list[dict[str, Any]] = [
        {
            "chosen_ids": pair["prompt_ids"] + pair["chosen_ids"],
            "rejected_ids": pair["prompt_ids"] + pair["rejected_ids"],
        }
        for pair in encoded
    ]

    trainer: Any = RewardTrainer

    class PairTrainer(trainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            # TRL takes the mean of the processes' means, which is another where one has fewer pairs
            chosen, rejected = (self.gathered(half) for half in outputs.logits.detach().squeeze(-1).chunk(2))
            metrics = self._metrics["train"]
            metrics["accuracy"][-1] = (chosen > rejected).float().mean().item()
            metrics["margin"][-1] = (chosen - rejected).mean().item()
            return (loss, outputs) if return_outputs else loss

    forward = TrainerForward.for_run(settings, model, reporter, head_of)
    arguments = trainer_arguments(settings, model, pair_tokens(encoded, model, settings), directory, forward.precision)
    disable_dropout(model)
    return silenced(PairTrainer, encoded, settings.seed, forward)(
        model=model,
        args=RewardConfig(**arguments, center_rewards_coefficient=settings.centering or None),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter_config(settings, "SEQ_CLS", model),
    )
