"""Datasets: what there is to learn from, frozen so that it never changes again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from pydantic import ValidationError

from feedback.errors import InvalidInput
from feedback.store.rows import reason_of
from feedback.types import DatasetFilters, Source, now
from studio.page.tabs.wiring import QUICK, TOLD, bind, markup, on_pick, picker
from studio.page.views import datasets as datasets_view
from studio.services.facade import Services

_UNLESS_TYPED = "(suggested, typed) => [typed && typed.trim() ? typed : suggested]"


def refresh(services: Services, selected: str | None, *split: Any) -> tuple[Any, ...]:
    """The counts, the list, a free name for the next dataset, and what the split of it would be."""
    return (
        datasets_view.feedback_counts(services.datasets.feedback_counts()),
        datasets_view.datasets_table(services.datasets.list_datasets(), selected, now()),
        services.datasets.suggest_dataset_name(),
        preview(services, *split),
    )


def preview(
    services: Services, sources: list[str] | None = None, share: float | None = None, seed: float | None = None
) -> Any:
    """What a dataset frozen now would hold on each side."""
    filters = _filters(sources if sources is not None else list(Source), share, seed)
    return datasets_view.split_preview(services.datasets.preview_counts(filters), filters.test_share)


def freeze(
    services: Services,
    name: str,
    sources: list[str],
    format_name: str,
    share: float | None = None,
    seed: float | None = None,
) -> tuple[Any, ...]:
    """Freeze what was judged, and show the new dataset."""
    row = services.datasets.freeze(name.strip(), _filters(sources, share, seed))
    gr.Info(datasets_view.frozen_text(row, services.datasets.twin_of(row)))
    counts, table, suggested, split = refresh(services, row.id, sources, share, seed)
    return (counts, table, suggested, *select(services, row.id, format_name)[1:], split)


def _filters(sources: Sequence[str], share: float | None, seed: float | None) -> DatasetFilters:
    """The filters of the form; a share is in per cent there, and what is left empty is as usual."""
    usual = DatasetFilters()
    try:
        return DatasetFilters(
            sources=tuple(Source(source) for source in sources),
            test_share=usual.test_share if share is None else share / 100,
            split_seed=usual.split_seed if seed is None else int(seed),
        )
    except ValidationError as error:
        raise InvalidInput(reason_of(error)) from error


def select(services: Services, key: str, format_name: str) -> tuple[Any, ...]:
    """Show one dataset: its list row marked, its details, its download."""
    row = services.datasets.get_dataset(key)
    return (
        datasets_view.datasets_table(services.datasets.list_datasets(), row.id, now()),
        row.id,
        datasets_view.dataset_detail(row, services.datasets.preview_pairs(row.id)),
        datasets_view.download_link(row, format_name),
        gr.update(visible=True),
    )


def choose_format(services: Services, selected: str | None, format_name: str) -> Any:
    """The download link in another format."""
    return datasets_view.download_link(services.datasets.get_dataset(selected), format_name) if selected else ""


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
        share = gr.Number(
            10,
            label="Test share, %",
            info="0 to 50; of the prompts",
            precision=0,
            minimum=0,
            maximum=50,
            elem_id="test-share",
            min_width=120,
        )
        seed = gr.Number(
            0,
            label="Split seed",
            info="Another seed, another split",
            precision=0,
            minimum=0,
            elem_id="split-seed",
            min_width=120,
        )
        freeze_button = gr.Button("Freeze a dataset", variant="primary", elem_id="freeze", min_width=160)
    split = markup(elem_id="split-preview")
    table = picker("datasets-table")
    detail = markup(elem_id="dataset-detail")
    formats = services.datasets.format_names()
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
    asked = [sources, share, seed]
    opened = tab.select(bind(refresh, services), [selected, *asked], [counts, table, suggested, split], **QUICK)
    for changed in (sources.change, share.change, seed.change):
        changed(bind(preview, services), asked, [split], **QUICK)
    # The browser decides, when the answer comes: what was typed meanwhile stays.
    opened.then(None, [suggested, name], [name], js=_UNLESS_TYPED)
    freeze_button.click(
        bind(freeze, services),
        [name, sources, format_name, share, seed],
        [counts, table, name, *shown[1:], split],
        **TOLD,
    )
    on_pick(table, select, services, [format_name], shown)
    format_name.change(bind(choose_format, services), [selected, format_name], [link], **TOLD)
