"""Reward models as roles on the base that PPO trains on, and the scale on which their scores become rewards.

A reply is scored by its text, as an annotator reads it and as the reward model learnt it, not by the tokens that
happened to be drawn: the same text can be spelt in several ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from feedback.errors import CheckpointError, RunFailed
from training.checkpoints.loading import check_checkpoint
from training.checkpoints.manifest import ADAPTER_FILE
from training.checkpoints.probe import listed, probe_exchanges
from training.models.chat import Messages, encode_exchange, window_of
from training.models.ensemble import member_name
from training.rewards.scorers import combine_scores, combined

if TYPE_CHECKING:
    from torch import Tensor

    from training.ppo.backbone import Backbone, Role
    from training.ppo.backbone_adapters import PeftAdapters
    from training.settings.train import Combination


LEAST_SPREAD = 1e-6
SCORING_BATCH = 8  # of like length: a wider batch is mostly padding, and leaves a core's cache


@dataclass(frozen=True)
class RewardRole:
    """A reward model as a role of the backbone; ``name`` is for people.

    Rows end before the token ``unread`` where they end with it: models of earlier versions were trained to read so.
    """

    role: str
    name: str
    unread: int | None = None


@dataclass
class RewardRoles:
    """Reward models on the shared base, each member of an ensemble as one of them."""

    backbone: Backbone
    models: list[RewardRole]
    combination: Combination = "mean"
    variance_penalty: float = 0.5

    def score_all(self, exchanges: Sequence[tuple[Messages, str]]) -> list[float]:
        """The combined score of each (messages, reply)."""
        return combined(self.scores(exchanges), self.combination, self.variance_penalty)

    def scores(self, exchanges: Sequence[tuple[Messages, str]]) -> Tensor:
        """What each reward model gives each (messages, reply): (model, reply), fp32; RunFailed for no finite number.

        A reply is read to its end, whether the policy ended it or not.
        """
        found = self.score_rows([encode_exchange(self.backbone.tokenizer, m, reply).ids for m, reply in exchanges])
        _refuse_nonsense(found, [model.name for model in self.models], exchanges)
        return found

    def score_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The score each reward model gives token rows: (model, row), fp32; rows beyond the window are truncated."""
        import torch

        return torch.stack([self._score_rows(model, rows) for model in self.models])

    def _score_rows(self, model: RewardRole, rows: Sequence[Sequence[int]]) -> Tensor:
        import torch

        window = window_of(self.backbone.model)
        read = [_without_last(list(row)[:window], model.unread) for row in rows]
        order = sorted(range(len(read)), key=lambda i: -len(read[i]))
        found = torch.zeros(len(read))
        parts = [order[start : start + SCORING_BATCH] for start in range(0, len(order), SCORING_BATCH)]

        def score(reward: Role, places: Sequence[int]) -> Tensor:
            width = max(len(read[i]) for i in places)
            ids = torch.tensor([read[i] + [0] * (width - len(read[i])) for i in places])
            lengths = torch.tensor([len(read[i]) for i in places])
            return reward.scores(ids.to(self.backbone.device), lengths.to(self.backbone.device)).cpu()

        with self.backbone.role(model.role) as reward:
            for places, scores in zip(parts, self.backbone.core_pool.map(partial(score, reward), parts), strict=True):
                found[places] = scores
        return found


@dataclass
class ScoreScale:
    """What makes a score of a reward: each scorer's mean and deviation on replies of the parent, measured once.

    Measured again and again it would move the target under the policy.
    """

    mean: list[float]
    deviation: list[float]

    @classmethod
    def fitted(cls, rewards: Tensor) -> ScoreScale:
        """The scale on which these rewards (scorer, reply) have mean 0 and deviation 1."""
        deviation = rewards.std(1, unbiased=False)
        kept = [float(value) if value > LEAST_SPREAD else 1.0 for value in deviation]
        return cls(rewards.mean(1).tolist(), kept)

    def applied(self, rewards: Tensor, combination: Combination, variance_penalty: float, clip: float) -> Tensor:
        """One score per reply of the rewards (scorer, reply), cut at ``clip`` deviations."""
        mean, deviation = rewards.new_tensor(self.mean), rewards.new_tensor(self.deviation)
        scores = (rewards - mean[:, None]) / deviation[:, None]
        return combine_scores(scores, combination, variance_penalty).clamp(-clip, clip)


def read_reward(backbone: Backbone, adapters: PeftAdapters, role: str, directory: Path, base: str) -> RewardRoles:
    """A reward checkpoint as a role: adapter and head, refused unless base, files, head and probe match.

    An ensemble becomes a role for each of its members, and all of them are given back.
    """
    from safetensors.torch import load_file

    manifest = check_checkpoint(directory, "reward", base)
    (head,) = manifest.heads
    unread = None if manifest.reads_end else backbone.tokenizer.pad_token_id
    rewards = RewardRoles(backbone, [])
    for number in range(1, manifest.members + 1):
        own = role if number == 1 else f"{role}_{member_name(number)}"
        place = directory if number == 1 else directory / member_name(number)
        adapters.read(own, place)
        weights = load_file(place / ADAPTER_FILE)
        weight = next(value for name, value in weights.items() if name.endswith(f"{head}.weight"))
        backbone.add_head(own, weight, pooling=manifest.pooling)
        name = manifest.name if manifest.members == 1 else f"{manifest.name} {number}"
        rewards.models.append(RewardRole(own, name, unread))
    rows = [prompt + reply for prompt, reply in probe_exchanges(manifest.probe, backbone.tokenizer, directory, base)]
    found = rewards.score_rows(rows).mean(0).tolist()
    if not manifest.probe.agrees_with(found, str(backbone.model.dtype).removeprefix("torch.")):
        raise CheckpointError(
            f"The reward checkpoint {directory} does not score as it did when it was saved: {listed(found)} instead of "
            f"{listed(manifest.probe.values)}. It is not used; train it again."
        )
    return rewards


def _without_last(ids: list[int], unread: int | None) -> list[int]:
    """Token ids without those at their end that are ``unread``; at least one is left."""
    length = len(ids)
    while length > 1 and ids[length - 1] == unread:
        length -= 1
    return ids[:length]


def _refuse_nonsense(scores: Tensor, names: Sequence[str], exchanges: Sequence[tuple[Messages, str]]) -> None:
    for number, place in (~scores.isfinite()).nonzero().tolist():
        raise RunFailed(
            f"The reward checkpoint {names[number]!r} gave {scores[number, place].item()} for the reply "
            f"{exchanges[place][1][:80]!r}. Train it again with a lower learning_rate."
        )
