"""Assembles the page on FastAPI: REST under /api, Gradio at /, the guard around both."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from feedback.db import Database
from studio import __version__, present
from studio.api import add_api
from studio.guard import Guard
from studio.services import Services
from studio.tabs import datasets, label, markup, policies, review, train
from training.home import Home

ASSETS = Path(__file__).resolve().parents[1] / "assets"

# Plain names: a font object of Gradio's would be fetched from elsewhere.
_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
_FONT_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def create_app(home: Home, db: Database, *, host: str = "127.0.0.1") -> FastAPI:
    """The whole studio as one ASGI app over one home. ``host`` is what the server binds to."""
    services = Services(home, db)
    app = FastAPI(title="RLHF Studio", version=__version__, docs_url=None, redoc_url=None)
    add_api(app, services)
    app.router.on_shutdown.append(services.close)
    page = gr.mount_gradio_app(
        app,
        build_page(services),
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        theme=build_theme(),
        css_paths=[ASSETS / "studio.css"],
        head=f"<script>{(ASSETS / 'shortcuts.js').read_text(encoding='utf-8')}</script>",
    )
    page.add_middleware(Guard, host=host)
    return page


def build_page(services: Services) -> gr.Blocks:
    """The five tabs under one header."""
    with gr.Blocks(title="RLHF Studio", analytics_enabled=False, fill_width=True) as page:
        markup(present.header(), elem_id="studio-header")
        with gr.Tabs(elem_id="studio-tabs"):
            with gr.Tab("Label", id="label", elem_id="label-tab"):
                label.build_tab(services, page)
            with gr.Tab("Train", id="train", elem_id="train-tab") as tab:
                train.build_tab(services, tab)
            with gr.Tab("Policies", id="policies", elem_id="policies-tab") as tab:
                policies.build_tab(services, tab)
            with gr.Tab("Datasets", id="datasets", elem_id="datasets-tab") as tab:
                datasets.build_tab(services, tab)
            with gr.Tab("Review", id="review", elem_id="review-tab") as tab:
                review.build_tab(services, tab)
    return page


def build_theme() -> gr.themes.Base:
    """Calm colours, the system's own fonts, both light and dark."""
    theme = gr.themes.Base(
        primary_hue="indigo", secondary_hue="indigo", neutral_hue="slate", font=_FONT, font_mono=_FONT_MONO
    )
    # Gradio's own greys and its lighter indigo miss the contrast that small text needs (WCAG AA, 4.5 to 1).
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        link_text_color_dark="*primary_300",
        link_text_color_hover_dark="*primary_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_cancel_background_fill="*neutral_100",
        color_accent="*primary_600",
        button_large_text_size="*text_md",
        button_large_text_weight="600",
    )
