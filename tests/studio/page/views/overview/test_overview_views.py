"""The Overview as values to markup: the stages of a round, its next step, what can be done, and hostile names."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from studio.page.tabs import recipe_form
from studio.page.views.overview import charts, lists
from studio.page.views.overview.next_step import next_step
from studio.page.views.overview.panel import panel
from studio.page.views.overview.picture import picture
from tests.studio.page.views.test_views import Reader
from training.rounds.recipe import RecipeSettings, parse_recipe

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HOSTILE = '<img src=x onerror="alert(1)">'
FIGURES = {"win_rate": 0.62, "low": 0.55, "high": 0.69, "n_prompts": 150}
GATE = {
    "verdict": "PROMOTE",
    "reasons": [{"question": "win rate", "answer": "passed", "words": "It wins 62.0 % of comparisons."}],
}


def overview(state: str = "labeling", recipe_state: str = "active", **evidence: Any) -> dict[str, Any]:
    """A home with one recipe whose only round is in a state."""
    row = {
        "number": 1, "state": state, "since": NOW.isoformat(), "waits_for": "", "champion": "starter",
        "can_skip": True, "evidence": evidence, "runs": [], "history": [{"state": "filling", "at": NOW.isoformat()}],
    }  # fmt: skip
    recipe = {
        "id": "rec-1", "name": "house", "state": recipe_state, "reason": "", "round": 1, "of": 3,
        "round_state": state, "waits_for": "", "since": NOW.isoformat(), "created_at": NOW.isoformat(),
        "settings": RecipeSettings(pairs=200).model_dump(mode="json"), "guidance": ["Round 1 waits for people."],
        "rounds": [row], "pool": {"judged": 84, "open": 116, "leased": 1, "disputed": 0},
        "dataset_id": None, "policy_id": None, "people_compare": True,
    }  # fmt: skip
    return {
        "champion": "starter", "recipes": [recipe], "recipe": recipe, "champions": [], "runs": [], "worker": True,
        "judgments": {"days": ["2026-11-22", "2026-11-23"], "people": {}}, "disk": {"free": 2**40, "total": 2**41},
    }  # fmt: skip


def run(state: str = "running", purpose: str = "0 dpo", method: str = "dpo") -> dict[str, Any]:
    return {
        "purpose": purpose, "id": "run-1", "method": method, "state": state, "progress": 0.4, "progress_text": "",
    }  # fmt: skip


def with_run(shown: dict[str, Any], **of: Any) -> dict[str, Any]:
    shown["recipe"]["rounds"][-1]["runs"] = [run(**of)]
    return shown


@pytest.mark.parametrize(
    ("shown", "first"),
    [
        (overview() | {"recipe": None}, ("Start a round", "act:start")),
        (overview(), ("Label pairs", "#label")),
        (overview("labeling", "paused"), ("Resume", "act:resume")),
        (overview("promoted", "finished"), ("Start a round", "act:start")),
        (overview("gate", gate=GATE), ("Promote", "act:promote")),
        (overview("gate", gate=GATE | {"verdict": "HOLD"}), ("Hold", "act:hold")),
        (with_run(overview("training")), ("Open the run", "#train/run-1")),
        (with_run(overview("evaluating"), method="generate"), ("Open the run", "#train/run-1")),
        (overview("evaluating"), ("Label pairs", "#label")),
        # Pairs can be judged while more are being drawn
        (with_run(overview("filling"), purpose="fill 0", method="generate"), ("Label pairs", "#label")),
    ],
)
def test_each_state_has_one_next_step(shown: dict[str, Any], first: tuple[str, str]) -> None:
    assert next_step(shown).buttons[0] == first
    assert panel(shown, NOW).count("button-primary") == 1


def test_nothing_is_asked_where_the_worker_goes_on_by_itself() -> None:
    assert next_step(overview("training")).buttons == ()
    assert next_step(overview("gate", gate=GATE, decision={"choice": "hold"})).buttons == ()
    by_gate = overview("gate", gate=GATE)
    by_gate["recipe"]["settings"]["promote"] = "auto"
    assert next_step(by_gate).buttons == ()


def test_disputes_come_before_labeling_where_nothing_else_is_left() -> None:
    shown = overview()
    shown["recipe"]["pool"] = {"judged": 190, "open": 0, "leased": 0, "disputed": 10}
    assert next_step(shown).buttons == (("Resolve disputes", "#review"),)


def test_the_worker_is_missed_only_where_it_is_waited_for() -> None:
    for shown, missed in ((overview(), False), (overview("gate", gate=GATE), False), (overview("training"), True)):
        assert ("No worker is running" in panel(shown | {"worker": False}, NOW)) is missed


def test_the_picture_counts_what_is_done_and_links_the_evidence() -> None:
    drawn = picture(overview()["recipe"])
    read = Reader(drawn).text
    assert "200 of 200 pairs" in read and "84 of 200 judged" in read
    assert read.count("done") == 1 and read.count("now") == 1 and drawn.count("stage-next") == 4
    assert 'aria-valuenow="42"' in drawn and drawn.count('aria-current="step"') == 1
    shown = overview("gate", gate=GATE, policy="house-1", pairs=150, over_champion=FIGURES)["recipe"]
    shown |= {"dataset_id": "dat-1", "policy_id": "pol-1"}
    shown["rounds"][0]["runs"] = [run("succeeded"), run("succeeded", "evaluate over_champion") | {"id": "run-2"}]
    drawn = picture(shown)
    assert all(part in drawn for part in ("#datasets/dat-1", "#policies/pol-1", "#train/run-1", "#train/run-2"))
    assert all(part in Reader(drawn).text for part in ("150 usable pairs", "house-1", "62.0 % wins", "promote"))


def test_a_round_that_ended_is_done_to_its_end() -> None:
    assert picture(overview("promoted", "finished")["recipe"]).count("stage-done") == 6
    cancelled = overview("cancelled", "cancelled")["recipe"]
    assert picture(cancelled).count("stage-done") == 0


def test_what_can_be_done_depends_on_the_state_and_cancel_asks_first() -> None:
    acts = panel(overview(), NOW)
    assert all(f'data-pick="{act} rec-1"' in acts for act in ("pause", "skip", "fork", "start", "cancel"))
    question = acts[acts.index('<details data-part="cancel rec-1"') :]
    assert question.startswith('<details data-part="cancel rec-1" class="question"><summary')  # closed
    assert 'data-pick="cancel rec-1"' in question and acts.count('data-pick="cancel rec-1"') == 1
    over = panel(overview("promoted", "finished"), NOW)
    assert 'data-pick="fork rec-1"' in over and 'data-pick="cancel rec-1"' not in over


def test_names_are_text_everywhere() -> None:
    shown = overview("gate", gate=GATE, policy=HOSTILE, over_champion=FIGURES)
    shown["recipe"] |= {"name": HOSTILE, "guidance": [HOSTILE], "reason": HOSTILE}
    shown["recipe"]["rounds"][0]["champion"] = HOSTILE
    shown["recipes"] = [shown["recipe"]] * 2
    shown["runs"] = [run() | {"name": HOSTILE, "text": HOSTILE, "seconds_left": 90.0}]
    shown["champions"] = [
        {"policy": HOSTILE, "policy_id": "pol-1", "at": NOW.isoformat(), "again": False, "first": False,
         "verdict": "HOLD", "words": HOSTILE, "by": HOSTILE}
    ]  # fmt: skip
    shown["judgments"]["people"] = {HOSTILE: [1, 0]}
    made = [
        panel(shown, NOW), lists.running(shown), lists.champions(shown, NOW), lists.history(shown["recipe"], NOW),
        lists.recipes(shown["recipes"], None, NOW), charts.judgments_words(shown["judgments"]),
    ]  # fmt: skip
    for part in made:
        assert "img" not in Reader(part).tags
        assert HOSTILE in Reader(part).text
    figure = charts.judgments_figure(shown["judgments"])
    assert figure is not None and "<" not in figure.data[0].name


def test_a_run_says_how_long_it_still_takes() -> None:
    shown = overview() | {"runs": [run() | {"name": "", "text": "step 40 of 90", "seconds_left": 130.0}]}
    assert "step 40 of 90, about 2 min left" in Reader(lists.running(shown)).text
    shown["runs"][0]["text"] = "step 40 of 90, 3 min left"
    assert "about" not in Reader(lists.running(shown)).text


def test_win_rates_are_over_the_start_where_that_was_measured() -> None:
    recipe = overview(over_champion=FIGURES)["recipe"]
    second = copy.deepcopy(recipe["rounds"][0]) | {"number": 2}
    third = copy.deepcopy(second) | {"number": 3}
    third["evidence"]["over_start"] = FIGURES | {"win_rate": 0.7}
    recipe["rounds"] += [second, third]
    found = charts.win_rates(recipe)
    assert [(one.number, one.value) for one in found["over the start"]] == [(1, 0.62), (3, 0.7)]
    assert [one.number for one in found["over the champion of the round"]] == [2]
    table = Reader(charts.win_rate_words(found)).text
    assert "55.0 % to 69.0 %" in table and "As a table" in table
    assert charts.win_rate_figure({}) is None and charts.win_rates(None) == {}


def test_many_people_are_drawn_as_few_and_others() -> None:
    people = {f"person-{number}": [number, 1] for number in range(12)}
    drawn = charts.judged_by({"days": ["a", "b"], "people": people})
    assert len(drawn) == charts.MOST_PEOPLE + 1
    assert sum(map(sum, drawn.values())) == sum(map(sum, people.values()))
    assert "5 others" in drawn


def test_the_form_gives_the_settings_of_a_recipe() -> None:
    names = ("name", "pairs", "annotator", "methods", "evaluator", "tags", "benchmarks", "policy")
    given = recipe_form.settings_of(names, ("x", 20.0, "warm", ["sft", "dpo"], "", None, "", None), None)
    settings = parse_recipe(given)
    assert (settings.pairs, settings.annotator, settings.evaluator, settings.policy) == (20, "warm", None, None)
    assert [step.method for step in settings.methods] == ["sft", "dpo"] and settings.tags == ()
    step = {"method": "dpo", "settings": {"epochs": 2}}
    given = recipe_form.settings_of(
        names, ("x", 20, "people", ["dpo"], None, ["a"], "t1, t2", "p"), {"settings": {"methods": [step]}}
    )
    assert given["methods"] == [step] and given["benchmarks"] == ["t1", "t2"] and given["policy"] == "p"
