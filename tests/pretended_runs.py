"""Runs that end at once, for tests of what is built of runs: generate and judge are real, the rest answers figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feedback.database.engine import Database
from feedback.store.content.prompts import list_prompts
from feedback.store.labeling.batches import ensure_batch
from feedback.store.labeling.matchups import save_matchups
from feedback.store.models.policies import get_policy
from feedback.store.models.scorecards import save_scorecard
from feedback.tables import RunRow
from feedback.types import Batch, Matchup, Purpose, RunState, Scorecard, Split
from tests.factories import keep_benchmark, make_generations, make_matchup, make_policy
from training.home import Home
from training.rewards.oracle_annotator import annotate
from training.runs.lifecycle import advance


class PretendedRuns:
    """Ends every run at once: generate really fills the pool, the rest answers from ``figures``."""

    def __init__(self, db: Database, figures: dict[str, Any] | None = None, per_run: int = 10_000) -> None:
        self.db = db
        self.figures = {"win_rate": 0.8, "low": 0.7, "high": 0.9, "n_prompts": 150, **(figures or {})}
        self.per_run = per_run
        self.forgotten = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, run: RunRow) -> RunRow:
        self.asked.append((run.method, run.config))
        result = getattr(self, run.method)(run.config)
        advance(self.db, run.id, RunState.starting)
        advance(self.db, run.id, RunState.running)
        ended = advance(self.db, run.id, RunState.succeeded, result=result)
        assert ended is not None
        return ended

    def generate(self, config: dict[str, Any]) -> dict[str, Any]:
        if config.get("against"):
            return self._put_before_people(config)
        batch = ensure_batch(self.db, Batch(name=config["batch"]))
        for number in range(min(config["limit"] * config["per_prompt"] // 2, self.per_run)):
            make_matchup(self.db, texts=[f"short {number}", f"a good deal longer {number}"], batch=batch)
        return {}

    def _put_before_people(self, config: dict[str, Any]) -> dict[str, Any]:
        sides = [get_policy(self.db, config[side]) for side in ("policy", "against")]
        for prompt in list_prompts(self.db, split=Split.evaluation, limit=config["limit"]):
            rows = [make_generations(self.db, prompt, side, [f"This is {side.name}."])[0] for side in sides]
            ids = [row.id for row in rows]
            save_matchups(self.db, [Matchup(prompt_id=prompt.id, generation_ids=ids, purpose=Purpose.evaluate)])
        return {"identical": 0}

    def judge(self, config: dict[str, Any]) -> dict[str, Any]:
        given = {name: config[name] for name in ("noise", "seed", "batch") if name in config}
        session = annotate(self.db, Home(Path("unused")), config["oracle"], config["count"], **given)
        return {"judged": session.judged, "ties": session.ties}

    def reward(self, config: dict[str, Any]) -> dict[str, Any]:
        from feedback.store.models.checkpoints import save_checkpoint
        from feedback.types import Checkpoint

        save_checkpoint(self.db, Checkpoint(name=config["name"], kind="reward", path="p", base="b"))
        return {"checkpoint": config["name"]}

    def dpo(self, config: dict[str, Any]) -> dict[str, Any]:
        return {"checkpoint": config["name"], "policy": make_policy(self.db, config["name"]).name}

    rft = dpo

    def benchmark(self, config: dict[str, Any]) -> dict[str, Any]:
        policy = get_policy(self.db, config["policy"])
        wrong = 0 if policy.name == "starter" else self.forgotten
        for task in config["tasks"]:
            keep_benchmark(self.db, policy.id, [0.0] * wrong + [1.0] * (400 - wrong), task)
        return {}

    def evaluate(self, config: dict[str, Any]) -> dict[str, Any]:
        if "a" in config:
            figures = {**self.figures, "length_before": 40.0, "length_after": 30.0, "kl": 1.5}
            a, b = (get_policy(self.db, config[name]).id for name in ("a", "b"))
            card = Scorecard(kind="win_rate", subject_id=a, against_id=b, settings=config, figures=figures)
            save_scorecard(self.db, card)
            return figures
        return {"accuracy": 0.95, "length_only_accuracy": 0.6, "oracle_consistency": 1.0}
