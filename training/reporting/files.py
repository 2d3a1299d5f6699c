"""Reading what a run left in its directory: the last traceback of its log, and its sample replies."""

from __future__ import annotations

import json
from typing import Any

from training.home import Home
from training.reporting.progress import SAMPLES_FILE

_TRACEBACK = "Traceback (most recent call last):"
_READ_BYTES = 256 * 1024


def last_traceback(home: Home, run_id: str) -> str:
    """The last traceback in the end of a run's log, down to its error; empty when there is none."""
    path = home.log_path(run_id)
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _READ_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    start = text.rfind(_TRACEBACK)
    if start < 0:
        return ""
    lines = text[start:].splitlines()
    # The error itself is the first line behind the frames that is not indented; its message may have more lines.
    end = next((i for i, line in enumerate(lines) if i and line and not line.startswith((" ", "|", "+"))), len(lines))
    last = next((i for i in range(end + 1, len(lines)) if _is_log_line(lines[i])), len(lines))
    return "\n".join(lines[:last]).rstrip()


def sample_replies(home: Home, run_id: str) -> list[tuple[int, list[tuple[str, str]]]]:
    """Each look at the fixed prompts in order: the step, and prompt with reply; lines that cannot be read are left."""
    path = home.run_dir(run_id) / SAMPLES_FILE
    if not path.is_file():
        return []
    looks: list[tuple[int, list[tuple[str, str]]]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            look: dict[str, Any] = json.loads(line)
            looks.append((int(look["step"]), [(str(prompt), str(reply)) for prompt, reply in look["said"]]))
        except (ValueError, KeyError, TypeError):
            continue
    return looks


def _is_log_line(line: str) -> bool:
    """Lines of the log begin with a date, as ``2026-05-04 09:30:00``."""
    return len(line) > 19 and line[4] == line[7] == "-" and line[13] == line[16] == ":" and line[:4].isdigit()
