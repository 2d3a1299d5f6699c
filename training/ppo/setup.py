"""What a run of reinforcement takes from the home, and what it leaves there.

Before: the parent policy, the roles on its base, the scorer, the prompts to reply to and those kept apart. After: a
checkpoint that is one ordinary adapter, the value beside it, and a policy whose rollouts are kept as generations.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.errors import NotEnoughData
from training.adapters.build import adapter_config
from training.checkpoints.loading import refuse_other_base
from training.checkpoints.manifest import Adapter, read_manifest
from training.checkpoints.probe import measure_probe
from training.data.encoding import check_prompts
from training.generation.own_sampling import own_stop
from training.generation.replies import ReplyReader
from training.generation.sampling import banned_tokens, end_tokens
from training.generation.stop_strings import named_ends
from training.models.base_fit import embedding_rows
from training.models.loading import LoadedPolicy, load_base, parameter_count
from training.ppo.backbone import Backbone
from training.ppo.backbone_adapters import PeftAdapters
from training.ppo.canary import Canary
from training.ppo.reward_roles import RewardRoles, read_reward
from training.ppo.rollouts import PoolPrompt, PromptPool, Rollout, encode_pool, generations_of
from training.reporting.reporter import Reporter, RunContext
from training.rewards.functions import get_reward_function
from training.rewards.scorers import Scorer
from training.settings.ppo import PpoSettings
from training.settings.train import LARGE_MODEL
from training.speedups.core_pool import CorePool
from training.trainer.policy_run import Start, open_start, save_policy_checkpoint, work_prompts

if TYPE_CHECKING:
    from feedback.tables import DatasetRow

CANARY_SHARE = 5  # at most every fifth prompt is kept apart
CANARY_ROLE = "canary_reward"


@dataclass
class Ready:
    """All that a learner is given, and what the run starts from."""

    start: Start
    backbone: Backbone
    adapters: PeftAdapters
    scorer: Scorer
    pool: PromptPool
    canary: Canary
    ends: list[int]
    keep: Callable[[Rollout], None]


def prepare(context: RunContext) -> Ready:
    """Load and check everything; what cannot work is refused here, before the first reply."""
    settings: PpoSettings = context.settings
    start = open_start(context)
    parent = start.parent
    rewards = [_reward_directory(context, key, parent.base) for key in settings.reward_checkpoints()]
    watch = _reward_directory(context, settings.canary_reward, parent.base) if settings.canary_reward else None
    backbone, adapters, ends, models = build_backbone(parent.base, start.adapter, rewards, settings)
    context.progress.log(named_ends(backbone.tokenizer, ends, backbone.reader.stops.strings))
    scorer: Scorer = models
    if settings.reward_function is not None:
        scorer = get_reward_function(settings.reward_function)
    watchers = scorer if watch is None else read_reward(backbone, adapters, CANARY_ROLE, watch, parent.base)
    learning, apart = split_prompts(_encoded(context, backbone, start.dataset, settings), settings, context.progress)
    pool = PromptPool(learning, settings.seed)
    parent_id, run_id = parent.id, context.run.id

    def keep(rollout: Rollout) -> None:
        from feedback.store.content.generations import save_generations_once

        generations = generations_of(rollout, pool, parent_id, run_id, settings)
        tag = f"gen-{run_id.partition('-')[2]}-{rollout.iteration}"
        save_generations_once(context.db, generations, [f"{tag}-{place}" for place in range(len(generations))])

    return Ready(start, backbone, adapters, scorer, pool, Canary(apart, watchers, settings), ends, keep)


def build_backbone(
    base: str,
    parent_adapter: Path | None,
    rewards: Sequence[Path],
    settings: PpoSettings,
    device: str | None = None,
) -> tuple[Backbone, PeftAdapters, list[int], RewardRoles]:
    """Return the backbone, its adapters, the tokens that end a reply, and the reward models.

    A parent's adapter is copied to the policy and kept, frozen, as the reference; without one the policy gets a new
    adapter and the reference is the bare base. The value begins as a copy of the first reward model, or where there is
    none as a copy of the policy that expects nothing but the mean.
    """
    import torch

    from training.speedups.direct_forward import DirectForward, use_torch_rms_norms

    model, tokenizer = load_base(base, device)
    reader = ReplyReader(tokenizer, own_stop(model, settings.stop))
    ends = end_tokens(LoadedPolicy(model, tokenizer, base), reader.stops)
    adapters = PeftAdapters(model)
    backbone = Backbone(base, model, tokenizer, adapters, banned_tokens(tokenizer, ends, embedding_rows(model)))
    backbone.reader = reader
    backbone.check_head()
    use_torch_rms_norms(model)
    backbone.direct_forward = DirectForward.of(model)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)  # the new adapters' start
        if parent_adapter is None:
            adapters.create("policy", adapter_config(settings, "CAUSAL_LM", model))
        else:
            adapters.read("policy", parent_adapter)
            adapters.read("reference", parent_adapter)
            backbone.reference_adapter = "reference"
        models = RewardRoles(backbone, [], settings.combine, settings.doubt)
        for number, directory in enumerate(rewards):
            models.models += read_reward(backbone, adapters, f"reward_{number}", directory, base).models
        if settings.baseline == "value":
            _add_value(backbone, adapters, rewards, settings)
    if parameter_count(model) >= LARGE_MODEL:
        backbone.enable_gradient_checkpointing()
    else:
        backbone.use_sparse_mlp()
        if backbone.device.type == "cpu":
            backbone.core_pool = CorePool(torch.get_num_threads())
    backbone.freeze_below(settings.still_layers_for(parameter_count(model), len(backbone.layers)))
    return backbone, adapters, ends, models


def _add_value(backbone: Backbone, adapters: PeftAdapters, rewards: Sequence[Path], settings: PpoSettings) -> None:
    from training.models.reward_heads import pooling_of

    if not rewards:  # a reward function has no weights to begin from; the policy's at least are of the right kind
        adapters.create("value", copy.deepcopy(adapters.config("policy")))
        backbone.load_state("value", backbone.state_of("policy"))
        backbone.add_head("value")
        return
    adapters.read("value", rewards[0])
    first = backbone.heads["reward_0"]
    backbone.add_head("value", first.weight.detach(), pooling=pooling_of(first))


def publish(context: RunContext, ready: Ready, figures: dict[str, Any]) -> dict[str, Any]:
    """Save the policy as it is in its role, with the value beside it, and enter both into the home."""
    from feedback.store.content.generations import hand_over_generations

    backbone, heads = ready.backbone, [role for role in ready.adapters.names() if role == "value"]
    with backbone.role("policy"):
        probe = measure_probe("policy", backbone.model, backbone.tokenizer)

    def write(directory: Path) -> None:
        backbone.save("policy", directory)
        for role in heads:
            backbone.save(role, directory / role)

    adapter = Adapter.of(ready.adapters.config("policy").to_dict())
    checkpoint, policy = save_policy_checkpoint(
        context, ready.start, adapter, probe, write, reference=True, heads=heads
    )
    hand_over_generations(context.db, context.run.id, policy.id)
    return {"checkpoint": checkpoint.name, "policy": policy.name, **figures}


def split_prompts(
    prompts: Sequence[PoolPrompt], settings: PpoSettings, reporter: Reporter
) -> tuple[list[PoolPrompt], list[PoolPrompt]]:
    """The prompts to learn from, and those kept apart for the canary: the same ones whenever the seed is the same."""
    wanted = settings.canary_prompts if settings.canary_every else 0
    count = min(wanted, len(prompts) // CANARY_SHARE)
    if wanted and count < wanted:
        reporter.log(f"{count} prompts are kept apart instead of {wanted}: there are only {len(prompts)} in all")
    shuffled = list(prompts)
    random.Random(f"{settings.seed}:canary").shuffle(shuffled)
    return shuffled[count:], shuffled[:count]


def _encoded(
    context: RunContext, backbone: Backbone, dataset: DatasetRow | None, settings: PpoSettings
) -> list[PoolPrompt]:
    prompts = work_prompts(context, dataset)
    if not prompts:
        raise NotEnoughData("There are no prompts to reply to: `studio prompts import FILE` adds some.")
    pool, too_long = encode_pool(backbone.tokenizer, backbone.model, prompts, settings.max_new_tokens)
    if too_long:
        context.progress.log(
            f"warning: {too_long} of {len(prompts)} prompts are left out: with {settings.max_new_tokens} tokens for "
            "the reply they do not fit the model's window, or its chat template refuses them"
        )
    if not pool:
        raise NotEnoughData(
            f"None of the {len(prompts)} prompts leaves room for {settings.max_new_tokens} tokens of reply in the "
            "model's window, or its chat template refuses them. Lower max_new_tokens or import other prompts."
        )
    check_prompts(backbone.tokenizer, [prompt.messages for prompt in pool], context.progress)
    return pool


def _reward_directory(context: RunContext, key: str, base: str) -> Path:
    """The directory of a reward checkpoint that fits the base."""
    from feedback.store.models.checkpoints import get_to_score

    directory = context.home.path / get_to_score(context.db, key).path
    manifest = read_manifest(directory)
    refuse_other_base(manifest.name, manifest.base, manifest.base_hash, base)
    return directory
