"""The canary: the same few prompts, kept apart from learning, replied to again and again while a policy learns.

A policy that has found a hole in its reward model earns more and more in training while a judge that never trained
it sees no gain, or a loss. The looks also choose what a run keeps: the policy whose held-out score, less the cost of
its distance from the reference, was the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from training.ppo.backbone import REFERENCE, Backbone
from training.ppo.batch import make_batch
from training.ppo.reward_roles import Judges, ScoreScale
from training.ppo.rollouts import PoolPrompt, draw_replies, penalties, reply_seed, text_of
from training.rewards.functions import no_repetition

if TYPE_CHECKING:
    from training.settings.ppo import PpoSettings

ALARM_AFTER = 3  # looks in a row
FIXED_ITERATION = -1  # the looks draw from the same seeds every time, so that what differs is the policy


@dataclass(frozen=True)
class Look:
    """One look: the training score at that time, and what the policy does on the prompts kept apart.

    ``score`` is in deviations of the parent's replies; ``kl`` in nats per reply; ``repetition`` the share of
    repeated runs of three words.
    """

    iteration: int
    proxy: float | None
    score: float
    kl: float
    end_rate: float
    tokens: float
    repetition: float

    def figures(self) -> dict[str, float]:
        """The look as metric points."""
        kept = ("score", "kl", "end_rate", "tokens", "repetition")
        return {f"canary_{name}": float(getattr(self, name)) for name in kept}


class Canary:
    """Prompts kept apart, their judges, and the looks taken so far."""

    def __init__(self, prompts: Sequence[PoolPrompt], judges: Judges, settings: PpoSettings) -> None:
        self.prompts = prompts
        self.judges = judges
        self.settings = settings
        self.looks: list[Look] = []
        self.scale: ScoreScale | None = None

    def due(self, iteration: int, last: bool = False) -> bool:
        """Whether to look now: at the start, every so many iterations, and at the end; never twice at one place."""
        if not self.prompts or (self.looks and self.looks[-1].iteration == iteration):
            return False
        return last or iteration % self.settings.canary_every == 0

    def look(
        self, backbone: Backbone, iteration: int, proxy: float | None, ends: Sequence[int], check: Callable[[], None]
    ) -> Look:
        """Reply to the prompts as the policy is now, and remember what came of it."""
        seeds = [reply_seed(self.settings.seed, FIXED_ITERATION, place) for place in range(len(self.prompts))]
        drawn = draw_replies(backbone, "policy", self.prompts, seeds, self.settings, ends, check)
        texts = [text_of(backbone.tokenizer, one) for one in drawn]
        judged = self.judges.scores([(p.messages, text) for p, text in zip(self.prompts, texts, strict=True)])
        self.scale = self.scale or ScoreScale.fitted(judged)
        settings, size = self.settings, len(texts)
        scores = self.scale.applied(judged, settings.combine, settings.doubt, settings.score_clip)
        scores = scores - penalties([one.tokens for one in drawn], [one.ended for one in drawn], settings)
        kl = sum(
            self._distance(backbone, drawn[start : start + 32], self.prompts[start : start + 32])
            for start in range(0, size, 32)
        )
        look = Look(
            iteration,
            proxy,
            float(scores.mean()),
            kl / size,
            sum(one.ended for one in drawn) / size,
            sum(len(one.tokens) for one in drawn) / size,
            -sum(no_repetition("", text) for text in texts) / size,
        )
        self.looks.append(look)
        return look

    def worth(self, look: Look) -> float:
        """What a policy is kept by: its held-out score less what its distance costs."""
        return look.score - self.settings.beta * look.kl

    def alarmed(self) -> bool:
        """Whether the training score rose and the held-out score fell, look after look, three times in a row."""
        recent = [look for look in self.looks if look.proxy is not None][-ALARM_AFTER - 1 :]
        steps = list(pairwise(recent))
        return len(steps) == ALARM_AFTER and all(
            (after.proxy or 0.0) > (before.proxy or 0.0) and after.score < before.score for before, after in steps
        )

    def to_state(self) -> dict[str, Any]:
        """Looks and scale as plain values."""
        return {"looks": [asdict(look) for look in self.looks], "scale": asdict(self.scale) if self.scale else None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from looks taken before."""
        self.looks = [Look(**look) for look in state["looks"]]
        self.scale = ScoreScale(**state["scale"]) if state["scale"] else None

    def _distance(self, backbone: Backbone, drawn: Sequence[Any], prompts: Sequence[PoolPrompt]) -> float:
        batch = make_batch([p.tokens for p in prompts], [one.tokens for one in drawn], 0, backbone.device)
        with backbone.role("policy") as policy:
            own, _ = policy.log_probs(batch, self.settings.temperature)
        with backbone.role(REFERENCE) as reference:
            other, _ = reference.log_probs(batch, self.settings.temperature)
        return float(((own - other) * batch.mask).sum())
