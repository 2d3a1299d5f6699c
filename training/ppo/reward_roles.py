"""Who scores a reply while a policy learns: reward models on the shared base, or a reward function.

A reply is judged by its text, as an annotator reads it and as the reward model learnt it, not by the tokens that
happened to be drawn: the same text can be spelt in several ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from feedback.errors import CheckpointError, RunFailed
from training.checkpoints.loading import check_checkpoint
from training.checkpoints.manifest import ADAPTER_FILE
from training.checkpoints.probe import listed, probe_exchanges
from training.models.chat import Messages, encode_exchange, window_of
from training.models.ensemble import member_name
from training.rewards.functions import RewardFunction
from training.rewards.scorers import combine_scores

if TYPE_CHECKING:
    from torch import Tensor

    from training.ppo.backbone import Backbone, Role
    from training.ppo.backbone_adapters import PeftAdapters
    from training.settings.train import Combination


LEAST_SPREAD = 1e-6
SCORING_BATCH = 8  # of like length: a wider batch is mostly padding, and leaves a core's cache


class Judges(Protocol):
    """One or more judges of a reply; higher is better."""

    @property
    def names(self) -> list[str]:
        """What people call them."""
        ...

    def scores(self, exchanges: Sequence[tuple[Messages, str]]) -> Tensor:
        """The score each judge gives each (messages, reply): (judge, reply), fp32; RunFailed for one that is none."""
        ...


@dataclass
class RewardRoles:
    """Reward checkpoints as roles on the shared base: ``role_names`` name their adapters, ``names`` are for people.

    Rows end before the token ``unread`` where they end with it: models of earlier versions were trained to read so.
    """

    backbone: Backbone
    role_names: list[str]
    names: list[str]
    unread: int | None = None

    def scores(self, exchanges: Sequence[tuple[Messages, str]]) -> Tensor:
        """Each reply read to its end by each reward model, whether the policy ended it or not."""
        found = self.score_rows([encode_exchange(self.backbone.tokenizer, m, reply).ids for m, reply in exchanges])
        _refuse_nonsense(found, self.names, exchanges)
        return found

    def score_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The score each reward model gives token rows: (judge, row), fp32; rows beyond the window are truncated."""
        import torch

        window = window_of(self.backbone.model)
        read = [_without_last(list(row)[:window], self.unread) for row in rows]
        order = sorted(range(len(read)), key=lambda i: -len(read[i]))
        found = torch.zeros(len(self.role_names), len(read))
        parts = [order[start : start + SCORING_BATCH] for start in range(0, len(order), SCORING_BATCH)]

        def score(judge: Role, places: Sequence[int]) -> Tensor:
            width = max(len(read[i]) for i in places)
            ids = torch.tensor([read[i] + [0] * (width - len(read[i])) for i in places])
            lengths = torch.tensor([len(read[i]) for i in places])
            return judge.scores(ids.to(self.backbone.device), lengths.to(self.backbone.device)).cpu()

        for number, role in enumerate(self.role_names):
            with self.backbone.role(role) as judge:
                for places, scores in zip(
                    parts, self.backbone.core_pool.map(partial(score, judge), parts), strict=True
                ):
                    found[number, places] = scores
        return found


@dataclass
class FunctionJudge:
    """A reward function as the only judge."""

    function: RewardFunction

    @property
    def names(self) -> list[str]:
        """What it is called."""
        return [self.function.rule]

    def scores(self, exchanges: Sequence[tuple[Messages, str]]) -> Tensor:
        """What the function gives each reply."""
        import torch

        return torch.tensor([self.function.score_all(exchanges)], dtype=torch.float32)


@dataclass
class ScoreScale:
    """What makes a score of a judge's reward: mean and deviation of each on replies of the parent, measured once.

    Measured again and again it would move the target under the policy.
    """

    mean: list[float]
    deviation: list[float]

    @classmethod
    def fitted(cls, rewards: Tensor) -> ScoreScale:
        """The scale on which these rewards (judge, reply) have mean 0 and deviation 1."""
        deviation = rewards.std(1, unbiased=False)
        kept = [float(value) if value > LEAST_SPREAD else 1.0 for value in deviation]
        return cls(rewards.mean(1).tolist(), kept)

    def applied(self, rewards: Tensor, combination: Combination, variance_penalty: float, clip: float) -> Tensor:
        """One score per reply of the judges' rewards (judge, reply), cut at ``clip`` deviations."""
        mean, deviation = rewards.new_tensor(self.mean), rewards.new_tensor(self.deviation)
        scores = (rewards - mean[:, None]) / deviation[:, None]
        return combine_scores(scores, combination, variance_penalty).clamp(-clip, clip)


def read_reward(backbone: Backbone, adapters: PeftAdapters, role: str, directory: Path, base: str) -> RewardRoles:
    """A reward checkpoint as a role: adapter and head, refused unless base, files, head and probe match.

    An ensemble becomes a role for each of its members, and the judges that are given back are all of them.
    """
    from safetensors.torch import load_file

    manifest = check_checkpoint(directory, "reward", base)
    (head,) = manifest.heads
    judges = RewardRoles(backbone, [], [], None if manifest.reads_end else backbone.tokenizer.pad_token_id)
    for number in range(1, manifest.members + 1):
        own = role if number == 1 else f"{role}_{member_name(number)}"
        place = directory if number == 1 else directory / member_name(number)
        adapters.read(own, place)
        weights = load_file(place / ADAPTER_FILE)
        weight = next(value for name, value in weights.items() if name.endswith(f"{head}.weight"))
        backbone.add_head(own, weight, pooling=manifest.pooling)
        judges.role_names.append(own)
        judges.names.append(manifest.name if manifest.members == 1 else f"{manifest.name} {number}")
    rows = [prompt + reply for prompt, reply in probe_exchanges(manifest.probe, backbone.tokenizer, directory, base)]
    found = judges.score_rows(rows).mean(0).tolist()
    if not manifest.probe.agrees_with(found, str(backbone.model.dtype).removeprefix("torch.")):
        raise CheckpointError(
            f"The reward checkpoint {directory} does not score as it did when it was saved: {listed(found)} instead of "
            f"{listed(manifest.probe.values)}. It is not used; train it again."
        )
    return judges


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
