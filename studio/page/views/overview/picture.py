"""The round as a picture: six stages in a circle, each with its state, its count and a link to its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from feedback.types import RoundState
from studio.page.html import Html, badge, element, progress_bar
from studio.page.text import share
from studio.page.views.overview.next_step import active_run

DONE, NOW, NEXT = "done", "now", "next"
_TONES = {DONE: "good", NOW: "busy", NEXT: "neutral", "paused": "warn"}
_ORDER = tuple(state for state in RoundState if not state.is_terminal)
_VERDICTS = {"PROMOTE": "promote", "HOLD": "undecided", "REJECT": "reject"}


class Stage(NamedTuple):
    """A stage: its name, what it counts or found, how far it is from 0 to 1, and the address of its evidence."""

    name: str
    found: str
    fraction: float | None
    link: str


def picture(recipe: Mapping[str, Any]) -> Html:
    """The stages of the last round of a recipe, in order."""
    stages = _stages(recipe)
    place = _place(recipe)
    drawn = [
        _drawn(stage, _state_of(number, place, recipe["state"] == "paused")) for number, stage in enumerate(stages)
    ]
    label = f"Round {recipe['round']} of {recipe['of']}"
    back = element("p", "The champion writes the pairs of the next round.", class_="round-back")
    return element("div", element("ol", *drawn, class_="round-stages", aria_label=label), back, class_="round-picture")


def _place(recipe: Mapping[str, Any]) -> int:
    """How many stages are done; all six where the round has ended."""
    state = RoundState(recipe["round_state"])
    if state is RoundState.cancelled:  # it ended in the stage before
        entered = [RoundState(one["state"]) for one in recipe["rounds"][-1]["history"]]
        return max((_ORDER.index(one) for one in entered if one in _ORDER), default=0)
    return _ORDER.index(state) if state in _ORDER else len(_ORDER)


def _state_of(number: int, place: int, paused: bool) -> str:
    if number == place:
        return "paused" if paused else NOW
    return DONE if number < place else NEXT


def _drawn(stage: Stage, state: str) -> Html:
    bar: Html | str = ""
    if state in (NOW, "paused") and stage.fraction is not None:
        bar = progress_bar(stage.fraction, f"{stage.name}: {stage.found}")
    return element(
        "li",
        element("a", stage.name, href=stage.link, class_="stage-name"),
        badge(state, _TONES[state]),
        element("span", stage.found or "—", class_="stage-count"),
        bar,
        class_=f"stage stage-{state}",
        aria_current="step" if state in (NOW, "paused") else None,
    )


def _stages(recipe: Mapping[str, Any]) -> list[Stage]:
    pool, wanted = recipe["pool"], int(recipe["settings"]["pairs"])
    evidence = recipe["rounds"][-1]["evidence"]
    drawn = min(pool["judged"] + pool["open"] + pool["disputed"], wanted)
    judged = min(pool["judged"], wanted)
    return [
        Stage("Fill", f"{drawn:,} of {wanted:,} pairs", drawn / wanted, _run_link(recipe, "fill", "#label")),
        Stage("Label", f"{judged:,} of {wanted:,} judged", judged / wanted, "#label"),
        Stage("Freeze", _pairs(evidence), None, _link("datasets", recipe["dataset_id"])),
        _training(recipe),
        _evaluation(recipe, evidence),
        Stage("Gate", _verdict(recipe, evidence), None, _link("policies", recipe["policy_id"])),
    ]


def _pairs(evidence: Mapping[str, Any]) -> str:
    return f"{evidence['pairs']:,} usable pairs" if "pairs" in evidence else ""


def _training(recipe: Mapping[str, Any]) -> Stage:
    policy = recipe["rounds"][-1]["evidence"].get("policy")
    run = active_run(recipe) if recipe["round_state"] in ("frozen", "training") else None
    link = _run_link(recipe, "", "#train", but=("fill", "judge", "evaluate", "benchmark"))
    if policy:
        return Stage("Train", str(policy), None, link)
    return Stage("Train", _run_words(run), run["progress"] if run else None, link)


def _evaluation(recipe: Mapping[str, Any], evidence: Mapping[str, Any]) -> Stage:
    figures = evidence.get("over_champion") or {}
    link = _run_link(recipe, "evaluate", _link("policies", recipe["policy_id"]))
    if figures.get("win_rate") is not None:
        return Stage("Evaluate", f"{share(figures['win_rate'], 1)} wins", None, link)
    run = active_run(recipe) if recipe["round_state"] == RoundState.evaluating else None
    return Stage("Evaluate", _run_words(run), run["progress"] if run else None, link)


def _run_words(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return ""
    if run["state"] == "queued":
        return f"{run['method']}, queued"
    return f"{run['method']}, {share(run['progress'])}"


def _verdict(recipe: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    state = recipe["round_state"]
    if state in ("promoted", "held", "rejected"):
        return str(state)
    verdict = (evidence.get("gate") or {}).get("verdict")
    return _VERDICTS.get(str(verdict), "") if verdict else ""


def _run_link(recipe: Mapping[str, Any], purpose: str, otherwise: str, but: tuple[str, ...] = ()) -> str:
    """The address of the newest run of the round for a purpose, by how its name begins."""
    found = [
        run["id"]
        for run in recipe["rounds"][-1]["runs"]
        if run["purpose"].startswith(purpose) and not (but and run["purpose"].startswith(but))
    ]
    return f"#train/{found[-1]}" if found else otherwise


def _link(tab: str, key: str | None) -> str:
    return f"#{tab}/{key}" if key else f"#{tab}"
