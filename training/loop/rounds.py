"""The round, turned by an oracle: generate → judge → freeze → reward and policy → evaluate → promote or hold.

A plain function over ``submit`` and a way to wait, so that a command, a test or a notebook can turn it. Win rates
are measured on evaluation prompts, which no dataset ever saw; a policy is promoted when the gate says so: the lower
bound of its win rate over the champion is above one half, and nothing else that was measured speaks against it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from feedback.database.engine import Database
from feedback.datasets.freeze import freeze
from feedback.errors import InvalidInput, NotEnoughData, RunFailed
from feedback.store.content.prompts import count_prompts
from feedback.store.labeling.matchups import count_matchups
from feedback.store.models.benchmarks import list_benchmarks
from feedback.store.models.policies import check_has_weights, get_champion, get_policy, promote_policy
from feedback.tables import DatasetRow, RunRow
from feedback.types import DatasetFilters, Purpose, RunState, Source, Split, now
from training.evaluation.gate import GateVerdict
from training.evaluation.gate_evidence import decide_policy
from training.home import Home
from training.loop.oracle_annotator import annotate, annotator_name
from training.loop.plan import CARD_SAMPLES, MAX_REFILLS, REWARD_MEMBERS, SPARE_SHARE, TEST_SHARE, Plan, Round
from training.loop.report import report_lines
from training.runs.queue import submit
from training.settings.reward import RewardSettings


class Loop:
    """Turns rounds in one home; ``wait_for`` blocks until a run has ended and gives it back."""

    def __init__(
        self,
        db: Database,
        home: Home,
        plan: Plan,
        *,
        wait_for: Callable[[RunRow], RunRow],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        plan.check()
        self.db = db
        self.home = home
        self.plan = plan
        self._wait_for = wait_for
        self._say = say
        # Names must be free in a home where many loops were turned.
        self._tag = secrets.token_hex(2)
        self._began = now()

    def run(self) -> list[Round]:
        """Turn all rounds and give their reports."""
        start = self._start_policy()
        rounds = []
        for number in range(1, self.plan.rounds + 1):
            rounds.append(self._turn(number, start))
            for line in report_lines(rounds[-1], self.plan):
                self._say(line)
        return rounds

    def _start_policy(self) -> str:
        if self.plan.policy is not None:
            check_has_weights(get_policy(self.db, self.plan.policy))
            return promote_policy(self.db, self.plan.policy).name
        champion = get_champion(self.db)
        if champion is None:
            raise InvalidInput("No policy serves yet; name one with --policy, or run `studio policies promote NAME`.")
        check_has_weights(champion)
        return champion.name

    def _turn(self, number: int, start: str) -> Round:
        champion = get_champion(self.db)
        done = Round(number=number, champion=champion.name if champion else start)
        self._say(f"Round {number} of {self.plan.rounds}: {done.champion} replies, {self.plan.oracle} judges.")
        self._collect(done)
        dataset = self._freeze(done)
        self._train(done, dataset)
        self._evaluate(done, start)
        self._take_benchmarks(done)
        done.gate = decide_policy(self.db, done.policy, done.champion).as_json()
        done.promoted = done.gate["verdict"] == GateVerdict.promote
        if done.promoted:
            promote_policy(self.db, done.policy)
        return done

    def _collect(self, done: Round) -> None:
        """Judge as many pairs as planned, generating when the pool has run out."""
        seed = self.plan.seed + 1000 * done.number
        for attempt in range(MAX_REFILLS):
            missing = self.plan.pairs - done.judged
            if count_matchups(self.db, purposes=[Purpose.collect]).open < missing:
                with self._timed(done, "generate"):
                    self._generate(done.champion, missing, seed + attempt)
            with self._timed(done, "judge"):
                sitting = annotate(
                    self.db, self.home, self.plan.oracle, missing, noise=self.plan.noise, seed=seed + attempt
                )
            done.judged += sitting.judged
            done.ties += sitting.ties
            if done.judged >= self.plan.pairs:
                self._say(f"  judged {done.judged} pairs, {done.ties} of them ties")
                return
        raise NotEnoughData(
            f"Only {done.judged} of {self.plan.pairs} pairs could be judged; import more prompts "
            "(`studio prompts import FILE`) or ask for fewer --pairs."
        )

    def _generate(self, policy: str, pairs: int, seed: int) -> None:
        wanted = int(pairs * (1 + SPARE_SHARE)) + 2
        prompts = max(count_prompts(self.db, split=Split.work, brought=True), 1)
        # One pair per prompt while there are prompts enough: variety of prompts teaches more than of replies.
        pairs_per_prompt = min(-(-wanted // prompts), 4)
        config = {
            "policy": policy,
            "per_prompt": 2 * pairs_per_prompt,
            "limit": min(-(-wanted // pairs_per_prompt), prompts),
            "seed": seed,
        }
        self._do("generate", config)

    def _freeze(self, done: Round) -> DatasetRow:
        """All that this loop's oracle judged since the loop began: later rounds keep what earlier ones learned from."""
        filters = DatasetFilters(
            sources=(Source.simulated,),
            annotators=(annotator_name(self.plan.oracle),),
            since=self._began,
            test_share=TEST_SHARE,
            split_seed=self.plan.seed,
        )
        with self._timed(done, "freeze"):
            dataset = freeze(self.db, f"round-{done.number}-{self._tag}", filters)
        done.dataset = dataset.name
        done.pairs = dataset.counts["pairs"]
        self._say(f"  froze {dataset.name}: {done.pairs} pairs")
        return dataset

    def _train(self, done: Round, dataset: DatasetRow) -> None:
        seed = self.plan.seed + done.number
        with self._timed(done, "reward"):
            config = {"dataset": dataset.name, "seed": seed, "members": REWARD_MEMBERS}
            config["name"] = f"reward-{done.number}-{self._tag}"
            if done.pairs < RewardSettings.FEWEST:  # the card at the end of the round says what it is worth
                config["allow_few"] = True
            reward = self._do("reward", config)
        done.reward = {"checkpoint": reward["checkpoint"]}
        with self._timed(done, self.plan.method):
            name = f"{self.plan.method}-{done.number}-{self._tag}"
            config = self.plan.train_config(
                dataset.name, reward["checkpoint"], parent=done.champion, seed=seed, name=name
            )
            trained = self._do(self.plan.method, config)
        done.policy = get_policy(self.db, trained["policy"]).name

    def _evaluate(self, done: Round, start: str) -> None:
        judge = {"oracle": self.plan.oracle, "prompts": self.plan.prompts, "seed": self.plan.seed}
        with self._timed(done, "evaluate"):
            done.over_champion = self._do("evaluate", {"a": done.policy, "b": done.champion, **judge})
        done.over_start = done.over_champion
        if start != done.champion:
            with self._timed(done, "evaluate"):
                done.over_start = self._do("evaluate", {"a": done.policy, "b": start, **judge})
        with self._timed(done, "reward card"):
            card = {"reward": done.reward["checkpoint"], "noise": self.plan.noise, "samples": CARD_SAMPLES, **judge}
            done.reward |= self._do("evaluate", card)

    def _take_benchmarks(self, done: Round) -> None:
        """Have the new policy take the tasks of the plan, and the champion those it never took."""
        if not self.plan.benchmarks:
            return
        taken = {row.task for row in list_benchmarks(self.db, policy_id=get_policy(self.db, done.champion).id)}
        missing = [task for task in self.plan.benchmarks if task not in taken]
        with self._timed(done, "benchmarks"):
            for policy, tasks in ((done.champion, missing), (done.policy, self.plan.benchmarks)):
                if tasks:
                    self._do("benchmark", {"policy": policy, "tasks": list(tasks)})

    def _do(self, method: str, config: dict[str, Any]) -> dict[str, Any]:
        run = self._wait_for(submit(self.db, method, config, home=self.home))
        if run.state is not RunState.succeeded:
            raise RunFailed(f"The {method} run {run.id} is {run.state.value}: {run.error or 'somebody ended it'}")
        return run.result

    @contextmanager
    def _timed(self, done: Round, stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        done.seconds[stage] = round(done.seconds.get(stage, 0.0) + time.monotonic() - began, 1)
