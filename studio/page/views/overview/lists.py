"""What runs now, who served and why, the history of rounds, and the recipes to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from studio.page.commands import on_the_page
from studio.page.html import Html, badge, element, escape, join, progress_bar, table
from studio.page.text import ago, share
from training.reporting.pace import spelled

LITTLE_SPACE = 2 * 1024**3
"""Bytes free below which the disk is marked: a checkpoint of a small model with its states takes about one of these."""
_TONES = {"promoted": "good", "held": "warn", "rejected": "bad", "cancelled": "neutral"}
_VERDICTS = {"PROMOTE": "good", "HOLD": "warn", "REJECT": "bad"}


def running(overview: Mapping[str, Any]) -> Html:
    """The runs under way with the time they still need, the worker and the disk."""
    runs = [_run(run) for run in overview["runs"]]
    disk = overview["disk"]
    free = f"{disk['free'] / 1024**3:,.1f} of {disk['total'] / 1024**3:,.0f} GiB free"
    tone = "bad" if disk["free"] < LITTLE_SPACE else "neutral"
    worker = badge("running", "good") if overview["worker"] else badge("not running", "bad")
    return element(
        "section",
        element("h3", "Now"),
        element("ul", *runs, class_="now-runs") if runs else element("p", "No run is under way.", class_="quiet"),
        element("p", "Worker: ", worker, class_="now-line"),
        element("p", "Disk: ", badge(free, tone), class_="now-line"),
        class_="overview-card",
    )


def _run(run: Mapping[str, Any]) -> Html:
    name = run["name"] or run["method"]
    words = run["text"] or ("waits for its turn" if run["state"] == "queued" else run["state"])
    if run["seconds_left"] is not None and " left" not in words:
        words = f"{words}, about {spelled(run['seconds_left'])} left"
    link = element("a", name, href=f"#train/{run['id']}")
    detail = element("span", f" {run['method']}", class_="quiet") if run["name"] else ""
    bar = progress_bar(run["progress"], f"Progress of {name}") if run["state"] != "queued" else ""
    return element("li", link, detail, bar, element("span", words, class_="block quiet"))


def champions(overview: Mapping[str, Any], now: datetime) -> Html:
    """The champions, newest first, each with the first sentence of its gate decision."""
    lines = [_champion(one, place == 0, now) for place, one in enumerate(overview["champions"])]
    return element(
        "section",
        element("h3", "Champions"),
        element("ol", *lines, class_="lineage") if lines else element("p", "No policy serves yet.", class_="quiet"),
        class_="overview-card",
    )


def _champion(one: Mapping[str, Any], serves: bool, now: datetime) -> Html:
    head = [
        element("a", one["policy"], href=f"#policies/{one['policy_id']}"),
        badge("champion", "good") if serves else "",
        element("span", ago(datetime.fromisoformat(one["at"]), now), class_="quiet"),
    ]
    return element("li", element("div", *head, class_="champion-head"), element("div", _reason(one), class_="quiet"))


def _reason(one: Mapping[str, Any]) -> Html:
    if one["verdict"]:
        by = f" Promoted by {one['by']}." if one["by"] else ""
        gate = badge(f"gate: {one['verdict']}", _VERDICTS[one["verdict"]])
        return join([gate, f" {on_the_page(one['words'])}{by}"])
    if one["first"]:
        return escape("The first policy of this home.")
    return escape("Promoted again." if one["again"] else "Promoted by hand, outside of a round.")


def history(recipe: Mapping[str, Any] | None, now: datetime) -> Html:
    """The rounds of a recipe, newest first, each with its result."""
    if recipe is None:
        return Html("")
    rows = [
        [
            str(row["number"]),
            badge(row["state"], _TONES.get(row["state"], "busy")),
            row["champion"],
            str(row["evidence"].get("policy") or "—"),
            _win_rate(row["evidence"]),
            ago(datetime.fromisoformat(row["since"]), now),
        ]
        for row in reversed(recipe["rounds"])
    ]
    headers = ("Round", "State", "From", "Policy", "Win rate over the champion", "Since")
    shown = table(headers, rows, caption=f"Rounds of {recipe['name']}, newest first")
    return element("section", element("h3", "History"), shown, class_="overview-section")


def _win_rate(evidence: Mapping[str, Any]) -> Html:
    figures = evidence.get("over_champion") or {}
    if figures.get("win_rate") is None:
        return escape("—")
    interval = f" (95 % CI {share(figures['low'], 1)} to {share(figures['high'], 1)})"
    return element("span", element("strong", share(figures["win_rate"], 1)), interval)


def recipes(summaries: Sequence[Mapping[str, Any]], selected: str | None, now: datetime) -> Html:
    """All recipes to choose from, where there are several."""
    if len(summaries) < 2:
        return Html("")
    rows = [
        [
            one["name"],
            badge(one["state"], "busy" if one["state"] == "active" else "neutral"),
            f"{one['round']} of {one['of']}",
            one["round_state"],
            on_the_page(one["reason"] or one["waits_for"]) or "—",
            ago(datetime.fromisoformat(one["created_at"]), now),
        ]
        for one in summaries
    ]
    headers = ("Recipe", "State", "Round", "Stage", "Waits for", "Started")
    keys = [one["id"] for one in summaries]
    shown = table(headers, rows, caption="Recipes, newest first", keys=keys, selected=selected)
    return element("section", element("h3", "Recipes"), shown, class_="overview-section")
