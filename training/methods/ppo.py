"""Proximal policy optimisation: the policy replies, is scored, and moves towards what scored higher.

One frozen base carries every role (``training.ppo.backbone``): the policy and the value learn, each with an adapter and
an optimizer of its own; reward models judge; the reference is the parent. One iteration, in order: draw replies, score
them, work out how much better than expected each token was, go over them a few times in small steps that may not move
far, adapt what holding to the parent costs, log, look at the prompts kept apart, and save a state to resume from. With
``baseline=leave_one_out`` there is no value: a reply is measured by the others to its prompt.

Departures from the paper that matter: the divergence from the parent is taken off the reward token by token, scores
are scaled once by the parent's own replies, and the value begins as the reward model and learns alone at first,
because a reward model was only ever asked at the end of a reply.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from training.reporting.reporter import RunContext

if TYPE_CHECKING:
    from training.ppo.setup import Ready
from training.ppo.learner import Learner


def run(context: RunContext) -> dict[str, Any]:
    """Train a policy on scores of its own replies; the result names the new checkpoint and policy."""
    from training.ppo.setup import prepare, publish

    ready = prepare(context)
    figures = learner_of(context, ready).learn()
    result = publish(context, ready, figures)
    shutil.rmtree(context.run_dir / "trainer", ignore_errors=True)  # nothing is left to resume
    return result


def learner_of(context: RunContext, ready: Ready) -> Learner:
    """The learner of a run for which all is loaded."""
    return Learner(
        ready.backbone,
        ready.scorer,
        ready.pool,
        ready.canary,
        context.settings,
        context.progress,
        context.run_dir / "trainer",
        ends=ready.ends,
        on_rollout=ready.keep,
    )
