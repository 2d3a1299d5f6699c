"""Background jobs: what can be asked for, and how far each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from feedback.errors import NotAllowed
from feedback.labeling import run_replies
from feedback.store.content import generations as generation_store
from feedback.store.content import prompts as prompt_store
from feedback.store.datasets import datasets as dataset_store
from feedback.store.models import checkpoints as checkpoint_store
from feedback.store.models import policies as policy_store
from feedback.store.models import runs as run_store
from feedback.tables import GenerationRow, MatchupRow, MetricRow, PromptRow, RunRow
from feedback.types import RunState, UserRole
from studio.services.access import Acts, act
from training.methods import METHODS
from training.reporting.files import last_traceback, sample_replies
from training.runs import lifecycle, queue
from training.settings.parsing import Setting, describe, settings_class

CURVES_OFFERED = 500
"""Newest runs among which trainings are looked for whose curves can be compared."""

ROLLOUTS_SHOWN = 12
"""Replies of a run that its page shows."""

_ACTIVE = (RunState.queued, RunState.starting, RunState.running, RunState.stopping)


@dataclass(frozen=True)
class RunsAsked:
    """Which runs to list; what is None is not asked for. ``before`` is the id of a run: those older than it."""

    method: str | None = None
    states: tuple[RunState, ...] | None = None
    name: str | None = None
    before: str | None = None


@dataclass(frozen=True)
class RunsPage:
    """Runs, newest first; ``older`` is the ``before`` of the next page, None on the last. ``total`` counts all."""

    runs: list[RunRow]
    older: str | None
    total: int


class Runs(Acts):
    """Acts on runs."""

    @act(UserRole.researcher)
    def training_methods(self) -> dict[str, str]:
        """The methods that leave a checkpoint, and what each is for."""
        return {name: method.summary for name, method in METHODS.items() if method.kind == "train"}

    @act(UserRole.researcher)
    def needs_dataset(self, method: str) -> bool:
        """Whether a method cannot do without a dataset."""
        return settings_class(method).model_fields["dataset"].is_required()

    @act(UserRole.researcher)
    def describe(self, method: str) -> list[Setting]:
        """A method's settings, for a form."""
        return describe(method)

    @act(UserRole.researcher, audit="run.submit", detail="method")
    def submit_run(
        self,
        method: str,
        config: dict[str, Any],
        *,
        after: str | None = None,
        priority: int = 0,
    ) -> RunRow:
        """Queue a run with exactly this configuration, behind the run ``after`` where one is named."""
        if config.get("include") is not None and not self.person.role.covers(UserRole.admin):
            raise NotAllowed(
                "A task's file is code that runs on this machine, so only an admin may name a folder of them."
            )
        return queue.submit(self.db, method, config, after=after, priority=priority, home=self.home)

    @act(UserRole.researcher)
    def list_runs(self, limit: int = 50) -> list[RunRow]:
        """The newest runs; those whose process died are marked so first."""
        lifecycle.reconcile(self.db)
        return run_store.list_runs(self.db, limit=limit)

    @act(UserRole.researcher)
    def page_of_runs(self, asked: RunsAsked, limit: int = 50) -> RunsPage:
        """Some runs, newest first, and where the older ones begin."""
        lifecycle.reconcile(self.db)
        if asked.method is not None:
            settings_class(asked.method)  # a method that does not exist is a mistake, not an empty list
        rows = run_store.list_runs(
            self.db, states=asked.states, method=asked.method, name=asked.name, before=asked.before, limit=limit + 1
        )
        total = run_store.count_runs(self.db, states=asked.states, method=asked.method, name=asked.name)
        older = rows[limit - 1].id if len(rows) > limit else None
        return RunsPage(rows[:limit], older, total)

    @act(UserRole.researcher)
    def get_run(self, run_id: str) -> RunRow:
        """One run as it is now."""
        lifecycle.reconcile(self.db)
        return run_store.get_run(self.db, run_id)

    @act(UserRole.researcher)
    def get_recorded_run(self, run_id: str) -> RunRow:
        """One run as it was last written, without a look at whether its process lives."""
        return run_store.get_run(self.db, run_id)

    @act(UserRole.researcher)
    def names(self) -> dict[str, str]:
        """The name behind every id that a run's settings may hold."""
        named: list[Any] = [*policy_store.list_policies(self.db), *dataset_store.list_datasets(self.db)]
        named += checkpoint_store.list_checkpoints(self.db)
        return {row.id: row.name for row in named}

    @act(UserRole.researcher)
    def runs_with_curves(self) -> list[RunRow]:
        """The newest trainings that have points to draw; a dry run leaves none."""
        methods = self.training_methods()
        begun = [
            run for run in self.list_runs(CURVES_OFFERED) if run.method in methods and not run.config.get("dry_run")
        ]
        # One that succeeded has points, and looking for them would read them all
        return [run for run in begun if run.state is RunState.succeeded or run_store.list_metrics(self.db, run.id)]

    @act(UserRole.annotator)
    def worker_is_alive(self) -> bool:
        """Whether a worker of this home lives, which is what begins the runs in the queue."""
        return self.home.worker_holder() is not None

    @act(UserRole.researcher)
    def waiting_runs(self) -> list[RunRow]:
        """All runs that have not ended, newest first."""
        lifecycle.reconcile(self.db)
        return run_store.list_runs(self.db, states=_ACTIVE)

    @act(UserRole.researcher)
    def any_run_active(self) -> bool:
        """True while a run is queued or a process works on one."""
        return bool(run_store.list_runs(self.db, states=_ACTIVE, limit=1))

    @act(UserRole.researcher)
    def run_metrics(self, run_id: str) -> list[MetricRow]:
        """Every metric point of a run in the order written."""
        run_store.get_run(self.db, run_id)
        return run_store.list_metrics(self.db, run_id)

    @act(UserRole.researcher)
    def log_tail(self, run_id: str, max_bytes: int = 8_000) -> str:
        """The end of a run's log, from a line's start; empty before the run's process has written any."""
        path = self.home.log_path(run_store.get_run(self.db, run_id).id)
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            text = file.read().decode("utf-8", errors="replace")
        return text if size <= max_bytes else text.partition("\n")[2]

    @act(UserRole.researcher)
    def last_traceback(self, run_id: str) -> str:
        """The last traceback in a run's log; empty when there is none."""
        return last_traceback(self.home, run_id)

    @act(UserRole.researcher)
    def sample_replies(self, run_id: str) -> list[tuple[int, list[tuple[str, str]]]]:
        """What a run's model replied to the fixed prompts, look by look."""
        return sample_replies(self.home, run_id)

    @act(UserRole.researcher, audit="run.cancel", about="run_id")
    def cancel_run(self, run_id: str) -> RunRow:
        """Ask a run to stop at its next step, or take it out of the queue."""
        return queue.cancel(self.db, run_id)

    @act(UserRole.researcher)
    def rollouts(self, run_id: str, limit: int = ROLLOUTS_SHOWN) -> list[tuple[str, GenerationRow]]:
        """The last replies a run drew and scored while it learnt, newest first, each with what was asked."""
        rows = generation_store.list_newest_generations(self.db, run_id, limit)
        rows = [row for row in rows if "score" in row.sampling]
        asked = {row.id: row.messages[-1]["content"] for row in self._prompts_of(rows)}
        return [(asked[row.prompt_id], row) for row in rows]

    def _prompts_of(self, rows: list[GenerationRow]) -> list[PromptRow]:
        return (
            prompt_store.list_prompts(self.db, ids=list({row.prompt_id for row in rows}), retired=None) if rows else []
        )

    @act(UserRole.researcher, audit="run.annotate", about="run_id")
    def annotate_run(self, run_id: str, limit: int = run_replies.USUAL_LIMIT) -> list[MatchupRow]:
        """Put what a run's policy replied while it learnt before the annotators, as pairs."""
        return run_replies.send_to_annotators(self.db, run_id, limit=limit)

    @act(UserRole.researcher, audit="run.resume", about="run_id")
    def resume_run(self, run_id: str) -> RunRow:
        """Queue an interrupted, failed or cancelled run again under the same id, from its last checkpoint."""
        return queue.resume(self.db, self.home, run_id)
