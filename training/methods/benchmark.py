"""Benchmarks as a run: a policy takes tasks of lm-evaluation-harness, and its score on every item is kept.

Each task is saved when it is over, and all of a group when the group is, so that a run that was killed goes on with the
next. The harness indexes the thousands of tasks that come with it only where one of them is asked for.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput, NotFound
from feedback.tables import BenchmarkRow
from training.bundled import TASKS_DIR
from training.evaluation.harness_report import from_report
from training.models.loading import LoadedPolicy
from training.reporting.reporter import Reporter, RunContext
from training.settings.benchmark import BenchmarkSettings


def run(context: RunContext) -> dict[str, Any]:
    """Have the policy take each task; the result holds the mean of every metric and the ids of what was kept."""
    from feedback.store.models.policies import get_policy
    from training.checkpoints.opening import open_policy

    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")  # datasets would tell a server of every file that is read
    settings: BenchmarkSettings = context.settings
    policy = get_policy(context.db, str(settings.policy))
    folder = Path(settings.include).expanduser().resolve() if settings.include else TASKS_DIR
    manager = _tasks(settings, folder)
    kept = {row.task: row for row in _kept_before(context, policy.id)}
    model = None
    for place, task in enumerate(settings.tasks):
        if task in kept:
            continue
        model = model or _model(open_policy(context.db, context.home, policy.id), settings, context.progress)
        model.begin(place, task)
        for row in _taken(context, policy.id, model, task, manager, folder):
            kept[row.task] = row
    return {
        "benchmarks": {task: row.id for task, row in kept.items()},
        "tasks": {task: {**row.means, "n": row.n} for task, row in kept.items()},
    }


def _kept_before(context: RunContext, policy_id: str) -> list[BenchmarkRow]:
    """What this run kept before it was interrupted."""
    from feedback.store.models.benchmarks import list_benchmarks

    return [row for row in list_benchmarks(context.db, policy_id=policy_id) if row.run_id == context.run.id]


def _tasks(settings: BenchmarkSettings, folder: Path) -> Any:
    """The harness's index of tasks: those of the folder, and its own where the folder does not have them all."""
    from lm_eval.tasks import TaskManager

    if not folder.is_dir():
        raise InvalidInput(f"include={settings.include!r} is no folder on the machine that runs this.")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    if set(settings.tasks) <= set(manager.all_tasks):
        return manager
    manager = TaskManager(include_path=str(folder))
    unknown = [task for task in settings.tasks if task not in manager.all_tasks]
    if unknown:
        raise NotFound("benchmark task", unknown[0], hint="`lm_eval ls tasks` lists those of the harness.")
    return manager


def _taken(
    context: RunContext, policy_id: str, model: Any, task: str, manager: Any, folder: Path
) -> list[BenchmarkRow]:
    """Take one task, or all tasks of a group, and keep what came of it."""
    from lm_eval import simple_evaluate

    from feedback.store.models.benchmarks import save_benchmark

    settings: BenchmarkSettings = context.settings
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    try:
        with contextlib.chdir(folder):  # a task of one's own names its items by a path beside it
            report = simple_evaluate(
                model=model,
                tasks=[task],
                task_manager=manager,
                limit=settings.limit,
                num_fewshot=settings.num_fewshot,
                apply_chat_template=settings.chat_template,
                fewshot_as_multiturn=settings.chat_template,
                log_samples=True,
                bootstrap_iters=0,
                **dict.fromkeys(seeds, settings.seed),
            )
    except (OSError, ImportError, ValueError) as error:  # what the harness says of a task: no data, no library, unsafe
        context.progress.log(traceback.format_exc())
        raise InvalidInput(f"The task {task} cannot be taken here: {error}") from error
    taken = from_report(report, report["samples"], policy_id, context.run.id)
    for name in taken.left_out:
        context.progress.log(f"{name} has no score of its items, so it is left out.")
    return [save_benchmark(context.db, benchmark, items) for benchmark, items in taken.results]


def _model(policy: LoadedPolicy, settings: BenchmarkSettings, progress: Reporter) -> Any:
    """The policy as the harness knows models; it tells how far it is and heeds a cancel between two batches."""
    from lm_eval.models.huggingface import HFLM

    class Examinee(HFLM):  # type: ignore[misc]
        """The harness imports torch and more, so this class is made where it is needed."""

        def begin(self, place: int, task: str) -> None:
            self.place, self.task, self.answered, self.asked = place, task, 0, 1

        def loglikelihood(self, requests: Any, *given: Any, **named: Any) -> Any:
            self.asked = len(requests)
            return super().loglikelihood(requests, *given, **named)

        def loglikelihood_rolling(self, requests: Any, *given: Any, **named: Any) -> Any:
            self.asked = len(requests)
            return super().loglikelihood_rolling(requests, *given, **named)

        def generate_until(self, requests: Any, *given: Any, **named: Any) -> Any:
            self.asked = len(requests)
            return super().generate_until(requests, *given, **named)

        def _model_call(self, inps: Any, *given: Any, **named: Any) -> Any:
            self._tell(len(inps))
            return super()._model_call(inps, *given, **named)

        def _model_generate(self, context: Any, *given: Any, **named: Any) -> Any:
            self._tell(len(context))
            return super()._model_generate(context, *given, **named)

        def _tell(self, rows: int) -> None:
            progress.check()
            done = min(1.0, self.answered / self.asked)
            fraction = (self.place + done) / len(settings.tasks)
            progress.report(fraction, f"{self.task}: {min(self.answered, self.asked)} of {self.asked} answers")
            self.answered += rows

    return Examinee(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=settings.batch_size)
