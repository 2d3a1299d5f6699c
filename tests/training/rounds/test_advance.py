"""Rounds by people and rules, step by step: what each state waits for, what a person can do, and half-done looks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput, NotEnoughData, NotFound, UnknownSetting
from feedback.round_tables import RecipeRow, RoundRow
from feedback.store.datasets.datasets import get_dataset
from feedback.store.labeling.batches import ensure_batch, find_batch
from feedback.store.labeling.matchups import count_matchups
from feedback.store.models.policies import get_champion, get_policy, promote_policy
from feedback.store.models.rounds import get_recipe, last_round, list_rounds
from feedback.store.models.runs import find_run, list_runs
from feedback.tables import PolicyRow
from feedback.types import Batch, MatchupState, Purpose, RecipeState, RoundState, RunState, Source, Split, now
from tests.factories import judge_by, longer, make_matchup, make_policy, make_prompt
from tests.pretended_runs import PretendedRuns
from training.home import Home
from training.rewards.oracle_annotator import annotate
from training.rounds import advance as engine
from training.rounds.account import account_of
from training.rounds.acts import cancel, decide, fork, pause, resume, skip, start
from training.rounds.advance import advance, advance_recipes
from training.rounds.context import RoundContext, Step
from training.rounds.guidance import curve_words, guidance
from training.runs import lifecycle

PEOPLE = {"pairs": 6, "rounds": 2, "prompts": 8}
RULE = {"pairs": 6, "rounds": 2, "prompts": 8, "annotator": "longer", "promote": "auto"}


@pytest.fixture
def starter(db: Database) -> PolicyRow:
    for number in range(12):
        make_prompt(db, f"Work on thing {number}.")
        make_prompt(db, f"Measure thing {number}.", Split.evaluation)
    return promote_policy(db, make_policy(db, "starter").id)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def end_runs(db: Database, runs: PretendedRuns) -> None:
    for run in reversed(list_runs(db, states=[RunState.queued])):
        runs(run)


def step(db: Database, home: Home, recipe: RecipeRow, runs: PretendedRuns) -> RoundRow:
    """Advance until only a person can go on, ending every run that is asked for."""
    for _ in range(20):
        end_runs(db, runs)
        advance(db, home, recipe.id)
        if not list_runs(db, states=[RunState.queued]):
            break
    return last_round(db, recipe.id)


def vote(db: Database, count: int | None = None, annotator: str = "ann") -> int:
    return judge_by(db, longer, count=count, annotator=annotator)


def test_people_take_a_round_from_filling_to_the_next_champion(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "demo", PEOPLE)
    row = step(db, home, recipe, runs)
    assert (row.state, row.waits_for) == (RoundState.labeling, "people: 0 of 6 pairs judged")
    batch = find_batch(db, "demo-1")
    assert batch is not None and batch.priority == 1, "its pairs come before older ones"

    assert vote(db, 4) == 4
    row = step(db, home, recipe, runs)
    assert (row.state, row.waits_for) == (RoundState.labeling, "people: 4 of 6 pairs judged")
    assert not any(method == "dpo" for method, _ in runs.asked)

    vote(db, 2, "bob")
    row = step(db, home, recipe, runs)
    assert row.state is RoundState.evaluating and "8 blind pairs of demo-1 and starter" in row.waits_for
    dataset = get_dataset(db, "demo-1")
    assert dataset.counts["judgments"] == 6 and dataset.filters["batches"] == ["demo-1"]
    assert count_matchups(db, batch_id=batch.id).open == 0, "spare pairs are withdrawn"

    assert judge_by(db, lambda left, right: ("demo" in left) - ("demo" in right)) == 8
    row = step(db, home, recipe, runs)
    assert row.state is RoundState.gate and "the gate says PROMOTE" in row.waits_for
    assert row.evidence["over_champion"]["win_rate"] == 1.0 and row.evidence["over_champion"]["annotators"] == 1
    assert get_champion(db).name == "starter"  # type: ignore[union-attr]

    decide(db, "demo", "promote", "rita")
    row = step(db, home, recipe, runs)
    assert (row.number, row.state, row.champion_id) == (2, RoundState.labeling, get_policy(db, "demo-1").id)
    assert get_champion(db).name == "demo-1"  # type: ignore[union-attr]
    first = list_rounds(db, recipe.id)[0]
    assert first.state is RoundState.promoted and first.evidence["decision"]["by"] == "rita"
    assert [entry["state"] for entry in first.history] == [
        "filling", "labeling", "frozen", "training", "evaluating", "gate", "promoted",
    ]  # fmt: skip


def test_a_rule_finishes_a_recipe_by_itself_and_learns_from_all_its_rounds(
    db: Database, home: Home, starter: PolicyRow
) -> None:
    recipe = start(db, "demo", RULE)
    row = step(db, home, recipe, PretendedRuns(db))
    assert get_recipe(db, "demo").state is RecipeState.finished
    first, second = list_rounds(db, recipe.id)
    assert (first.state, second.state, row.number) == (RoundState.promoted, RoundState.promoted, 2)
    assert (first.evidence["judged"], second.evidence["judged"]) == (6, 6)
    assert get_dataset(db, "demo-2").counts["judgments"] == 12
    assert get_dataset(db, "demo-2").filters["sources"] == [Source.simulated]


def killed_before_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next step is done but not written down, as when the worker is killed in between."""
    keep, armed = engine.change_round, [True]

    def kept(db: Database, seen: RoundRow, **changes: Any) -> RoundRow | None:
        if armed.pop() if armed else False:
            raise KeyboardInterrupt
        return keep(db, seen, **changes)

    monkeypatch.setattr(engine, "change_round", kept)


