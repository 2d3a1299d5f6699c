"""Run rounds with an oracle as the annotator to their end: the recipe of a plan, advanced whenever a run ends."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from feedback.database.engine import Database
from feedback.errors import InvalidInput, RunFailed
from feedback.round_tables import RecipeRow, RoundRow
from feedback.store.models.policies import get_policy, promote_policy
from feedback.store.models.rounds import get_recipe, list_rounds
from feedback.store.models.runs import find_run
from feedback.tables import RunRow
from feedback.types import RecipeState, RoundState
from training.home import Home
from training.loop.plan import Plan, Round
from training.loop.report import report_lines
from training.rounds.acts import check, resume, start
from training.rounds.advance import advance
from training.rounds.learning import is_large
from training.rounds.recipe import RecipeSettings

POLL_SECONDS = 0.2
_STAGES = {"fill": "generate", "judge": "judge", "reward": "reward", "evaluate": "evaluate", "benchmark": "benchmarks"}
"""What a report calls the runs of a round, by the first word of what they are for."""


class Loop:
    """Runs rounds in one home; ``wait_for`` blocks until a run has ended and returns it.

    The rounds are records: a worker advances them as well, and ``take_up`` continues those of an interrupted loop.
    """

    def __init__(
        self,
        db: Database,
        home: Home,
        plan: Plan,
        *,
        wait_for: Callable[[RunRow], RunRow],
        say: Callable[[str], None] = lambda line: None,
        name: str | None = None,
    ) -> None:
        plan.check()
        self.db = db
        self.home = home
        self.plan = plan
        self._wait_for = wait_for
        self._say = say
        # Names must be free in a home where many loops were turned.
        self.name = name or f"loop-{secrets.token_hex(2)}"

    def run(self) -> list[Round]:
        """Run all rounds and return their reports."""
        _, policy = check(self.db, self.name, self.plan.recipe())
        promote_policy(self.db, policy.id)
        # Of a large base a reward model is trained where the method asks for it alone: it would double the time
        kind = "auto" if is_large(policy.base) else "always"
        return self._carry_out(start(self.db, self.name, self.plan.recipe() | {"reward_model": kind}))

    def take_up(self) -> list[Round]:
        """Go on with the recipe of this name; rounds that ended before are reported again."""
        recipe = get_recipe(self.db, self.name)
        if recipe.state is RecipeState.paused:
            recipe = resume(self.db, self.home, recipe.id)
        return self._carry_out(recipe)

    def _carry_out(self, recipe: RecipeRow) -> list[Round]:
        reported: list[Round] = []
        announced = 0
        while True:
            recipe = get_recipe(self.db, recipe.id)
            rows = list_rounds(self.db, recipe.id)
            for row in rows[len(reported) :]:
                if row.number > announced:
                    announced = row.number
                    self._announce(row)
                if row.state.is_terminal:
                    reported.append(self._report(row))
            if recipe.state is not RecipeState.active:
                break
            if advance(self.db, self.home, recipe.id):
                continue
            if (run := self._pending(recipe.id)) is not None:
                self._wait_for(run)
            else:
                time.sleep(POLL_SECONDS)
        _raise_for(recipe)
        return reported

    def _pending(self, recipe_id: str) -> RunRow | None:
        """The run that the newest round waits for."""
        runs = list_rounds(self.db, recipe_id)[-1].evidence.get("runs", {})
        found = find_run(self.db, list(runs.values())[-1]) if runs else None
        return found if found is not None and not found.state.is_terminal else None

    def _announce(self, row: RoundRow) -> None:
        champion = get_policy(self.db, row.champion_id).name
        self._say(f"Round {row.number} of {self.plan.rounds}: {champion} replies, {self.plan.oracle} judges.")

    def _report(self, row: RoundRow) -> Round:
        done = report_of(self.db, row)
        for line in report_lines(done, self.plan):
            self._say(line)
        return done


def plan_of(recipe: RecipeRow) -> Plan:
    """The plan that a recipe was made of; InvalidInput for one that people label."""
    settings = RecipeSettings.model_validate(recipe.settings)
    if settings.by_people:
        raise InvalidInput(f"People label for {recipe.name!r}; `studio rounds show {recipe.name}` tells how far it is.")
    method = settings.methods[-1]
    return Plan(
        settings.rounds,
        settings.pairs,
        method.method,
        settings.annotator,
        settings.noise,
        settings.seed,
        None,
        settings.prompts,
        settings.benchmarks,
        dict(method.settings),
    )


def report_of(db: Database, row: RoundRow) -> Round:
    """What a round came to, out of its evidence."""
    evidence = row.evidence
    reward = {"checkpoint": evidence["reward"]} if "reward" in evidence else {}
    return Round(
        number=row.number,
        champion=get_policy(db, row.champion_id).name,
        start=get_policy(db, list_rounds(db, row.recipe_id)[0].champion_id).name,
        policy=evidence.get("policy", ""),
        dataset=evidence.get("dataset", ""),
        judged=evidence.get("judged", 0),
        ties=evidence.get("ties", 0),
        pairs=evidence.get("pairs", 0),
        over_start=evidence.get("over_start", {}),
        over_champion=evidence.get("over_champion", {}),
        reward=reward | evidence.get("reward_card", {}),
        gate=evidence.get("gate", {}),
        promoted=row.state is RoundState.promoted,
        seconds=_seconds(db, evidence.get("runs", {})),
    )


def _seconds(db: Database, runs: dict[str, str]) -> dict[str, float]:
    """How long the runs of each stage took, those in the queue included."""
    found: dict[str, float] = {}
    for purpose, run_id in runs.items():
        run = find_run(db, run_id)
        if run is None or run.ended_at is None:
            continue
        words = purpose.split()
        stage = purpose if purpose == "reward card" else _STAGES.get(words[0], words[-1])
        found[stage] = round(found.get(stage, 0.0) + (run.ended_at - run.created_at).total_seconds(), 1)
    return found


def _raise_for(recipe: RecipeRow) -> None:
    if recipe.state is RecipeState.paused:
        raise RunFailed(f"{recipe.reason.rstrip('.')}. Go on with `studio loop --resume {recipe.name}`.")
    if recipe.state is RecipeState.cancelled:
        raise RunFailed(f"Recipe {recipe.name} was cancelled.")
