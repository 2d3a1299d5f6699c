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
from dataclasses import asdict, dataclass, field
from typing import Any

from feedback.database.engine import Database
from feedback.datasets.freeze import freeze
from feedback.errors import InvalidInput, NotEnoughData, RunFailed, UnknownSetting
from feedback.store.content.prompts import count_prompts
from feedback.store.labeling.matchups import count_matchups
from feedback.store.models.benchmarks import list_benchmarks
from feedback.store.models.policies import check_has_weights, get_champion, get_policy, promote_policy
from feedback.tables import DatasetRow, RunRow
from feedback.types import DatasetFilters, Purpose, RunState, Source, Split, now
from training.annotate import annotate, annotator_name
from training.config import RewardedSettings, RewardSettings, parse_settings
from training.gate import Answer, Verdict
from training.gate_evidence import decide_policy
from training.home import Home
from training.methods import METHODS
from training.oracles import check_rule
from training.runs import check_harness, submit

# A few replies of a batch come out identical or empty and make no pair.
SPARE_SHARE = 0.1
MAX_REFILLS = 20
# Nothing is set apart: what is learned is measured on fresh replies to evaluation prompts.
TEST_SHARE = 0.0
# Two reward models read the judgments: from 200 of them their mean is right a point more often than one alone.
REWARD_MEMBERS = 2
CARD_SAMPLES = 4  # replies per held-out prompt that make the reward model's test pairs


@dataclass(frozen=True)
class Plan:
    """What to turn: how many rounds, how many judgments in each, by which method and whose taste."""

    rounds: int = 1
    pairs: int = 200
    method: str = "dpo"
    oracle: str = "shorter"
    noise: float = 0.0
    seed: int = 0
    policy: str | None = None
    prompts: int = 150
    benchmarks: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot work before anything is generated."""
        trainers = sorted(name for name, method in METHODS.items() if method.kind == "train" and name != "reward")
        if self.method not in trainers:
            raise UnknownSetting(f"The loop cannot train by {self.method!r}. Valid: {', '.join(trainers)}.")
        check_rule(self.oracle)
        for name, value in (("rounds", self.rounds), ("pairs", self.pairs), ("prompts", self.prompts)):
            if value < 1:
                raise InvalidInput(f"{name} must be at least 1, not {value}.")
        if not 0.0 <= self.noise <= 0.5:
            raise InvalidInput(f"noise must be between 0 and 0.5 (a coin), not {self.noise}.")
        parse_settings(self.method, self.train_config("dataset", "reward"))
        if self.benchmarks:
            check_harness()

    def train_config(self, dataset: str, reward: str, **given: Any) -> dict[str, Any]:
        """What the round's method is asked for: what is given, under what the plan sets."""
        config = {"dataset": dataset, **given, **self.settings}
        if issubclass(METHODS[self.method].settings, RewardedSettings) and "reward_function" not in config:
            config.setdefault("reward", reward)
        return config


@dataclass
class Round:
    """What one round came to; the figures are those of its scorecards."""

    number: int
    champion: str
    policy: str = ""
    dataset: str = ""
    judged: int = 0
    ties: int = 0
    pairs: int = 0
    over_start: dict[str, Any] = field(default_factory=dict)
    over_champion: dict[str, Any] = field(default_factory=dict)
    reward: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    promoted: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The round as plain JSON, with its total time."""
        return {**asdict(self), "seconds_total": round(sum(self.seconds.values()), 1)}


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
        done.promoted = done.gate["verdict"] == Verdict.promote
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


def report_lines(done: Round, plan: Plan) -> list[str]:
    """A round in words: what a person reads at the end of it."""
    refused = "rejected" if done.gate.get("verdict") == Verdict.reject else "held"
    verdict = "promoted" if done.promoted else f"{refused} ({done.champion} stays champion)"
    stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in done.seconds.items())
    lines = [f"Round {done.number}: {done.policy} {verdict}", *map("  {}".format, _against(done))]
    lines.append(f"  win rate over {done.champion}: {_win_rate(done.over_champion)}, judged by {plan.oracle}")
    if done.over_start is not done.over_champion:
        lines.append(f"  win rate over the starting policy: {_win_rate(done.over_start)}")
    figures = done.over_start
    lines.append(
        f"  reply length: {_number(figures, 'length_before')} → {_number(figures, 'length_after')} words; "
        f"KL from the start: {_number(figures, 'kl', 2)} nats per reply"
    )
    lines.append(
        f"  reward model: right on {_share(done.reward, 'accuracy')} of held-out pairs; "
        f"length alone: {_share(done.reward, 'length_only_accuracy')}; "
        f"the oracle agrees with itself on {_share(done.reward, 'oracle_consistency')}"
    )
    lines.append(f"  learned from {done.pairs} pairs ({done.judged} judged, {done.ties} ties), dataset {done.dataset}")
    lines.append(f"  seconds: {stages}; {sum(done.seconds.values()):.0f} in all")
    return lines


def _against(done: Round) -> list[str]:
    """The gate's sentences that kept the policy out."""
    return [one["words"] for one in done.gate.get("reasons", ()) if one["answer"] in (Answer.failed, Answer.unclear)]


def _win_rate(figures: dict[str, Any]) -> str:
    interval = f"[{_share(figures, 'low')}, {_share(figures, 'high')}]"
    return f"{_share(figures, 'win_rate')} {interval} on {figures.get('n_prompts', '?')} held-out prompts"


def _share(figures: dict[str, Any], name: str) -> str:
    value = figures.get(name)
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _number(figures: dict[str, Any], name: str, digits: int = 1) -> str:
    value = figures.get(name)
    return "unknown" if value is None else f"{value:.{digits}f}"
