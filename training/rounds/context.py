"""What a stage of a round works with: the records, the runs it asked for, and what it found."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, field
from typing import Any

from feedback.column_types import id_of
from feedback.database.engine import Database
from feedback.errors import Conflict, RunFailed, StudioError
from feedback.round_tables import RecipeRow, RoundRow
from feedback.store.labeling.batches import find_batch
from feedback.store.labeling.matchups import MatchupCounts, count_matchups
from feedback.store.models.policies import get_policy
from feedback.store.models.runs import find_run
from feedback.tables import RunRow
from feedback.types import RoundState, RunState
from training.home import Home
from training.rounds.recipe import RecipeSettings, round_name
from training.runs import queue

MOST_ATTEMPTS = 5
"""How often a run that was interrupted is resumed without asking a person."""


class RoundBlocked(StudioError):
    """A round that cannot go on before a person has acted."""


def cancel_runs(db: Database, evidence: dict[str, Any]) -> None:
    """Cancel the runs of a round that have not ended."""
    for run_id in evidence.get("runs", {}).values():
        run = find_run(db, run_id)
        if run is not None and not run.state.is_terminal:
            with contextlib.suppress(Conflict):  # it has ended since
                queue.cancel(db, run.id)


@dataclass(frozen=True)
class Step:
    """Where a stage wants its round to be, and what the round waits for there."""

    to: RoundState
    waits_for: str = ""


@dataclass
class RoundContext:
    """A round as one look finds it; a stage adds to ``evidence``, which is kept with the step."""

    db: Database
    home: Home
    recipe: RecipeRow
    row: RoundRow
    settings: RecipeSettings = field(init=False)
    evidence: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.settings = RecipeSettings.model_validate(self.recipe.settings)
        self.evidence = copy.deepcopy(self.row.evidence)

    @property
    def name(self) -> str:
        """The name of the round's batch, dataset and policy."""
        return round_name(self.recipe.name, self.row.number)

    @property
    def champion(self) -> str:
        """The name of the policy that the round starts from."""
        return get_policy(self.db, self.row.champion_id).name

    @property
    def seed(self) -> int:
        """Base of the seeds of this round's draws."""
        return self.settings.seed + 1000 * self.row.number

    def stay(self, waits_for: str) -> Step:
        """The same state, and what it waits for."""
        return Step(self.row.state, waits_for)

    def pool(self) -> MatchupCounts:
        """How many pairs of this round are in which state."""
        batch = find_batch(self.db, self.name)
        return count_matchups(self.db, batch_id=batch.id) if batch else MatchupCounts(0, 0, 0, 0)

    def cancel_runs(self) -> None:
        """Cancel what this round asked for and that has not ended."""
        cancel_runs(self.db, self.evidence)

    def skips(self) -> bool:
        """Whether a person asked not to wait in this state any longer."""
        return self.evidence.get("skip") == self.row.state.value

    def run(self, purpose: str, method: str, config: dict[str, Any]) -> RunRow:
        """The run that this round needs for a purpose, queued when it is first asked for.

        Its id follows from round and purpose, so that a round which was advanced twice, or half, has one run for each.
        An interrupted run is resumed. RunFailed for one that ended without success otherwise.
        """
        run_id = id_of("run", f"{self.row.id} {purpose}")
        self.evidence.setdefault("runs", {})[purpose] = run_id
        # A state that is entered again needs its runs again: ``resume`` may queue them
        self.evidence["left"] = [one for one in self.evidence.get("left", []) if one != purpose]
        run = queue.submit(self.db, method, config, home=self.home, run_id=run_id)
        if run.state is RunState.interrupted and run.attempt < MOST_ATTEMPTS:
            return queue.resume(self.db, self.home, run.id)
        if run.state.is_terminal and run.state is not RunState.succeeded:
            raise RunFailed(f"The {run.method} run {run.id} is {run.state.value}: {run.error or 'somebody ended it'}")
        return run
