"""Datasets: what there is to learn from, frozen so that it never changes again."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback.types import DatasetFilters, Source, now
from studio import present
from studio.services import Services
from studio.tabs import QUICK, TOLD, bind, markup, on_pick, picker

_UNLESS_TYPED = "(suggested, typed) => [typed && typed.trim() ? typed : suggested]"


def refresh(services: Services, selected: str | None) -> tuple[Any, ...]:
    """The counts, the list and a free name for the next dataset."""
    return (
        present.feedback_counts(services.feedback_counts()),
        present.datasets_table(services.list_datasets(), selected, now()),
        services.suggest_dataset_name(),
    )


def freeze(services: Services, name: str, sources: list[str], format_name: str) -> tuple[Any, ...]:
    """Freeze what was judged, and show the new dataset."""
    row = services.freeze(name, DatasetFilters(sources=tuple(Source(source) for source in sources)))
    gr.Info(present.frozen_text(row, services.twin_of(row)))
    return (*refresh(services, row.id), *select(services, row.id, format_name)[1:])


def select(services: Services, key: str, format_name: str) -> tuple[Any, ...]:
    """Show one dataset: its list row marked, its details, its download."""
    row = services.get_dataset(key)
    return (
        present.datasets_table(services.list_datasets(), row.id, now()),
        row.id,
        present.dataset_detail(row, services.preview_pairs(row.id)),
        present.download_link(row, format_name),
        gr.update(visible=True),
    )


def choose_format(services: Services, selected: str | None, format_name: str) -> Any:
    """The download link in another format."""
    return present.download_link(services.get_dataset(selected), format_name) if selected else ""


def build_tab(services: Services, tab: gr.Tab) -> None:
    """Lay the tab out and connect it."""
    selected = gr.State(None)
    suggested = gr.Textbox(visible=False)
    counts = markup(elem_id="feedback-counts")
    with gr.Row(elem_id="freeze-bar"):
        name = gr.Textbox(label="Name", elem_id="dataset-name", min_width=180)
        sources = gr.CheckboxGroup(
            [source.value for source in Source],
            value=[source.value for source in Source],
            label="Judgments by",
            elem_id="dataset-sources",
            min_width=240,
        )
        freeze_button = gr.Button("Freeze a dataset", variant="primary", elem_id="freeze", min_width=160)
    table = picker("datasets-table")
    detail = markup(elem_id="dataset-detail")
    formats = services.format_names()
    with gr.Row(elem_id="download-bar", visible=False) as download_bar:
        format_name = gr.Dropdown(
            formats,
            value="trl-preference" if "trl-preference" in formats else formats[0],
            label="Format",
            elem_id="export-format",
            min_width=180,
        )
        link = markup(elem_id="download-link")

    shown = [table, selected, detail, link, download_bar]
    opened = tab.select(bind(refresh, services), [selected], [counts, table, suggested], **QUICK)
    # The browser decides, when the answer comes: what was typed meanwhile stays.
    opened.then(None, [suggested, name], [name], js=_UNLESS_TYPED)
    freeze_button.click(
        bind(freeze, services),
        [name, sources, format_name],
        [counts, table, name, *shown[1:]],
        **TOLD,
    )
    on_pick(table, select, services, [format_name], shown)
    format_name.change(bind(choose_format, services), [selected, format_name], [link], **TOLD)