@pytest.mark.parametrize("state", [state for state in RoundState if not state.is_terminal], ids=str)
def test_a_kill_in_any_state_changes_nothing(
    db: Database, home: Home, starter: PolicyRow, state: RoundState, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "demo", RULE | {"rounds": 1})
    for _ in range(40):
        row = last_round(db, recipe.id)
        if row.state is state:
            with monkeypatch.context() as patch:
                killed_before_it_is_kept(patch)
                try:
                    advance(db, home, recipe.id)
                except KeyboardInterrupt:
                    state = RoundState.cancelled  # once is enough
            end_runs(db, runs)
        elif not advance_one(db, home, recipe):
            end_runs(db, runs)
    row = last_round(db, recipe.id)
    assert state is RoundState.cancelled, "it was killed"
    assert [entry["state"] for entry in row.history][-1] == "promoted"
    assert [method for method, _ in runs.asked] == ["generate", "judge", "dpo", "evaluate"], "each is asked for once"
    assert row.evidence["judged"] == 6 and get_champion(db).name == "demo-1"  # type: ignore[union-attr]


def advance_one(db: Database, home: Home, recipe: RecipeRow) -> bool:
    """One state at most."""
    before = last_round(db, recipe.id).state
    engine._look(db, home, get_recipe(db, recipe.id), lambda line: None)
    return last_round(db, recipe.id).state is not before


