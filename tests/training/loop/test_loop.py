"""The round: its order, what it hands from stage to stage, and what it says. Then once for real, on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotFound, RunFailed, UnknownSetting
from feedback.store.datasets.datasets import get_dataset
from feedback.store.models.policies import get_champion, promote_policy
from feedback.store.models.rounds import get_recipe
from feedback.store.reports.lineage import policy_lineage
from feedback.tables import PolicyRow, RunRow
from feedback.types import RecipeState, RunState, Split
from tests.factories import make_policy, make_prompt
from tests.pretended_runs import PretendedRuns
from training.home import Home
from training.loop.plan import Plan
from training.loop.report import report_lines
from training.loop.rounds import Loop
from training.methods import METHODS
from training.reporting.reporter import LocalProgress, RunContext
from training.runs.lifecycle import advance
from training.settings.parsing import parse_settings


@pytest.fixture
def start(db: Database) -> PolicyRow:
    for number in range(12):
        make_prompt(db, f"Work on thing {number}.")
        make_prompt(db, f"Measure thing {number}.", Split.evaluation)
    return promote_policy(db, make_policy(db, "starter").id)


def turned(db: Database, tmp_path: Path, plan: Plan, runs: PretendedRuns) -> tuple[list[Any], list[str]]:
    said: list[str] = []
    return Loop(db, Home(tmp_path), plan, wait_for=runs, say=said.append).run(), said


def test_a_round_goes_in_order_and_hands_on_what_it_made(db: Database, tmp_path: Path, start: PolicyRow) -> None:
    runs = PretendedRuns(db)
    (done,), said = turned(db, tmp_path, Plan(pairs=8, oracle="shorter", prompts=10, settings={"epochs": "2"}), runs)
    assert [method for method, _ in runs.asked] == ["generate", "judge", "reward", "dpo", "evaluate", "evaluate"]
    configs = dict(runs.asked[:4])
    assert configs["generate"]["policy"] == "starter" and configs["generate"]["limit"] >= 8
    assert configs["reward"]["dataset"] == configs["dpo"]["dataset"] == done.dataset
    assert configs["dpo"]["parent"] == "starter" and configs["dpo"]["epochs"] == 2
    duel, card = runs.asked[4][1], runs.asked[5][1]
    assert (duel["a"], duel["b"], duel["oracle"], duel["prompts"]) == (done.policy, "starter", "shorter", 10)
    assert card["reward"] == done.reward["checkpoint"] and "a" not in card
    assert (done.judged, done.ties, done.pairs, done.promoted) == (8, 0, 8, True)
    assert get_dataset(db, done.dataset).filters["annotators"] == ["oracle:shorter"]
    champion = get_champion(db)
    assert champion is not None and champion.name == done.policy
    report = "\n".join(said)
    assert "win rate over starter: 80.0 % [70.0 %, 90.0 %] on 150 held-out prompts" in report
    assert "40.0 → 30.0 words" in report and "KL from the start: 1.50" in report
    assert "right on 95.0 %" in report and "length alone: 60.0 %" in report and "with itself on 100.0 %" in report
    assert set(done.as_json()["seconds"]) == {"generate", "judge", "reward", "dpo", "evaluate", "reward card"}


@pytest.mark.parametrize(
    ("settings", "judge"),
    [({}, "reward"), ({"reward_function": "length_band:5-15"}, "reward_function"), ({"reward": "other"}, "other")],
)
def test_a_method_that_needs_a_judge_is_given_the_rounds_reward_model(
    db: Database, tmp_path: Path, start: PolicyRow, settings: dict[str, Any], judge: str
) -> None:
    pretended = PretendedRuns(db)
    if judge == "other":
        pretended.reward({"name": "other"})
    plan = Plan(pairs=4, method="rft", settings=settings)
    Loop(db, Home(tmp_path / "home").create(), plan, wait_for=pretended).run()
    config = next(config for method, config in pretended.asked if method == "rft")
    made = next(config["name"] for method, config in pretended.asked if method == "reward")
    expected = {"reward": {"reward": made}, "other": {"reward": "other"}}.get(judge, settings)
    assert {key: config[key] for key in ("reward", "reward_function") if key in config} == expected


def test_a_policy_that_is_not_surely_better_is_held(db: Database, tmp_path: Path, start: PolicyRow) -> None:
    runs = PretendedRuns(db, {"win_rate": 0.56, "low": 0.49, "high": 0.63})
    (done,), said = turned(db, tmp_path, Plan(pairs=4, oracle="shorter"), runs)
    champion = get_champion(db)
    assert not done.promoted and champion is not None and champion.name == "starter"
    assert f"{done.policy} held (starter stays champion)" in "\n".join(said)


def test_a_policy_that_unlearnt_elsewhere_is_rejected_though_it_is_preferred(
    db: Database, tmp_path: Path, start: PolicyRow
) -> None:
    plan = Plan(pairs=4, oracle="shorter", benchmarks=("sums", "facts"))
    runs = PretendedRuns(db)
    runs.forgotten = 60
    (done,), said = turned(db, tmp_path, plan, runs)
    assert not done.promoted and done.gate["verdict"] == "REJECT"
    assert f"{done.policy} rejected (starter stays champion)" in "\n".join(said)
    assert any("sums lost 15.0 points (1.000 to 0.850, 400 items)" in line for line in said)
    taken = [(config["policy"], config["tasks"]) for method, config in runs.asked if method == "benchmark"]
    assert taken == [("starter", ["sums", "facts"]), (done.policy, ["sums", "facts"])]

    runs.forgotten, runs.asked = 0, []
    (again,), _ = turned(db, tmp_path, plan, runs)
    assert again.promoted and again.gate["verdict"] == "PROMOTE"
    taken = [config["policy"] for method, config in runs.asked if method == "benchmark"]
    assert taken == [again.policy], "what the champion took before is not taken again"


def test_a_second_round_starts_from_the_new_champion_and_is_measured_against_both(
    db: Database, tmp_path: Path, start: PolicyRow
) -> None:
    runs = PretendedRuns(db)
    (first, second), said = turned(db, tmp_path, Plan(rounds=2, pairs=4, oracle="shorter"), runs)
    assert second.champion == first.policy
    duels = [config["b"] for method, config in runs.asked if method == "evaluate" and "b" in config]
    assert duels == ["starter", first.policy, "starter"]
    assert "win rate over the starting policy" in "\n".join(said)
    # A later round keeps what the earlier one learned from.
    assert (first.pairs, second.pairs) == (4, 8)


def test_a_pool_that_runs_out_is_filled_again(db: Database, tmp_path: Path, start: PolicyRow) -> None:
    runs = PretendedRuns(db, per_run=3)
    (done,), _ = turned(db, tmp_path, Plan(pairs=8, oracle="shorter"), runs)
    generated = [config for method, config in runs.asked if method == "generate"]
    assert done.judged == 8 and len(generated) == 3
    assert len({config["seed"] for config in generated}) == 3
    with pytest.raises(RunFailed, match="Only 0 of 5 pairs.*studio prompts import"):
        turned(db, tmp_path, Plan(pairs=5, oracle="longer"), PretendedRuns(db, per_run=0))


def test_what_cannot_be_turned_is_refused_first(db: Database, tmp_path: Path, start: PolicyRow) -> None:
    runs = PretendedRuns(db)
    for plan, kind, said in [
        (Plan(method="reward"), UnknownSetting, "Valid: dpo, kto, ppo, rft, rloo, sft"),
        (Plan(oracle="sweeter"), UnknownSetting, "sweeter"),
        (Plan(method="ppo", settings={"sweetness": 1}), UnknownSetting, "ppo has no setting 'sweetness'"),
        (Plan(settings={"beta": 99.0}), UnknownSetting, "beta"),
        (Plan(noise=0.7), InvalidInput, "noise"),
        (Plan(pairs=0), InvalidInput, "pairs must be at least 1"),
    ]:
        with pytest.raises(kind, match=said):
            turned(db, tmp_path, plan, runs)
    with pytest.raises(NotFound, match="nobody"):
        turned(db, tmp_path, Plan(policy="nobody"), runs)
    assert runs.asked == []


def test_a_failed_run_ends_the_loop_in_words(db: Database, tmp_path: Path, start: PolicyRow) -> None:
    def fail(run: RunRow) -> RunRow:
        advance(db, run.id, RunState.starting)
        ended = advance(db, run.id, RunState.failed, error="Out of luck.")
        assert ended is not None
        return ended

    with pytest.raises(RunFailed, match=r"The generate run run-\w+ is failed: Out of luck\. Go on with `studio"):
        Loop(db, Home(tmp_path).create(), Plan(pairs=4), wait_for=fail, name="tried").run()
    assert get_recipe(db, "tried").state is RecipeState.paused

    again = Loop(db, Home(tmp_path), Plan(pairs=4), wait_for=PretendedRuns(db), name="tried").take_up()
    assert [done.promoted for done in again] == [True], "a failed loop is taken up where it failed"


def test_a_round_without_figures_still_reads(start: PolicyRow) -> None:
    from training.loop.plan import Round

    assert any("unknown" in line for line in report_lines(Round(1, "starter"), Plan()))


PPO = {"iterations": "1", "episodes": "8", "max_new_tokens": "6", "value_warmup": "0", "canary_every": "0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"), [("dpo", {"min_steps": "2", "epochs": "1"}), ("ppo", PPO)], ids=["dpo", "ppo"]
)
def test_a_whole_round_on_a_tiny_model(
    db: Database, tmp_path: Path, tiny_base: Path, method: str, settings: dict[str, str]
) -> None:
    for number in range(10):
        make_prompt(db, f"Say {number}.")
        make_prompt(db, f"Tell {number}.", Split.evaluation)
    promote_policy(db, make_policy(db, "starter").id)
    home = Home(tmp_path).create()
    base = register_tiny(db, tiny_base)

    def do_here(run: RunRow) -> RunRow:
        advance(db, run.id, RunState.starting)
        working = advance(db, run.id, RunState.running)
        assert working is not None
        settings = parse_settings(run.method, run.config)
        context = RunContext(run=working, settings=settings, db=db, home=home, progress=LocalProgress())
        ended = advance(db, run.id, RunState.succeeded, result=METHODS[run.method].run(context))
        assert ended is not None
        return ended

    plan = Plan(pairs=12, oracle="shorter", prompts=8, method=method, policy=base, settings=settings)
    (done,) = Loop(db, home, plan, wait_for=do_here).run()
    assert done.judged == 12 and 0.0 <= done.over_champion["low"] <= done.over_champion["high"] <= 1.0
    assert 0.0 <= done.reward["accuracy"] <= 1.0 and done.reward["length_only_accuracy"] == 1.0
    lineage = policy_lineage(db, done.policy)
    assert lineage["run"]["method"] == method
    assert lineage["judgments"]["by_source"] == {"simulated": 12}
    assert lineage["parent"]["policy"]["name"] == base


def register_tiny(db: Database, directory: Path) -> str:
    from training.checkpoints.registration import register_policy

    return register_policy(db, "tiny", str(directory)).name
