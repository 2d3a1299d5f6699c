"""A page that was opened takes little room, and what its handlers keep between two acts is there."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import psutil
import pytest
from fastapi.testclient import TestClient
from starlette.routing import Mount

from studio.page.gradio_states import PAGES_KEPT, keep_no_copies
from studio.web.server.memory import ARENAS
from tests.studio.running import Running, running
from training.home import Home


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Home(tmp_path_factory.mktemp("states") / "home").create()) as started:
        yield started


@pytest.mark.slow
def test_pages_take_little_room(studio: Running) -> None:
    with httpx.Client(base_url=studio.url, timeout=120) as http:
        config = http.get("/config").json()
        asked = [event["targets"][0][1] == "load" and event["backend_fn"] for event in config["dependencies"]]
        opened = asked.index(True)

        def load(*numbers: int) -> None:
            for number in numbers:
                body = {"data": [], "fn_index": opened, "session_hash": f"page{number}"}
                assert http.post("/gradio_api/run/predict", json=body).status_code == 200

        load(*range(20))
        few = studio.memory()
        load(*range(20, PAGES_KEPT))
        full = studio.memory()
        load(*range(PAGES_KEPT, 2 * PAGES_KEPT))
    # In MB. With Gradio's copy of the page each takes 0.8.
    assert full - few < 0.1 * (PAGES_KEPT - 20)
    assert studio.memory() - full < 0.1 * PAGES_KEPT


HEAP = 64 * 2**20
"""What glibc sets aside for a pool of memory beside the first, at an address that is a multiple of it."""


def pools(process: int) -> int:
    """How many of glibc's pools of memory a process has."""
    ranges = [
        line.split()[0].split("-")
        for line in Path(f"/proc/{process}/maps").read_text().splitlines()
        if " rw-p " in line
    ]
    return 1 + sum(int(start, 16) % HEAP == 0 and int(end, 16) - int(start, 16) <= HEAP for start, end in ranges)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the pools are glibc's")
def test_all_threads_share_a_few_pools_of_memory(studio: Running) -> None:
    def ask(_: int) -> int:
        return httpx.get(f"{studio.url}/config", timeout=120).status_code

    with ThreadPoolExecutor(16) as many:
        assert set(many.map(ask, range(64))) == {200}
    # Threads that began before the command did may have a pool of their own; those that answer have none.
    assert psutil.Process(studio.process.pid).num_threads() > 4 * ARENAS
    assert pools(studio.process.pid) <= ARENAS + 2


def test_the_number_of_pages_kept_reaches_gradio(client: TestClient) -> None:
    mounted = next(route.app for route in client.app.routes if isinstance(route, Mount))
    assert mounted.state_holder.capacity == PAGES_KEPT <= 500


def test_what_a_page_keeps_between_two_acts_is_there_and_belongs_to_it_alone() -> None:
    """A ``gr.State``, and a component whose choices an earlier act of the same page changed."""

    def step(count: int) -> tuple[int, Any]:
        return count + 1, gr.Dropdown(choices=[f"choice {count}"])

    with gr.Blocks() as page:
        count, choice = gr.State(0), gr.Dropdown(choices=[])
        answer = gr.Textbox()
        button, ask = gr.Button(), gr.Button()
        button.click(step, count, [count, choice], queue=False)
        ask.click(lambda chosen, number: f"{chosen} {number}", [choice, count], answer, queue=False)
    app = gr.routes.App.create_app(page)
    keep_no_copies(page)
    with TestClient(app) as http:

        def act(number: int, session: str, *data: object) -> httpx.Response:
            body = {"data": list(data), "fn_index": number, "session_hash": session}
            return http.post("/gradio_api/run/predict", json=body)

        for _ in range(3):
            assert act(0, "one", None).status_code == 200
        assert act(1, "one", "choice 2", None).json()["data"] == ["choice 2 3"]
        assert act(1, "two", None, None).json()["data"] == ["None 0"]
        assert act(1, "two", "choice 2", None).status_code == 500, "not among the choices of that page"
    assert not page.state_holder["one"].config_values