def test_two_recipes_do_not_disturb_each_others_pool(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    one, other = (
        start(db, "one", RULE | {"rounds": 1}),
        start(db, "other", RULE | {"rounds": 1, "annotator": "shorter"}),
    )
    for _ in range(20):
        end_runs(db, runs)
        advance_recipes(db, home)
    for name, recipe, rule in (("one", one, "longer"), ("other", other, "shorter")):
        dataset = get_dataset(db, f"{name}-1")
        assert dataset.filters["annotators"] == [f"oracle:{rule}"] and dataset.counts["pairs"] == 6
        assert last_round(db, recipe.id).evidence["gate"]["verdict"] == "PROMOTE"
    # The first took over from the starter; the second one's policy was compared with the starter alone
    assert get_champion(db).name == "one-1"  # type: ignore[union-attr]
    assert last_round(db, one.id).state is RoundState.promoted
    held = last_round(db, other.id)
    assert held.state is RoundState.held and "one-1 is the champion now" in held.evidence["note"]


def test_a_failed_run_pauses_its_recipe_alone_and_resume_repeats_it(
    db: Database, home: Home, starter: PolicyRow
) -> None:
    bad, good = start(db, "bad", RULE | {"rounds": 1}), start(db, "good", RULE | {"rounds": 1})
    runs = PretendedRuns(db)
    advance_recipes(db, home)
    failed = last_round(db, bad.id).evidence["runs"]["fill 0"]
    lifecycle.advance(db, failed, RunState.starting)
    lifecycle.advance(db, failed, RunState.failed, error="The disk is full.")
    for _ in range(20):
        advance_recipes(db, home)
        end_runs(db, runs)
    paused = get_recipe(db, "bad")
    assert paused.state is RecipeState.paused and "The disk is full." in paused.reason
    assert get_recipe(db, "good").state is RecipeState.finished and good.name == "good"
    assert "The disk is full" in " ".join(account_of(db, paused)["guidance"])

    resume(db, home, "bad")
    assert find_run(db, failed).attempt == 2  # type: ignore[union-attr]
    step(db, home, bad, runs)
    assert get_recipe(db, "bad").state is RecipeState.finished


def test_an_interrupted_run_is_resumed_without_a_person(db: Database, home: Home, starter: PolicyRow) -> None:
    recipe = start(db, "demo", RULE)
    advance(db, home, recipe.id)
    run_id = last_round(db, recipe.id).evidence["runs"]["fill 0"]
    for state in (RunState.starting, RunState.running, RunState.interrupted):
        lifecycle.advance(db, run_id, state)
    advance(db, home, recipe.id)
    run = find_run(db, run_id)
    assert run is not None and (run.state, run.attempt) == (RunState.queued, 2)
    assert get_recipe(db, "demo").state is RecipeState.active


def test_a_pool_that_cannot_be_filled_is_said_and_skipped(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db, per_run=3)
    recipe = start(db, "demo", PEOPLE | {"rounds": 1, "pairs": 5})
    row = step(db, home, recipe, runs)
    assert row.state is RoundState.labeling and list(row.evidence["runs"]) == ["fill 0", "fill 1"]

    empty = start(db, "empty", PEOPLE)
    step(db, home, empty, PretendedRuns(db, per_run=0))
    assert "Only 0 of 6 pairs could be drawn; import more prompts" in get_recipe(db, "empty").reason


def test_skip_freezes_what_was_judged_and_holds_at_the_gate(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "demo", PEOPLE | {"rounds": 1})
    step(db, home, recipe, runs)
    vote(db, 3)
    assert skip(db, "demo") == "what was judged is frozen"
    row = step(db, home, recipe, runs)
    assert row.state is RoundState.evaluating and row.evidence["judged"] == 3
    judge_by(db, longer, count=2)
    skip(db, "demo")
    row = step(db, home, recipe, runs)
    assert row.state is RoundState.gate and row.evidence["over_champion"]["judgments"] == 2
    assert count_matchups(db, purposes=[Purpose.evaluate]).open == 0, "nobody is asked for what is not waited for"
    skip(db, "demo")
    assert step(db, home, recipe, runs).state is RoundState.held
    with pytest.raises(Conflict, match="no round under way"):
        skip(db, "demo")


def test_a_paused_recipe_waits_and_a_cancelled_one_withdraws_its_pairs(
    db: Database, home: Home, starter: PolicyRow
) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "demo", PEOPLE)
    step(db, home, recipe, runs)
    pause(db, "demo")
    vote(db)
    assert step(db, home, recipe, runs).state is RoundState.labeling
    with pytest.raises(Conflict, match="only one that is active can be paused"):
        pause(db, "demo")
    resume(db, home, "demo")
    assert step(db, home, recipe, runs).state is RoundState.evaluating

    other = start(db, "other", PEOPLE)
    step(db, home, other, runs)
    batch = find_batch(db, "other-1")
    assert batch is not None and count_matchups(db, batch_id=batch.id).open >= 6
    cancel(db, "other")
    assert count_matchups(db, batch_id=batch.id).open == 0
    assert last_round(db, other.id).state is RoundState.cancelled
    with pytest.raises(Conflict, match="cancelled already"):
        cancel(db, "other")


