"""A run that makes a policy: the parent it starts from, and the checkpoint and policy that come of it.

A parent that is a bare base gets a new adapter; a parent with an adapter has that adapter trained on, and the
checkpoint stays one adapter over the base. A reference, where a method has one, is always the parent.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput, NotFound
from feedback.tables import CheckpointRow, DatasetRow, PolicyRow, PromptRow
from feedback.types import Policy
from training.adapters.build import adapter_config, adapter_writer
from training.checkpoints.hashing import describe_base
from training.checkpoints.loading import check_checkpoint
from training.checkpoints.manifest import Adapter, Manifest, library_versions
from training.checkpoints.opening import policy_directory
from training.checkpoints.probe import Probe, measure_probe
from training.checkpoints.saving import check_name_free, register_checkpoint, save_checkpoint
from training.models.loading import attach_adapter, load_base
from training.reporting.reporter import Reporter, RunContext
from training.settings.train import TrainSettings
from training.trainer.parents import check_trains_on


@dataclass(frozen=True)
class Start:
    """What a run starts from: the name it will give, the parent, where its adapter lies, and the dataset if any.

    ``base_hash`` is that of the base as it was loaded: the base may be moved while the run is at work.
    """

    name: str
    parent: PolicyRow
    adapter: Path | None
    dataset: DatasetRow | None
    base_hash: str


@dataclass
class PolicyOutcome:
    """A trained policy model with the closing figures of its curves and the counts of what it learnt from."""

    model: Any
    tokenizer: Any
    figures: dict[str, float]
    counts: dict[str, int]


def open_start(context: RunContext) -> Start:
    """The parent and the dataset a run's settings name, checked before anything is loaded."""
    from feedback.store.datasets.datasets import get_dataset
    from feedback.store.models.policies import get_champion, get_policy

    settings: TrainSettings = context.settings
    dataset = get_dataset(context.db, settings.dataset) if settings.dataset else None
    parent = get_policy(context.db, settings.parent) if settings.parent else get_champion(context.db)
    if parent is None:
        raise InvalidInput("There is no champion to train: name a parent, or promote a policy first.")
    name = settings.name or f"{context.run.method}-{context.run.id.partition('-')[2]}"
    check_name_free(context.db, context.home, name, context.run.id)
    context.progress.report(0.0, f"loading {parent.name}")
    adapter = policy_directory(context.db, context.home, parent)
    if adapter is not None:
        manifest = check_checkpoint(adapter, "policy", parent.base)
        check_trains_on(parent.name, parent.base, manifest.adapter.kind, settings)
    return Start(name, parent, adapter, dataset, describe_base(parent.base))


def work_prompts(context: RunContext, dataset: DatasetRow | None, limit: int | None = None) -> list[PromptRow]:
    """The prompts a method draws replies to: the training prompts of a dataset, else all for work; never held-out ones.

    Of a dataset those count too whose judgments make no pair: a tie says nothing of which reply is better, and the
    prompt is as good as any. A dataset is frozen, so those of its prompts that were retired since count as well.
    """
    from feedback.datasets.examples import list_judged_prompts
    from feedback.store.content.prompts import list_prompts
    from feedback.types import Split

    if dataset is None:
        return list_prompts(context.db, split=Split.work, limit=limit, brought=True)
    judged = list_judged_prompts(context.db, dataset.id, split="train")
    return list_prompts(context.db, split=Split.work, ids=judged, limit=limit, retired=None)


def load_parent(
    base: str, adapter: Path | None, settings: TrainSettings, reporter: Reporter, device: str | None = None
) -> tuple[Any, Any, Any]:
    """Model, tokenizer and PEFT configuration to train with: no configuration where the parent's adapter goes on."""
    model, tokenizer = load_base(base, device, settings.quantize, precision=settings.precision)
    if adapter is None:
        return model, tokenizer, adapter_config(settings, "CAUSAL_LM", model)
    reporter.log("the parent's adapter is trained on; its kind and size are the parent's, whatever the settings say")
    return attach_adapter(model, adapter, trainable=True), tokenizer, None


def save_policy_run(
    context: RunContext, start: Start, outcome: PolicyOutcome, *, reference: bool, **extra: Any
) -> dict[str, Any]:
    """Save checkpoint and policy, and give the run's result; ``reference`` says whether the parent held the loss."""
    adapter = Adapter.of(outcome.model.peft_config["default"].to_dict())
    probe = measure_probe("policy", outcome.model, outcome.tokenizer)
    write = adapter_writer(outcome.model)
    checkpoint, policy = save_policy_checkpoint(context, start, adapter, probe, write, reference=reference)
    shutil.rmtree(context.run_dir / "trainer", ignore_errors=True)  # nothing is left to resume
    return {"checkpoint": checkpoint.name, "policy": policy.name, **outcome.counts, **outcome.figures, **extra}


def save_policy_checkpoint(
    context: RunContext,
    start: Start,
    adapter: Adapter,
    probe: Probe,
    write: Callable[[Path], None],
    *,
    reference: bool,
    heads: Sequence[str] = (),
) -> tuple[CheckpointRow, PolicyRow]:
    """Save what ``write`` puts into a directory as the run's checkpoint, and enter it and its policy.

    ``heads`` are the roles beside the policy that were saved with a head of their own, each in a directory of its name.
    """
    from feedback.store.models.policies import get_policy

    settings: TrainSettings = context.settings
    base = get_policy(context.db, start.parent.id).base  # where it lies by now
    manifest = Manifest(
        kind="policy",
        name=start.name,
        base=base,
        base_hash=start.base_hash,
        adapter=adapter,
        heads=list(heads),
        parent=start.parent.id,
        reference=start.parent.id if reference else None,
        dataset=start.dataset.id if start.dataset else None,
        dataset_hash=start.dataset.hash if start.dataset else None,
        run=context.run.id,
        method=settings.METHOD,
        config=settings.model_dump(mode="json"),
        seed=settings.seed,
        versions=library_versions(),
        probe=probe,
    )
    path = save_checkpoint(context.home, start.name, write, manifest)
    checkpoint = register_checkpoint(context.db, context.home, context.run, manifest, path)
    return checkpoint, register_policy(context, start.name, base, checkpoint.id, start.parent.id)


def register_policy(context: RunContext, name: str, base: str, checkpoint_id: str, parent_id: str) -> Any:
    """Enter the new policy; entered before by the same run, it is given back."""
    from feedback.store.models.policies import get_policy, save_policy

    try:
        row = get_policy(context.db, name)
        if row.run_id == context.run.id:
            return row
    except NotFound:
        pass
    policy = Policy(name=name, base=base, checkpoint_id=checkpoint_id, parent_id=parent_id, run_id=context.run.id)
    return save_policy(context.db, policy)
