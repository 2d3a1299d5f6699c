"""The PPO update: epochs of minibatches over one rollout, with clipping and a KL penalty."""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from feedback.errors import RunFailed
from training.checkpoints.resume_state import read_state, write_state
from training.models.kl import kl_k1
from training.models.loading import parameter_count
from training.ppo import objectives
from training.ppo.backbone import Backbone, Role
from training.ppo.batch import ReplyBatch
from training.ppo.best_policy import BestPolicy
from training.ppo.canary import Canary
from training.ppo.metrics import Step, group_figures, policy_figures, rollout_figures, value_figures
from training.ppo.reward_roles import ScoreScale
from training.ppo.rollouts import PromptPool, Rollout, batches, measure, part_of, penalties, roll_out
from training.reporting.reporter import DryRunDone, Reporter
from training.rewards.scorers import Scorer
from training.settings.ppo import PpoSettings
from training.speedups.frozen_layers import HiddenStateCache

if TYPE_CHECKING:
    from torch import Tensor


STATE_FILE = "state.pt"
ADAM_EPSILON = 1e-5  # Huang et al. 2024: the usual 1e-8 makes the first steps of a new adapter wild
OnRollout = Callable[[Rollout], None]
Loss = TypeVar("Loss", objectives.PolicyLoss, objectives.ValueLoss)
RoleLoss = Callable[[Role, list[int], ReplyBatch], Loss]


