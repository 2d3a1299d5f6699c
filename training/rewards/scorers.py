"""Scorers of replies: one reward model, several combined, or a reward function; whoever has replies scored asks these.

Several models score together as their mean, as the lowest of them (worst-case optimization) or as the mean less
``variance_penalty`` times their variance (uncertainty-weighted optimization; Coste et al. 2023, arXiv 2310.02743,
eq. 5-6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from feedback.errors import InvalidInput, UnknownSetting
from training.models.chat import Messages
from training.models.ensemble import members_of
from training.models.loading import LoadedReward
from training.rewards.functions import get_reward_function
from training.settings.train import Combination

if TYPE_CHECKING:
    from torch import Tensor

    from feedback.database.engine import Database
    from training.home import Home


class Scorer(Protocol):
    """Whatever scores replies; higher is better.

    These are ``RewardModels``, ``RewardFunction``, and PPO's ``RewardRoles``: reward models on the base that it trains.
    """

    def scores(self, exchanges: Sequence[tuple[Messages, str]]) -> Tensor:
        """What each model or function gives each (messages, reply): (scorer, reply), fp32."""
        ...

    def score_all(self, exchanges: Sequence[tuple[Messages, str]]) -> list[float]:
        """One score for each (messages, reply), that of several models combined."""
        ...


@dataclass
class RewardModels:
    """Reward models that score together, each member of an ensemble as one of them."""

    models: Sequence[LoadedReward]
    combination: Combination = "mean"
    variance_penalty: float = 0.5

    def score_all(self, exchanges: Sequence[tuple[Messages, str]]) -> list[float]:
        """The combined score of each (messages, reply)."""
        return combined(self.scores(exchanges), self.combination, self.variance_penalty)

    def scores(self, exchanges: Sequence[tuple[Messages, str]]) -> Tensor:
        """What each model gives each (messages, reply): (model, reply), fp32."""
        import torch

        from training.models.scoring import reward_scores

        members = [member for model in self.models for member in members_of(model)]
        found = [reward_scores(member, exchanges) for member in members]
        return torch.tensor(found, dtype=torch.float32).view(len(members), len(exchanges))


def combined(scores: Tensor, combination: Combination, variance_penalty: float) -> list[float]:
    """One score per reply of the scores (model, reply) that several models give, combined in double precision."""
    if not scores.numel():
        return []
    return combine_scores(scores.double(), combination, variance_penalty).tolist()  # type: ignore[no-any-return]


def combine_scores(scores: Tensor, combination: Combination, variance_penalty: float = 0.5) -> Tensor:
    """Combine the scores (model, reply) that several models give into one score per reply (reply,).

    ``uncertain`` subtracts ``variance_penalty`` times the biased variance over the models (Coste et al. 2023, UWO).
    """
    if combination == "worst":
        return scores.min(0).values
    mean = scores.mean(0)
    return mean if combination == "mean" else mean - variance_penalty * scores.var(0, unbiased=False)


def checkpoint_keys(reward: str) -> list[str]:
    """The names or ids in a list separated by commas; InvalidInput for an empty one or a repetition."""
    keys = [key.strip() for key in reward.split(",")]
    if not all(keys) or len(set(keys)) != len(keys):
        raise InvalidInput(f"reward names reward checkpoints separated by commas, each once, not {reward!r}.")
    return keys


def open_scorer(
    db: Database,
    home: Home,
    reward: str | None,
    reward_function: str | None,
    combination: Combination = "mean",
    variance_penalty: float = 0.5,
    device: str | None = None,
) -> Scorer:
    """The scorer that settings name: reward checkpoints separated by commas, or a reward function."""
    from training.checkpoints.opening import open_reward

    if reward_function is not None:
        return get_reward_function(reward_function)
    if reward is None:
        raise InvalidInput("Give either reward (a checkpoint) or reward_function.")
    models = [open_reward(db, home, key, device) for key in checkpoint_keys(reward)]
    return RewardModels(models, combination, variance_penalty)


def open_picker(db: Database, home: Home, picker: str, device: str | None = None) -> Scorer:
    """The scorer a picker names: a reward function by its rule, else reward checkpoints separated by commas."""
    try:
        return get_reward_function(picker)
    except UnknownSetting:
        if ":" in picker:
            raise
    return open_scorer(db, home, picker, None, device=device)
