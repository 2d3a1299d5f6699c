"""The canary: held-out prompts that the policy replies to at regular intervals while it trains.

A policy that exploits a flaw of its reward model scores ever higher in training while a scorer that was never trained
against sees no gain, or a loss. The snapshots also decide what a run keeps: the policy with the highest held-out score
less the cost of its KL from the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from training.models.kl import kl_k1
from training.ppo.backbone import REFERENCE, Backbone
from training.ppo.batch import make_batch
from training.ppo.reward_roles import ScoreScale
from training.ppo.rollouts import PoolPrompt, draw_replies, penalties, reply_seed
from training.rewards.functions import no_repetition
from training.rewards.scorers import Scorer

if TYPE_CHECKING:
    from training.settings.ppo import PpoSettings

ALARM_AFTER = 3  # consecutive snapshots
FIXED_ITERATION = -1  # every snapshot draws from the same seeds, so that only the policy differs


@dataclass(frozen=True)
class Snapshot:
    """Figures of the policy on the held-out prompts at one iteration, with the training score at that time.

    ``train_score`` and ``score`` are in standard deviations of the parent's replies; ``kl`` in nats per reply;
    ``end_rate`` and ``repetition`` (repeated runs of three words) are shares; ``tokens`` per reply.
    """

    iteration: int
    train_score: float | None
    score: float
    kl: float
    end_rate: float
    tokens: float
    repetition: float

    def figures(self) -> dict[str, float]:
        """Return the snapshot as metric points."""
        names = ("score", "kl", "end_rate", "tokens", "repetition")
        return {f"canary_{name}": float(getattr(self, name)) for name in names}

    def to_state(self) -> dict[str, Any]:
        """Return the snapshot as saved states and results hold it, where the training score is called ``proxy``."""
        return {"proxy" if name == "train_score" else name: value for name, value in asdict(self).items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Snapshot:
        """Return the snapshot that ``to_state`` described."""
        return cls(**{"train_score" if name == "proxy" else name: value for name, value in state.items()})


class Canary:
    """The held-out prompts, their scorer, and the snapshots taken so far."""

    def __init__(self, prompts: Sequence[PoolPrompt], scorer: Scorer, settings: PpoSettings) -> None:
        self.prompts = prompts
        self.scorer = scorer
        self.settings = settings
        self.snapshots: list[Snapshot] = []
        self.scale: ScoreScale | None = None

    def due(self, iteration: int, last: bool = False) -> bool:
        """Return whether to take a snapshot: every ``canary_every`` iterations and at the end, never twice at one."""
        if not self.prompts or (self.snapshots and self.snapshots[-1].iteration == iteration):
            return False
        return last or iteration % self.settings.canary_every == 0

    def take_snapshot(
        self,
        backbone: Backbone,
        iteration: int,
        train_score: float | None,
        ends: Sequence[int],
        check: Callable[[], None],
    ) -> Snapshot:
        """Reply to the held-out prompts with the current policy, and add its figures to ``snapshots``."""
        seeds = [reply_seed(self.settings.seed, FIXED_ITERATION, place) for place in range(len(self.prompts))]
        drawn = draw_replies(backbone, "policy", self.prompts, seeds, self.settings, ends, check)
        said = [backbone.reader.read(one) for one in drawn]
        texts = [one.text for one in said]
        judged = self.scorer.scores([(p.messages, text) for p, text in zip(self.prompts, texts, strict=True)])
        self.scale = self.scale or ScoreScale.fitted(judged)
        settings, size = self.settings, len(texts)
        scores = self.scale.applied(judged, settings.combine, settings.doubt, settings.score_clip)
        finished = [one.ended and not reply.unfinished for one, reply in zip(drawn, said, strict=True)]
        scores = scores - penalties([one.tokens for one in said], finished, settings)
        kl = sum(
            self._kl(backbone, drawn[start : start + 32], self.prompts[start : start + 32])
            for start in range(0, size, 32)
        )
        snapshot = Snapshot(
            iteration,
            train_score,
            float(scores.mean()),
            kl / size,
            sum(one.ended for one in drawn) / size,
            sum(len(one.tokens) for one in drawn) / size,
            -sum(no_repetition("", text) for text in texts) / size,
        )
        self.snapshots.append(snapshot)
        return snapshot

    def worth(self, snapshot: Snapshot) -> float:
        """Return what the best policy is chosen by: the held-out score less β times the KL."""
        return snapshot.score - self.settings.beta * snapshot.kl

    def alarmed(self) -> bool:
        """Return whether the training score rose and the held-out score fell in three consecutive snapshots."""
        recent = [snapshot for snapshot in self.snapshots if snapshot.train_score is not None][-ALARM_AFTER - 1 :]
        steps = list(pairwise(recent))
        return len(steps) == ALARM_AFTER and all(
            (after.train_score or 0.0) > (before.train_score or 0.0) and after.score < before.score
            for before, after in steps
        )

    def to_state(self) -> dict[str, Any]:
        """Return snapshots and scale as plain values."""
        looks = [snapshot.to_state() for snapshot in self.snapshots]
        return {"looks": looks, "scale": asdict(self.scale) if self.scale else None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from the snapshots of an earlier attempt."""
        self.snapshots = [Snapshot.from_state(look) for look in state["looks"]]
        self.scale = ScoreScale(**state["scale"]) if state["scale"] else None

    def _kl(self, backbone: Backbone, drawn: Sequence[Any], prompts: Sequence[PoolPrompt]) -> float:
        batch = make_batch([p.tokens for p in prompts], [one.tokens for one in drawn], 0, backbone.device)
        with backbone.role("policy") as policy:
            log_probs, _ = policy.log_probs(batch, self.settings.temperature)
        with backbone.role(REFERENCE) as reference:
            ref_log_probs, _ = reference.log_probs(batch, self.settings.temperature)
        return float((kl_k1(log_probs, ref_log_probs) * batch.mask).sum())