def test_a_look_that_a_cancel_overtook_leaves_no_run(
    db: Database, home: Home, starter: PolicyRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = start(db, "demo", PEOPLE)
    fill = engine.STAGES[RoundState.filling]

    def overtaken(context: RoundContext) -> Step:
        found = fill(context)
        cancel(db, "demo")
        return found

    monkeypatch.setitem(engine.STAGES, RoundState.filling, overtaken)
    advance(db, home, recipe.id)
    assert [run.state for run in list_runs(db)] == [RunState.cancelled]
    assert last_round(db, recipe.id).state is RoundState.cancelled


def test_cancel_ends_the_runs_of_the_round(db: Database, home: Home, starter: PolicyRow) -> None:
    recipe = start(db, "demo", PEOPLE)
    advance(db, home, recipe.id)
    run_id = last_round(db, recipe.id).evidence["runs"]["fill 0"]
    cancel(db, "demo")
    assert find_run(db, run_id).state is RunState.cancelled  # type: ignore[union-attr]
    advance_recipes(db, home)
    assert last_round(db, recipe.id).state is RoundState.cancelled


def test_a_fork_keeps_the_settings_but_for_what_is_changed(db: Database, home: Home, starter: PolicyRow) -> None:
    start(db, "demo", PEOPLE | {"seed": 7})
    made = fork(db, "demo", "again", {"pairs": 9, "methods": [{"method": "kto"}]})
    assert made.forked_from == get_recipe(db, "demo").id
    assert (made.settings["pairs"], made.settings["seed"], made.settings["policy"]) == (9, 7, "starter")
    assert [one["method"] for one in made.settings["methods"]] == ["kto"]
    with pytest.raises(Conflict, match="already a recipe 'again'"):
        fork(db, "demo", "again", {})


def test_methods_follow_each_other_and_the_rewarded_one_gets_the_rounds_reward_model(
    db: Database, home: Home, starter: PolicyRow
) -> None:
    runs = PretendedRuns(db)
    methods = [{"method": "dpo", "settings": {"epochs": "2"}}, {"method": "rft"}]
    recipe = start(db, "demo", RULE | {"rounds": 1, "methods": methods})
    row = step(db, home, recipe, runs)
    trained = {method: config for method, config in runs.asked if method in ("reward", "dpo", "rft")}
    assert list(trained) == ["reward", "dpo", "rft"]
    assert (trained["dpo"]["parent"], trained["rft"]["parent"]) == ("starter", "demo-1-1-dpo")
    assert trained["rft"]["reward"] == trained["reward"]["name"] == "demo-1-reward"
    assert row.evidence["policy"] == "demo-1"


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"pairs": 0}, InvalidInput, "pairs"),
        ({"colour": "red"}, UnknownSetting, "no setting 'colour'. Valid: policy, rounds"),
        ({"methods": [{"method": "reward"}]}, UnknownSetting, "cannot train by 'reward'. Valid: dpo"),
        ({"methods": [{"method": "dpo", "settings": {"beta": 99}}]}, UnknownSetting, "beta"),
        ({"annotator": "sweeter"}, UnknownSetting, "sweeter"),
        ({"annotator": "shorter", "opinions": 2}, InvalidInput, "one opinion"),
        ({"annotator": "reward"}, InvalidInput, "only evaluates"),
        ({"limits": {"fun": 1.0}}, InvalidInput, "no limit 'fun'; valid: margin"),
        ({"limits": {"kl": float("inf")}}, InvalidInput, "kl must be a finite number"),
        ({"pairs": -3}, InvalidInput, "it is -3"),
        ({"methods": [{"method": "dpo", "settings": {"name": "mine"}}]}, InvalidInput, "sets name of dpo itself"),
        ({"evaluator": "reward:nope"}, NotFound, "nope"),
        ({"policy": "nobody"}, NotFound, "nobody"),
        ({"tags": ["none such"]}, NotEnoughData, "none such"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_before_anything_is_kept(
    db: Database, starter: PolicyRow, settings: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        start(db, "demo", PEOPLE | settings)
    with pytest.raises(NotFound):
        get_recipe(db, "demo")


def test_a_decision_is_for_a_gate(db: Database, home: Home, starter: PolicyRow) -> None:
    start(db, "demo", PEOPLE)
    with pytest.raises(Conflict, match="nothing is to be decided"):
        decide(db, "demo", "promote", "rita")
    with pytest.raises(InvalidInput, match="Valid: promote, hold"):
        decide(db, "demo", "maybe", "rita")  # type: ignore[arg-type]


def test_guidance_says_when_labeling_ends_and_what_the_curve_says(db: Database, home: Home, starter: PolicyRow) -> None:
    recipe = start(db, "demo", PEOPLE | {"pairs": 10})
    step(db, home, recipe, PretendedRuns(db))
    rows = list_rounds(db, recipe.id)
    assert not any("pace" in line for line in guidance(db, recipe, rows)), "nobody judged yet"
    vote(db, 5)
    assert any(line.startswith("5 judgments are missing; at today's pace") for line in guidance(db, recipe, rows))

    def ended(number: int, low: float) -> RoundRow:
        figures = {"win_rate": low + 0.1, "low": low, "high": low + 0.2}
        return RoundRow(
            recipe_id="r", number=number, champion_id="p", since=now() - timedelta(days=1),
            evidence={"over_champion": figures},
        )  # fmt: skip

    assert curve_words([ended(1, 0.6), ended(2, 0.6)]) == []
    assert "go on" in curve_words([ended(n, 0.6) for n in (1, 2, 3)])[0]
    assert "None of the last 3" in curve_words([ended(n, 0.4) for n in (1, 2, 3)])[0]
    assert "2 of the last 3" in curve_words([ended(1, 0.4), ended(2, 0.6), ended(3, 0.6)])[0]


def test_people_and_rules_judge_their_own_pairs_alone(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    people, rule = start(db, "people", PEOPLE), start(db, "rule", RULE | {"rounds": 1})
    advance(db, home, people.id)
    advance(db, home, rule.id)
    end_runs(db, runs)
    advance(db, home, people.id)
    assert annotate(db, home, "shorter", 50).judged == 0, "another rule takes nobody's pairs"
    assert vote(db) >= 6
    batch = find_batch(db, "rule-1")
    assert batch is not None and count_matchups(db, batch_id=batch.id).satisfied == 0
    step(db, home, rule, runs)
    assert get_dataset(db, "rule-1").counts["judgments"] == 6


def test_an_evaluation_that_fails_can_be_skipped(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "demo", RULE | {"rounds": 1, "promote": "ask"})
    for _ in range(20):
        row = last_round(db, recipe.id)
        if row.state is RoundState.evaluating and "evaluate over_champion" in row.evidence.get("runs", {}):
            break
        end_runs(db, runs)
        advance(db, home, recipe.id)
    failed = last_round(db, recipe.id).evidence["runs"]["evaluate over_champion"]
    lifecycle.advance(db, failed, RunState.starting)
    lifecycle.advance(db, failed, RunState.failed, error="Out of memory.")
    advance(db, home, recipe.id)
    assert get_recipe(db, "demo").state is RecipeState.paused
    skip(db, "demo")
    advance(db, home, recipe.id)
    assert last_round(db, recipe.id).state is RoundState.gate


def test_two_policies_that_say_the_same_leave_evaluating(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "demo", PEOPLE | {"rounds": 1})
    step(db, home, recipe, runs)
    vote(db, 6)
    runs._put_before_people = lambda config: {"identical": 8}  # type: ignore[method-assign]
    row = step(db, home, recipe, runs)
    assert row.state is RoundState.gate and row.evidence["gate"]["verdict"] == "HOLD"


def test_ties_alone_freeze_nothing_and_more_votes_help(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "demo", PEOPLE | {"rounds": 1})
    step(db, home, recipe, runs)
    judge_by(db, lambda left, right: 0, count=1)
    skip(db, "demo")
    step(db, home, recipe, runs)
    assert "Only 0 of the 1 judged pairs can be trained on" in get_recipe(db, "demo").reason
    vote(db, 5)
    resume(db, home, "demo")
    row = step(db, home, recipe, runs)
    assert row.state is RoundState.evaluating and row.evidence["ties"] == 1
    assert get_dataset(db, "demo-1").counts["pairs"] == 5


def test_judgments_without_a_preference_are_counted_and_said(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "demo", PEOPLE | {"rounds": 1, "pairs": 16})
    step(db, home, recipe, runs)
    judge_by(db, lambda left, right: 0, count=10)
    vote(db, 6)
    row = step(db, home, recipe, runs)  # all are judged before anybody looks again
    assert (row.evidence["judged"], row.evidence["ties"]) == (16, 10)
    (words,) = [words for words in guidance(db, recipe, [row]) if "prefer neither" in words]
    assert words.startswith("10 of 16 judgments of round 1 prefer neither reply")


def test_a_pool_that_ran_out_is_skipped_to_training(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db, per_run=4)
    recipe = start(db, "demo", PEOPLE | {"rounds": 1, "pairs": 50})
    for _ in range(2):
        end_runs(db, runs)
        advance(db, home, recipe.id)
    vote(db)
    runs.per_run = 0
    step(db, home, recipe, runs)
    assert get_recipe(db, "demo").state is RecipeState.paused
    skip(db, "demo")
    row = step(db, home, recipe, runs)
    assert row.state is RoundState.evaluating and row.evidence["judged"] == 4 + 4 * (row.evidence["judged"] > 4)


def test_skipping_a_fill_cancels_it_and_resume_does_not_revive_it(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db, per_run=4)
    recipe = start(db, "demo", PEOPLE | {"rounds": 1, "pairs": 50})
    advance(db, home, recipe.id)
    end_runs(db, runs)
    advance(db, home, recipe.id)
    fill = last_round(db, recipe.id).evidence["runs"]["fill 1"]
    skip(db, "demo")
    advance(db, home, recipe.id)
    assert last_round(db, recipe.id).state is RoundState.labeling
    assert find_run(db, fill).state is RunState.cancelled  # type: ignore[union-attr]
    pause(db, "demo")
    resume(db, home, "demo")
    assert find_run(db, fill).state is RunState.cancelled  # type: ignore[union-attr]


def test_names_that_rounds_would_make_are_free(db: Database, home: Home, starter: PolicyRow) -> None:
    from feedback.datasets.freeze import freeze

    make_policy(db, "trained-2")
    ensure_batch(db, Batch(name="pool-1"))
    freeze(db, "votes-1")
    for name, words in (
        ("trained", "already a policy 'trained-2'"),
        ("pool", "already a batch 'pool-1'"),
        ("votes", "already a dataset 'votes-1'"),
    ):
        with pytest.raises(Conflict, match=words):
            start(db, name, PEOPLE)
    with pytest.raises((InvalidInput, ValueError), match="cannot name a round"):
        start(db, "x" * 79, PEOPLE)
    assert list_runs(db) == []


def test_a_cancel_that_was_cut_short_is_finished(
    db: Database, home: Home, starter: PolicyRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = start(db, "demo", PEOPLE)
    advance(db, home, recipe.id)
    with monkeypatch.context() as patch:
        patch.setattr("training.rounds.acts.clean_up", lambda db, recipe: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cancel(db, "demo")
    advance_recipes(db, home)
    assert get_recipe(db, "demo").state is RecipeState.cancelled
    assert [run.state for run in list_runs(db)] == [RunState.cancelled]


def test_a_person_promotes_whoever_serves_and_not_while_paused(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    other = make_policy(db, "other")
    recipe = start(db, "demo", RULE | {"rounds": 1, "promote": "ask", "policy": other.name})
    assert step(db, home, recipe, runs).state is RoundState.gate
    pause(db, "demo")
    with pytest.raises(Conflict, match="resume it first"):
        decide(db, "demo", "promote", "rita")
    resume(db, home, "demo")
    decide(db, "demo", "promote", "rita")
    assert step(db, home, recipe, runs).state is RoundState.promoted
    assert get_champion(db).name == "demo-1"  # type: ignore[union-attr]


def test_a_cancel_withdraws_what_people_were_to_compare(db: Database, home: Home, starter: PolicyRow) -> None:
    runs = PretendedRuns(db)
    recipe = start(db, "demo", PEOPLE)
    step(db, home, recipe, runs)
    vote(db, 6)
    assert step(db, home, recipe, runs).state is RoundState.evaluating
    assert count_matchups(db, purposes=[Purpose.evaluate]).open == 8
    cancel(db, "demo")
    assert count_matchups(db, purposes=[Purpose.evaluate]).open == 0


def test_a_fill_that_fails_while_people_label_is_resumed_when_it_is_needed(
    db: Database, home: Home, starter: PolicyRow
) -> None:
    recipe = start(db, "demo", PEOPLE | {"pairs": 6})
    advance(db, home, recipe.id)
    batch = find_batch(db, "demo-1")
    assert batch is not None
    pairs = [make_matchup(db, texts=[f"short {n}", f"a good deal longer {n}"], batch=batch) for n in range(6)]
    advance(db, home, recipe.id)
    assert last_round(db, recipe.id).state is RoundState.labeling, "the fill still draws its spare pairs"
    fill = last_round(db, recipe.id).evidence["runs"]["fill 0"]
    lifecycle.advance(db, fill, RunState.starting)
    lifecycle.advance(db, fill, RunState.failed, error="The disk is full.")
    with db.write() as session:  # as when a prompt is retired
        for row in pairs:
            session.merge(row).state = MatchupState.retired
    advance(db, home, recipe.id)
    assert get_recipe(db, "demo").state is RecipeState.paused
    resume(db, home, "demo")
    assert find_run(db, fill).state is RunState.queued  # type: ignore[union-attr]


def test_a_policy_that_did_not_take_over_is_explained(db: Database, home: Home, starter: PolicyRow) -> None:
    recipe = start(db, "demo", RULE | {"rounds": 1})
    runs = PretendedRuns(db)
    for _ in range(20):
        if last_round(db, recipe.id).state is RoundState.evaluating:
            break
        end_runs(db, runs)
        advance(db, home, recipe.id)
    promote_policy(db, make_policy(db, "other").id)
    step(db, home, recipe, runs)
    rounds = list_rounds(db, recipe.id)
    assert rounds[-1].state is RoundState.held
    assert "demo-1 is held: it was compared with starter, and other is the champion now." in guidance(
        db, get_recipe(db, "demo"), rounds
    )
