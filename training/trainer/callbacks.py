"""What is done at every step of a TRL trainer: points, pace, the watch for a training that diverges, sample replies.

The watch looks at the gradients before the optimizer does: a step that would spoil the weights is never taken, so
what is in memory then are the last good weights.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from feedback.errors import RunFailed
from feedback.types import SamplingSettings
from training.reporting.pace import Pace, spelled
from training.reporting.reporter import Reporter

LATEST = 5  # metric points that a run's closing figures are the mean of
SPIKE = 20.0  # times the usual gradient norm; worth a line in the log
USUAL = 20  # steps by which the usual gradient norm is known
SAMPLE_TOKENS = 64


class Diverged(RunFailed):
    """The training diverged: loss or gradient is not a number. The weights in memory are still good."""


def step_callback(reporter: Reporter, names: Mapping[str, str], final: dict[str, float]) -> Any:
    """A callback that hands each log's values on under our names, reports progress and pace, and obeys a cancel.

    ``final`` is kept at the mean of the last few values, since one batch says little. A loss or a gradient that is
    not a number ends the run at once with ``Diverged``.
    """
    from transformers import TrainerCallback

    latest: dict[str, deque[float]] = {}
    norms: deque[float] = deque(maxlen=USUAL)
    pace = Pace()

    class StepCallback(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            pace.begin(state.global_step)
            reporter.check()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if not gradients_finite(model):
                raise Diverged(_diverged("gradient", "not a number", state.global_step + 1, args.learning_rate))

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            values = {ours: float(logs[theirs]) for theirs, ours in names.items() if theirs in (logs or {})}
            if "loss" not in values:  # the trainer's closing summary, not a step
                return
            if not math.isfinite(values["loss"]):
                raise Diverged(_diverged("loss", str(values["loss"]), state.global_step, args.learning_rate))
            for name, value in values.items():
                latest.setdefault(name, deque(maxlen=LATEST)).append(value)
                final[name] = sum(latest[name]) / len(latest[name])
            _warn_of_spike(reporter, norms, state.global_step, logs.get("grad_norm"))
            speed = pace.tokens_per_second(float(logs.get("num_tokens", 0.0)))
            if speed is not None:
                values["tokens_per_second"] = speed
            reporter.metrics(state.global_step, **values)
            reporter.report(state.global_step / max(1, state.max_steps), _where(state, pace, speed))

    return StepCallback()


def gradients_finite(model: Any) -> bool:
    """Whether every gradient of the model is made of numbers."""
    import torch

    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not gradients:
        return True
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all())


def sample_callback(reporter: Reporter, tokenizer: Any) -> Any | None:
    """A callback that lets the model reply to fixed prompts every so many steps; None where nobody asked for it.

    Replies are the likeliest ones, so that what changes from one look to the next is the model and not the draw.
    """
    watch = reporter.watch
    if not watch.sample_every or not watch.prompts:
        return None
    from transformers import TrainerCallback

    class Samples(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 0:
                self._look(model, 0, args.bf16)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step % watch.sample_every == 0:
                self._look(model, state.global_step, args.bf16)

        def _look(self, model: Any, step: int, bf16: bool) -> None:
            import torch

            from training.generation.sampling import sample
            from training.models.loading import LoadedPolicy

            was_training = model.training
            model.eval()
            try:
                sampling = SamplingSettings(temperature=0.0, max_new_tokens=SAMPLE_TOKENS)
                # Under autocast as while it trains: weights may be in bf16
                with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                    drawn = sample(LoadedPolicy(model, tokenizer, "", folds=False), watch.prompts, 1, sampling)
            finally:
                model.train(was_training)
            said = [(messages[-1]["content"], own[0].text) for messages, own in zip(watch.prompts, drawn, strict=True)]
            reporter.samples(step, said)

    return Samples()


def _diverged(what: str, value: str, step: int, rate: float) -> str:
    return (
        f"The {what} at step {step} is {value}: the training diverged. "
        f"Lower learning_rate (it was {rate:g}) and start it again."
    )


def _where(state: Any, pace: Pace, speed: float | None) -> str:
    words = [f"step {state.global_step} of {state.max_steps}"]
    if state.global_step >= state.max_steps:
        return words[0]
    if speed is not None:
        words.append(f"{speed:.0f} tokens/s")
    left = pace.seconds_left(state.global_step, state.max_steps)
    if left is not None:
        words.append(f"{spelled(left)} left")
    return ", ".join(words)


def _warn_of_spike(reporter: Reporter, norms: deque[float], step: int, norm: Any) -> None:
    if norm is None:
        return
    if len(norms) == USUAL and float(norm) > SPIKE * statistics.median(norms):
        reporter.log(
            f"warning: the gradient at step {step} is {float(norm) / statistics.median(norms):.0f} times the usual; "
            "if the loss rises from here on, lower learning_rate"
        )
    norms.append(float(norm))
