"""What Gradio keeps of each page that was opened: what the studio's handlers read, and not the page itself.

Gradio copies the configuration of every component into the state of every page, 0.8 MB here, to write "deep links"
from it. This page has none (their route is not served, see ``page_routes``), and a page that was closed is kept like an
open one, so a day of reloads would fill the memory with copies that nobody reads.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState

PAGES_KEPT = 200
"""Pages whose state is kept, some 30 kB each, whether they are open or not; the one used longest ago goes first."""


class _Unkept(dict[int, dict[str, Any]]):
    """Stands where the copy was: holds every component, with nothing in it, and keeps nothing that is set."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: int) -> dict[str, Any]:
        return {}

    def __setitem__(self, key: int, value: dict[str, Any]) -> None:
        return None


class _States(OrderedDict[str, SessionState]):
    """The states of the pages by their session, each without the copy."""

    def __setitem__(self, key: str, state: SessionState) -> None:
        state.config_values = _Unkept()
        super().__setitem__(key, state)


def keep_no_copies(page: gr.Blocks) -> None:
    """Have the states of ``page`` leave the copy out; call it once the page is mounted."""
    page.state_holder.session_data = _States()
