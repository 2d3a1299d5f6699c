"""Assembles the page on FastAPI: REST under /api, Gradio at /, the guard around both."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI

from feedback.database.engine import Database
from studio import __version__
from studio.page.gradio_states import PAGES_KEPT, keep_no_copies
from studio.page.tabs import datasets, label, overview, playground, policies, review, train, users
from studio.page.tabs.wiring import QUICK, markup
from studio.page.theme import build_theme
from studio.page.views import header as header_view
from studio.security.sessions import Auth
from studio.services.facade import Services
from studio.web import playground as playground_routes
from studio.web.api.routes import add_api, add_last
from studio.web.guard.mount import Mount
from studio.web.login import add_login
from studio.web.middleware import add_front
from studio.web.page_files import STYLES, scripts
from training.home import Home


def create_app(
    home: Home, db: Database, *, host: str = "127.0.0.1", mount: Mount | None = None, token: str = ""
) -> FastAPI:
    """The whole studio as one ASGI app. ``host`` is what is bound; ``token`` opens it while there are no users."""
    services, auth, mount = Services(home, db), Auth(home.create().path, db), mount or Mount()
    app = FastAPI(title="RLHF Studio", version=__version__, docs_url=None, redoc_url=None)
    add_api(app, services)
    app.include_router(playground_routes.router)
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
        css_paths=STYLES,
        head="".join(f"<script>{script}</script>" for script in scripts()),
    )
    keep_no_copies(blocks)
    return add_front(page, services, auth, host=host, mount=mount, token=token, scripts=scripts())


def build_page(services: Services) -> gr.Blocks:
    """The tabs under one header; each is shown to those whose role can use it."""
    with gr.Blocks(title="RLHF Studio", analytics_enabled=False, fill_width=True) as page:
        page.state_session_capacity = PAGES_KEPT
        with gr.Row(elem_id="studio-top"):
            markup(header_view.header(), elem_id="studio-header")
            who = gr.Column(elem_id="studio-who", min_width=0)
        # Which tab is first depends on the role, which the page knows only later: see assets/page/url_state.js.
        with gr.Tabs(elem_id="studio-tabs", selected="label") as tabs:
            with gr.Tab("Overview", id="overview", elem_id="overview-tab") as tab:
                looking = overview.build_tab(services, tab)
            with gr.Tab("Label", id="label", elem_id="label-tab"):
                label.build_tab(services, page)
            with gr.Tab("Playground", id="playground", elem_id="playground-tab") as tab:
                playground.build_tab(tab)
            with gr.Tab("Train", id="train", elem_id="train-tab") as tab:
                train.build_tab(services, tab)
            with gr.Tab("Policies", id="policies", elem_id="policies-tab") as tab:
                policies.build_tab(services, tab)
            with gr.Tab("Datasets", id="datasets", elem_id="datasets-tab") as tab:
                datasets.build_tab(services, tab)
            with gr.Tab("Review", id="review", elem_id="review-tab") as tab:
                review.build_tab(services, tab)
            with gr.Tab("People", id="people", elem_id="people-tab") as tab:
                users.build_tab(services, tab)
        for other in tabs.children[1:]:
            other.select(overview.leave, None, [looking], **QUICK)
        with who:
            users.build_header(services, page)
    return page