class Learner:
    """The PPO loop and its state; everything else follows from seed and iteration."""

    def __init__(
        self,
        backbone: Backbone,
        scorer: Scorer,
        pool: PromptPool,
        canary: Canary,
        settings: PpoSettings,
        reporter: Reporter,
        directory: Path,
        *,
        ends: Sequence[int],
        on_rollout: OnRollout = lambda rollout: None,
    ) -> None:
        self.backbone, self.scorer, self.pool, self.canary = backbone, scorer, pool, canary
        self.settings, self.reporter, self.directory = settings, reporter, directory
        self.ends, self.on_rollout = ends, on_rollout
        size = parameter_count(backbone.model)
        self.micro_batch = settings.micro_batch_for(size)
        self.rates = {"policy": settings.rate_for(size)}
        if settings.baseline == "value":
            self.rates["value"] = settings.value_rate_for(size)
        self.optimizers = {role: self._optimizer(role, rate) for role, rate in self.rates.items()}
        self.iteration = 0
        self.beta = settings.beta
        self.scale: ScoreScale | None = None
        self.open: Rollout | None = None  # drawn and scored, not yet trained on
        self.best = BestPolicy(backbone, canary, settings)
        self.train_score: float | None = None
        self.ending = ""
        self._hidden_states: dict[str, HiddenStateCache] = {}

    def learn(self) -> dict[str, Any]:
        """Train until all iterations are done or there is a reason to stop; leave the best policy in its role."""
        if self.reporter.watch.dry_run:
            self.try_out()
        self.resume()
        self.take_snapshot()
        while self.iteration < self.settings.iterations and not self.ending:
            began = time.monotonic()
            rollout = self.open or self.draw()
            if self.is_spent(rollout):
                self.take_snapshot()
                self.save()
                break
            advantages, returns = self.advantages(rollout)
            drawn = time.monotonic()
            step = self.optimize(rollout, advantages, returns)
            self.adapt(rollout)
            self.log(rollout, returns, step, drawn - began, time.monotonic() - drawn)
            self.iteration, self.open = self.iteration + 1, None
            self.take_snapshot()
            self.save()
        return self.finish()

    def try_out(self) -> NoReturn:
        """Run one iteration that saves nothing; raise ``DryRunDone`` with the estimate for a whole run."""
        from training.trainer.running import peak_memory_mb

        self.on_rollout, began = lambda rollout: None, time.monotonic()
        rollout = self.draw()
        self.optimize(rollout, *self.advantages(rollout))
        seconds = time.monotonic() - began
        found = {"seconds_per_step": round(seconds, 3), "seconds_in_all": round(seconds * self.settings.iterations)}
        reward = round(float(rollout.judged.mean()), 3)  # the score is 0 here: it is measured by these very replies
        memory = peak_memory_mb(self.backbone.device.type)
        raise DryRunDone(self.reporter.told | {"dry_run": True, **found, "peak_memory_mb": memory, "reward": reward})

    def draw(self) -> Rollout:
        """Draw an iteration's replies, score them, and compute log-probabilities and values of their tokens."""
        self.reporter.check()
        done = self.iteration / self.settings.iterations
        self.reporter.report(done, f"iteration {self.iteration + 1} of {self.settings.iterations}: drawing replies")
        rollout = roll_out(
            self.backbone, self.pool, self.scorer, self.settings, self.iteration, self.ends, self.reporter.check
        )
        if self.scale is None:
            self.set_scale(rollout)
        rollout.scores = self.scored(rollout)
        self.reporter.report(done, f"iteration {self.iteration + 1} of {self.settings.iterations}: scoring replies")
        self.measure(rollout)
        self.on_rollout(rollout)
        self.open = rollout
        self.save()
        return rollout

    def measure(self, rollout: Rollout) -> None:
        """Fill in log-probabilities, entropies and values, and cache the hidden states of the frozen layers."""
        self._hidden_states = measure(self.backbone, self.pool, rollout, self.settings, self.micro_batch)

    def set_scale(self, rollout: Rollout) -> None:
        """Fit the score scale on the parent's replies, once, and rescale the value head to it."""
        import torch

        self.scale = ScoreScale.fitted(rollout.judged)
        head = self.backbone.heads.get("value")
        if head is not None and head.weight.any():  # one that begins at zero says the mean of every scale already
            with torch.no_grad():
                head.weight.div_(self.scale.deviation[0])
                head.bias.sub_(self.scale.mean[0]).div_(self.scale.deviation[0])

    def scored(self, rollout: Rollout) -> Tensor:
        """Return scores (reply,): the scorer's on the parent's scale, less the penalty for a missing end or body."""
        settings = self.settings
        assert self.scale is not None
        scores = self.scale.applied(rollout.judged, settings.combine, settings.doubt, settings.score_clip)
        return scores - penalties(rollout.lengths, rollout.finished, settings)

    def is_spent(self, rollout: Rollout) -> bool:
        """Return whether the policy that drew these replies exceeds the KL budget, which ends the run."""
        settings, kl = self.settings, float(rollout.reply_kl.mean())
        self.train_score = float(rollout.scores.mean())
        if kl <= settings.kl_budget:
            self.best.drew(self.iteration)
            return False
        self.ending = (
            f"the policy is {kl:.1f} nats per reply from its parent, and kl_budget is "
            f"{settings.kl_budget:g}; raise beta to hold it closer"
        )
        self.reporter.metrics(self.iteration + 1, **rollout_figures(rollout))
        return True

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return the advantages, whitened over the batch, and the returns: both (reply, token)."""
        settings, mask = self.settings, rollout.mask
        log_ratio = kl_k1(rollout.log_probs, rollout.reference)
        rewards = objectives.token_rewards(rollout.scores, log_ratio, mask, self.beta)
        if settings.baseline == "leave_one_out":
            by_reply = objectives.leave_one_out(rewards.sum(1), settings.per_prompt)
            advantages, returns = by_reply[:, None] * mask, rewards.sum(1, keepdim=True) * mask
        else:
            # While the value trains alone, its target is the full return (λ = 1)
            lam = 1.0 if self.warming else settings.lam
            advantages, returns = objectives.generalized_advantages(rewards, rollout.values, mask, settings.gamma, lam)
        return objectives.whiten(advantages, mask), returns

    @property
    def warming(self) -> bool:
        """Whether the value still trains alone."""
        return self.settings.baseline == "value" and self.iteration < self.settings.value_warmup

    def optimize(self, rollout: Rollout, advantages: Tensor, returns: Tensor) -> Step:
        """Train on the replies in minibatches: forward, backward and optimizer step of each role in its own context."""
        settings, step = self.settings, Step(defaultdict(float))
        self._set_rates()
        for epoch in range(settings.epochs):
            rows = list(range(len(rollout.replies)))
            random.Random(f"{settings.seed}:{self.iteration}:{epoch}").shuffle(rows)
            for start in range(0, len(rows), settings.batch_size):
                self.reporter.check()
                part = rows[start : start + settings.batch_size]
                tokens = int(rollout.mask[part].sum())
                kl_before = step.sums["kl_sum"]
                if not self.warming:
                    self._policy_step(rollout, advantages, part, tokens, step)
                if settings.baseline == "value":
                    self._value_step(rollout, returns, part, tokens, step)
                step.tokens += tokens
                step.minibatches += 1
                if (step.sums["kl_sum"] - kl_before) / tokens > settings.divergence_stop:
                    return step
        return step

    def _policy_step(self, rollout: Rollout, advantages: Tensor, rows: list[int], tokens: int, step: Step) -> None:
        settings, cache = self.settings, self._hidden_states["policy"]
        clip_high = settings.clip_high or settings.clip

        def loss(policy: Role, places: list[int], batch: ReplyBatch) -> objectives.PolicyLoss:
            log_probs, _ = policy.log_probs(batch, settings.temperature, places, cache)
            old_log_probs, own = part_of(rollout.log_probs, places, batch), part_of(advantages, places, batch)
            return objectives.policy_loss(log_probs, old_log_probs, own, batch.mask, tokens, settings.clip, clip_high)

        for found in self._descend("policy", loss, rollout, rows, step):
            step.sums["policy_loss"] += float(found.loss) * tokens
            step.sums["clip_count"] += float(found.clip_count)
            step.sums["kl_sum"] += float(found.kl_sum)

    def _value_step(self, rollout: Rollout, returns: Tensor, rows: list[int], tokens: int, step: Step) -> None:
        clip, cache = None if self.warming else self.settings.value_clip, self._hidden_states["value"]

        def loss(value: Role, places: list[int], batch: ReplyBatch) -> objectives.ValueLoss:
            values, old_values = value.values(batch, places, cache), part_of(rollout.values, places, batch)
            return objectives.value_loss(values, old_values, part_of(returns, places, batch), batch.mask, tokens, clip)

        for found in self._descend("value", loss, rollout, rows, step):
            step.sums["value_loss"] += float(found.loss) * tokens
            step.sums["value_clip_count"] += float(found.clip_count)

    def _descend(self, role: str, loss: RoleLoss[Loss], rollout: Rollout, rows: list[int], step: Step) -> list[Loss]:
        """Take one optimizer step of a role on some replies; gradients of the micro-batches add up in a fixed order."""
        import torch

        own = list(self.backbone.trainable_parameters(role).values())
        with self.backbone.role(role, training=True) as actor:

            def work(part: tuple[list[int], ReplyBatch]) -> tuple[Loss, Sequence[Tensor | None]]:
                found = loss(actor, *part)
                self._check_finite(f"{role} loss", float(found.loss), role)
                return found, torch.autograd.grad(found.loss, own, allow_unused=True)

            parts = batches(self.backbone, self.pool, rollout, self.micro_batch, rows)
            found: list[Loss] = []
            for one, gradients in self.backbone.core_pool.each(work, parts):
                found.append(one._replace(loss=one.loss.detach()))
                _add_to(own, gradients)
        step.sums[f"{role}_norm"] += self._take_step(role)
        return found

    def _check_finite(self, what: str, number: float, role: str) -> None:
        if not math.isfinite(number):
            setting = "learning_rate" if role == "policy" else "value_learning_rate"
            raise RunFailed(
                f"The {what} in iteration {self.iteration + 1} is {number}: the training diverged. "
                f"Lower {setting} (it was {self.rates[role]:g})."
            )

    def _take_step(self, role: str) -> float:
        """Clip the role's gradient, step, and return its norm; RunFailed before the step if it is not finite."""
        from torch.nn.utils import clip_grad_norm_

        own = list(self.backbone.trainable_parameters(role).values())
        # A few may have none: models exist that read the weight of a projection without calling it
        if all(value.grad is None for value in own):
            raise RunFailed(
                f"The adapter of the {role} got no gradient, so nothing would be learnt; please report this."
            )
        norm = float(clip_grad_norm_(own, self.settings.clip_norm))
        self._check_finite(f"{role} gradient", norm, role)
        self.optimizers[role].step()
        self.optimizers[role].zero_grad(set_to_none=True)
        return norm

    def _optimizer(self, role: str, rate: float) -> Any:
        from torch.optim import AdamW

        return AdamW(
            self.backbone.trainable_parameters(role).values(), lr=rate, eps=ADAM_EPSILON, weight_decay=0.0, fused=True
        )

    def _set_rates(self) -> None:
        factor = lr_multiplier(self.settings, self.iteration)
        for role, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[role] * factor

    def adapt(self, rollout: Rollout) -> None:
        """Adapt the KL coefficient β towards ``kl_target``, if there is one."""
        settings, kl = self.settings, float(rollout.reply_kl.mean())
        if settings.kl_target is not None and not self.warming:
            self.beta = objectives.adapted_beta(
                self.beta, kl, settings.kl_target, len(rollout.replies), settings.kl_horizon
            )

    def log(self, rollout: Rollout, returns: Tensor, step: Step, drawing: float, learning: float) -> None:
        """Report one metric point per curve, and the progress line."""
        values = rollout_figures(rollout)
        learning_rate = self.rates["policy"] * lr_multiplier(self.settings, self.iteration)
        values |= {"beta": self.beta, "learning_rate": learning_rate}
        values |= {"drawing_seconds": drawing, "learning_seconds": learning}
        if not self.warming:
            values |= policy_figures(step)
        if self.settings.baseline == "value":
            values |= value_figures(step, rollout, returns)
        else:
            values |= group_figures(rollout, self.settings.per_prompt)
        self.reporter.metrics(self.iteration + 1, **values)
        self.reporter.report(
            (self.iteration + 1) / self.settings.iterations,
            f"iteration {self.iteration + 1} of {self.settings.iterations}: score {values['score']:.2f}, "
            f"{values['kl']:.1f} nats",
        )

    def take_snapshot(self) -> None:
        """Take a snapshot of the canary when one is due; keep the best policy, and raise the alarm."""
        last = bool(self.ending) or self.iteration >= self.settings.iterations
        if not self.canary.due(self.iteration, last):
            return
        snapshot = self.canary.take_snapshot(
            self.backbone, self.iteration, self.train_score, self.ends, self.reporter.check
        )
        self.reporter.metrics(self.iteration, **snapshot.figures())
        self.best.seen(snapshot)
        if self.canary.alarmed():
            self.reporter.log(
                "ALARM: the training score rises while the held-out score falls, three looks in a row: the policy "
                "games its reward. Raise beta, or judge replies of this run and train the reward model again."
            )
            if self.settings.stop_on_alarm:
                self.ending = self.ending or "the held-out score falls while the training score rises"

    def finish(self) -> dict[str, Any]:
        """Load the best policy into its role, and return the figures of the run."""
        if self.ending:
            self.reporter.log(f"stopped after iteration {self.iteration}: {self.ending}")
        figures: dict[str, Any] = {"iterations": self.iteration, "beta": self.beta}
        if self.ending:
            figures["stopped"] = self.ending
        # Without snapshots the last weights are as good as any, unless they exceeded the KL budget
        if self.canary.snapshots or self.ending:
            figures |= self.best.put_back(self.reporter.log)
        return figures

    def save(self) -> None:
        """Write the state of the run, atomically, every ``save_every`` iterations."""
        if self.iteration % self.settings.save_every:
            return
        state = {
            "iteration": self.iteration,
            "beta": self.beta,
            "scale": asdict(self.scale) if self.scale else None,
            "best": self.best.to_state(),
            "proxy": self.train_score,
            "ending": self.ending,
            "canary": self.canary.to_state(),
            "roles": {role: self.backbone.state_of(role) for role in self.rates},
            "optimizers": {role: optimizer.state_dict() for role, optimizer in self.optimizers.items()},
            "open": self.open.to_state() if self.open is not None else None,
        }
        write_state(self.directory / STATE_FILE, state)

    def resume(self) -> None:
        """Load the state of an earlier attempt, if there is one."""
        state = read_state(self.directory / STATE_FILE, self.reporter.log)
        if state is None:
            return
        self.iteration, self.beta = state["iteration"], state["beta"]
        self.train_score, self.ending = state["proxy"], state["ending"]
        self.best.load_state(state["best"])
        self.scale = ScoreScale(**state["scale"]) if state["scale"] else None
        self.canary.load_state(state["canary"])
        for role, weights in state["roles"].items():
            self.backbone.load_state(role, weights)
            self.optimizers[role].load_state_dict(state["optimizers"][role])
        self.open = Rollout.from_state(state["open"]) if state["open"] else None
        if self.open is not None:
            self.measure(self.open)  # the same figures again, and with them the hidden states of the frozen layers
        self.reporter.log(f"going on from iteration {self.iteration + 1}" + (", replies drawn" if self.open else ""))


def _add_to(weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to ``weight.grad``, so that one micro-batch's can be freed before the next one's."""
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)


def lr_multiplier(settings: PpoSettings, iteration: int) -> float:
    """Return the factor of the learning rate in an iteration: linear warm-up, then the schedule."""
    rising = settings.warmup * settings.iterations
    if iteration < rising:
        return (iteration + 1) / (rising + 1)
    done = (iteration - rising) / max(1.0, settings.iterations - rising)
    if settings.schedule == "constant":
        return 1.0
    return 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
