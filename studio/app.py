"""Assembles the page on FastAPI: REST under /api, Gradio at /, the guard around both."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from feedback.database.engine import Database
from studio import __version__, people_api, present
from studio.api import add_api, add_last
from studio.auth import Auth
from studio.front import add_front
from studio.guard import Mount
from studio.login import add_login
from studio.page_states import PAGES_KEPT, keep_no_copies
from studio.services import Services
from studio.tabs import datasets, label, markup, people, policies, review, train
from studio.theme import build_theme
from training.home import Home

ASSETS = Path(__file__).resolve().parents[1] / "assets"
SCRIPTS = (  # in the order they build on
    *("session.js", "transport.js", "keys.js", "labeling.js", "late.js", "presence.js", "ranking.js", "reading.js"),
    *("remarks.js", "messages.js", "shortcuts.js", "runs.js", "address.js", "tabs.js"),
)


def create_app(
    home: Home, db: Database, *, host: str = "127.0.0.1", mount: Mount | None = None, token: str = ""
) -> FastAPI:
    """The whole studio as one ASGI app. ``host`` is what is bound; ``token`` opens it while there are no users."""
    services, auth, mount = Services(home, db), Auth(home.create().path, db), mount or Mount()
    app = FastAPI(title="RLHF Studio", version=__version__, docs_url=None, redoc_url=None)
    add_api(app, services)
    app.include_router(people_api.router)
    add_last(app)
    add_login(app, auth)
    app.router.on_shutdown.append(services.close)
    blocks = build_page(services)
    page = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=host,
        root_path=mount.prefix or None,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        theme=build_theme(),
        css_paths=[ASSETS / "studio.css"],
        head="".join(f"<script>{script}</script>" for script in scripts()),
    )
    keep_no_copies(blocks)
    return add_front(page, services, auth, host=host, mount=mount, token=token, scripts=scripts())


def scripts() -> list[str]:
    """The studio's own scripts, which the page carries in its head."""
    return [(ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS]


def build_page(services: Services) -> gr.Blocks:
    """The tabs under one header; each is shown to those whose role can use it."""
    with gr.Blocks(title="RLHF Studio", analytics_enabled=False, fill_width=True) as page:
        page.state_session_capacity = PAGES_KEPT
        with gr.Row(elem_id="studio-top"):
            markup(present.header(), elem_id="studio-header")
            who = gr.Column(elem_id="studio-who", min_width=0)
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
            with gr.Tab("People", id="people", elem_id="people-tab") as tab:
                people.build_tab(services, tab)
        with who:
            people.build_header(services, page)
    return page
