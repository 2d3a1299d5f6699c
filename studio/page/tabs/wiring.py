"""One thin module per tab: layout, then wiring. Handlers are module-level functions of plain values.

A handler takes the services first, then what the widgets hold, calls one service and returns what ``views``
makes of it. ``bind`` gives it its services and turns the product's errors into toasts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import gradio as gr

from feedback.errors import InvalidInput, StudioError
from studio.identity import PERSON, Person
from studio.page.gradio_routes import note_trouble
from studio.page.text import error_text
from studio.services.facade import Services
from training.generation.stopping import stoppable

T = TypeVar("T")
Handler = Callable[..., Any]
BEAT_SECONDS = 1.0
"""How often the page tells that work goes on."""

QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": None,
}
"""Event options of what the page asks by itself: a tab that opens, a timer, the end of a question.

None waits for a model, so none needs Gradio's queue or its spinner.
"""

TOLD: dict[str, Any] = {**QUICK, "queue": True}
"""Event options of what a person asks for: Gradio delivers ``gr.Info`` and ``gr.Error`` only through its queue."""

_PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-pick]');
  if (button) trigger('select', {key: button.dataset.pick});
});
"""


def given(value: str | None, what: str) -> str:
    """What a person has chosen; InvalidInput, a toast, when nothing is."""
    if not value:
        raise InvalidInput(f"Choose {what} first.")
    return value


def bind(handler: Handler, services: Services, *fixed: Any) -> Handler:
    """A handler with its services (and ``fixed`` values after them); a StudioError becomes a toast."""

    def handle(request: gr.Request | None = None, *values: Any) -> Any:
        return _told(handler, services, request, *fixed, *values)

    return handle


def bind_steps(handler: Handler, services: Services) -> Handler:
    """A handler that yields what the page shows meanwhile, with its services; a StudioError becomes a toast."""

    def handle(request: gr.Request | None = None, *values: Any) -> Iterator[Any]:
        try:
            yield from handler(services.acting_as(_person_of(request)), *values)
        except StudioError as error:
            raise _toast(request, error) from error

    return handle


def while_waiting(work: Callable[[Callable[[str], None]], T]) -> Generator[tuple[str, float], None, T]:
    """Do ``work`` in a thread: what it said last and for how long it has been at it, its result when it is done.

    Closing the generator, as Gradio does when the page is left, ends work that asks ``check_stopped``.
    """
    said, gone, began = [""], threading.Event(), time.monotonic()

    def check() -> None:
        if gone.is_set():
            raise StudioError("Nobody waits for this any more.")

    def run() -> T:
        with stoppable(check):
            return work(said.append)

    thread = ThreadPoolExecutor(1, thread_name_prefix="waited-for")
    try:
        future = thread.submit(run)
        while not future.done():
            yield said[-1], time.monotonic() - began
            wait([future], BEAT_SECONDS)
        return future.result()
    finally:
        gone.set()
        thread.shutdown(wait=False)


def markup(value: str = "", elem_id: str | None = None, **options: Any) -> gr.HTML:
    """A piece of the page made by ``views``; it reacts to nothing."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=None, **options)


def picker(elem_id: str) -> gr.HTML:
    """A table of ``views`` whose rows can be picked; see ``on_pick``."""
    return gr.HTML("", elem_id=elem_id, js_on_load=_PICK)


def on_pick(
    table: gr.HTML, handler: Handler, services: Services, inputs: Sequence[Any], outputs: Sequence[Any]
) -> None:
    """Call ``handler(services, key, *inputs)`` when a row is picked."""

    def picked(event: gr.EventData, request: gr.Request, *values: Any) -> Any:
        return _told(handler, services, request, str(event._data.get("key", "")), *values)

    table.select(picked, list(inputs), list(outputs), **TOLD)


def _told(handler: Handler, services: Services, request: gr.Request | None, *values: Any) -> Any:
    """Call a handler with the services as the person behind the request is given them."""
    try:
        return handler(services.acting_as(_person_of(request)), *values)
    except StudioError as error:
        raise _toast(request, error) from error


def _toast(request: gr.Request | None, error: StudioError) -> gr.Error:
    """How an error is told on the page."""
    note_trouble(request.request.scope if request and request.request else {}, error)
    return gr.Error(error_text(error), title="That did not work", print_exception=False)


def _person_of(request: gr.Request | None) -> Person | None:
    """Who the gate found behind a request; nobody when an event comes without one."""
    asked = None if request is None else request.request
    return None if asked is None else asked.scope.get(PERSON)
