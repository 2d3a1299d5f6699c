"""The list of runs on the Train tab: a page at a time, narrowed by method, state and name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from feedback.tables import RunRow
from feedback.types import RunState, now
from studio.page.tabs.wiring import picker
from studio.page.views.training import runs as runs_view
from studio.services.facade import Services
from studio.services.runs import RunsAsked, RunsPage
from training.settings.registry import SETTINGS

PAGE = 50

Listing = dict[str, Any]
"""What is listed: ``method``, ``state``, ``name``, and ``trail``, the cursor of every page turned so far."""


class RunsList(NamedTuple):
    """The table with what narrows and turns it."""

    method: gr.Dropdown
    state: gr.Dropdown
    name: gr.Textbox
    table: gr.HTML
    newer: gr.Button
    older: gr.Button
    listing: gr.State

    def narrowing(self) -> list[gr.components.Component]:
        """The fields that narrow the list."""
        return [self.method, self.state, self.name]

    def turned(self) -> list[gr.components.Component]:
        """Everything that ``narrow`` and ``turn`` write, in their order."""
        return [self.listing, self.table, self.newer, self.older]


def lay() -> RunsList:
    """Lay the list out."""
    with gr.Row(elem_id="runs-filter"):
        method = gr.Dropdown(
            [("all", ""), *((name, name) for name in sorted(SETTINGS))],
            value="",
            label="Method",
            elem_id="runs-method",
            min_width=140,
        )
        state = gr.Dropdown(
            [("all", ""), *((one.value, one.value) for one in RunState)],
            value="",
            label="State",
            elem_id="runs-state",
            min_width=140,
        )
        name = gr.Textbox(label="Name or id", placeholder="any", elem_id="runs-name", max_lines=1, min_width=160)
    table = picker("runs-table")
    with gr.Row(elem_id="runs-pages"):
        newer = gr.Button("Newer", elem_id="runs-newer", min_width=84, size="sm", visible=False)
        older = gr.Button("Older", elem_id="runs-older", min_width=84, size="sm", visible=False)
    return RunsList(method, state, name, table, newer, older, gr.State(None))


def shown(services: Services, selected: str | None, listing: Listing | None = None) -> tuple[str, Any, Any]:
    """The table, and whether there are newer and older runs than those in it."""
    trail = list((listing or {}).get("trail") or [])
    page = services.runs.page_of_runs(_asked(listing, trail), PAGE)
    rows = _with_selected(services, page.runs, selected)
    note = _place(page, len(trail))
    table = runs_view.runs_table(
        rows, selected, now(), services.runs.names(), note=note, narrowed=_is_narrowed(listing)
    )
    return table, gr.Button(visible=bool(trail)), gr.Button(visible=page.older is not None)


def narrow(services: Services, selected: str | None, method: str, state: str, name: str) -> tuple[Any, ...]:
    """List what fits the fields, from the newest on."""
    listing: Listing = {"method": method or None, "state": state or None, "name": name.strip() or None, "trail": []}
    return listing, *shown(services, selected, listing)


def turn_older(services: Services, selected: str | None, listing: Listing | None) -> tuple[Any, ...]:
    """The page of older runs; the last page stays where there is none after it."""
    trail = list((listing or {}).get("trail") or [])
    older = services.runs.page_of_runs(_asked(listing, trail), PAGE).older
    turned = {**(listing or {}), "trail": [*trail, older] if older else trail}
    return turned, *shown(services, selected, turned)


def turn_newer(services: Services, selected: str | None, listing: Listing | None) -> tuple[Any, ...]:
    """The page before this one."""
    turned = {**(listing or {}), "trail": list((listing or {}).get("trail") or [])[:-1]}
    return turned, *shown(services, selected, turned)


def _asked(listing: Listing | None, trail: Sequence[str]) -> RunsAsked:
    given = listing or {}
    states = (RunState(given["state"]),) if given.get("state") else None
    return RunsAsked(given.get("method"), states, given.get("name"), trail[-1] if trail else None)


def _is_narrowed(listing: Listing | None) -> bool:
    return any((listing or {}).get(field) for field in ("method", "state", "name"))


def _place(page: RunsPage, turned: int) -> str:
    """Which of all runs stand in the table; nothing is said where it holds them all."""
    if page.total <= len(page.runs) or not page.runs:
        return ""
    first = turned * PAGE + 1
    return f"{first:,} to {first + len(page.runs) - 1:,} of {page.total:,} runs"


def _with_selected(services: Services, runs: list[RunRow], selected: str | None) -> list[RunRow]:
    """The runs of a page, and the one shown where it stands on another page."""
    if not selected or any(run.id == selected for run in runs):
        return runs
    return [*runs, services.runs.get_run(selected)]
