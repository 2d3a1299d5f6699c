"""A real Chromium against a real `studio up`: the executable, the server, the page.

Without a Chromium these tests fail and say what to type; skipping them would hide a broken page.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from feedback.database.engine import Database
from feedback.store.models import policies
from tests import factories
from tests.browser import chromium as chromium_path
from training.home import Home

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0
PATIENCE_MS = 60_000
"""How long a browser test waits for what must come; on a busy machine everything comes later."""
STANDS = {
    "label": "#pair .pair, #pair .pair-empty",
    "": "#overview-round :is(.overview-panel, .overview-welcome)",
}
"""What is in sight once a tab is ready."""
LAUNCH_ARGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one file.

    Not for the session: while Playwright runs, so does its event loop, and a test of another file that starts one of
    its own in the same process would fail.
    """
    expect.set_options(timeout=PATIENCE_MS)
    executable = chromium_path.find()
    if executable is None:
        pytest.fail(f"No Chromium was found for the browser tests. Type: {chromium_path.remedy()}", pytrace=False)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=LAUNCH_ARGS)
        yield chromium
        chromium.close()


@dataclass
class Studio:
    """One running `studio up`; ``home`` and ``db`` are the same files, opened from the test."""

    home: Home
    db: Database
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=Path)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str) -> Studio:
        """Start the server, on the port it had before if it is started again, and wait until it answers."""
        self.port = self.port or _free_port()
        command = [sys.executable, "-m", "studio.cli", "up", "--home", str(self.home.path), "--port", str(self.port)]
        environment = os.environ | {"STUDIO_HOME": str(self.home.path), "HF_HUB_OFFLINE": "1"}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, *options], cwd=ROOT, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/api/health", timeout=2).status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        pytest.fail(f"`studio up` did not answer:\n{self.output()}", pytrace=False)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server and wait for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def output(self) -> str:
        """What the server printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Print what the server said under the report of a failed test."""
    report = yield
    used = getattr(item, "funcargs", {}).values()
    for studio in (one for one in used if isinstance(one, Studio)):
        if report.when == "call" and report.failed:
            report.sections.append(("studio up", studio.output()[-8000:]))
    return report


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    """A studio over an empty home; the test fills it and calls ``start``."""
    with studio_in(tmp_path) as running:
        yield running


@contextmanager
def studio_in(directory: Path) -> Iterator[Studio]:
    """A studio over an empty home in a directory, ended at the end."""
    home = Home(directory / "home")
    database = home.open()
    running = Studio(home, database, log=directory / "up.log")
    try:
        yield running
    finally:
        running.stop()
        database.dispose()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One server for a whole file, with a champion and an empty pool."""
    with studio_in(tmp_path_factory.mktemp("desk")) as running:
        policies.promote_policy(running.db, factories.make_policy(running.db, "author-of-all").id)
        yield running.start("--no-worker")


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a studio's page at a tab, in a context of its own, ready to be used."""
    contexts: list[BrowserContext] = []

    def open_it(
        studio: Studio, *, context: BrowserContext | None = None, tab: str = "label", **options: object
    ) -> Page:
        if context is None:
            context = browser.new_context(**options)  # type: ignore[arg-type]
            contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(f"{studio.url}/#{tab}")
        page.wait_for_selector(STANDS[tab])
        page.wait_for_selector("#pair:not([aria-busy])", state="attached")  # meanwhile it takes no key
        return page

    yield open_it
    for context in contexts:
        context.close()


def reload(page: Page) -> None:
    """Load the page anew after a restart of its server.

    Gradio's client does so by itself once it hears the new server; where both meet, one of the two is aborted.
    """
    try:
        page.reload()
    except Error as error:
        if not any(met in str(error) for met in ("ERR_ABORTED", "Not attached to an active page")):
            raise
        page.wait_for_load_state("load")


def lease_of(page: Page) -> str:
    """The lease of the pair on the screen, once there is one: the pool may say for a moment that it is empty."""
    return page.locator("#pair [data-lease]").first.get_attribute("data-lease") or ""


def press(page: Page, key: str) -> None:
    """Press a verdict key, once there is a pair to judge, and wait for another or for the empty state.

    While the page waits for an answer (a tab change asks what is on the screen anew) it takes no key, by design.
    """
    if key != "u":
        page.wait_for_selector("#pair .pair", timeout=120_000)
    page.wait_for_selector("#pair:not([aria-busy])")
    before = page.evaluate("document.querySelector('#pair [data-lease]')?.dataset.lease ?? ''")
    page.keyboard.press(key)
    page.wait_for_function(
        "before => (document.querySelector('#pair [data-lease]')?.dataset.lease ?? '') !== before", arg=before
    )


def until(page: Page, is_so: Callable[[], object]) -> None:
    """Wait for something outside the page, which goes on meanwhile; a test's own time limit ends it."""
    while not is_so():
        page.wait_for_timeout(50)


def open_tab(page: Page, name: str) -> None:
    """Go to a tab by its name, through the menu of those that did not fit where it is one of them."""
    tab = page.get_by_role("tab", name=name, exact=True)
    folded = page.locator(".overflow-dropdown button").filter(has_text=name)
    tab.or_(folded).first.wait_for(state="attached")
    if tab.count():
        tab.click()
    else:
        page.get_by_label("More tabs").click()
        folded.click()
    page.wait_for_selector(f"#{name.lower()}-tab", state="visible")
