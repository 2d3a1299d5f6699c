"""A run's curves as lines of a file: CSV with a column per curve, JSONL with an object per step. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from feedback.errors import InvalidInput
from feedback.tables import MetricRow

FORMATS = ("csv", "jsonl")


def metric_lines(points: Sequence[MetricRow], kind: str) -> list[str]:
    """The lines, each with its end; InvalidInput for a format there is not. Curves keep the order they began in."""
    if kind not in FORMATS:
        raise InvalidInput(f"Curves cannot be exported as {kind!r}. Formats: {', '.join(FORMATS)}.")
    names = list(dict.fromkeys(point.name for point in points))
    steps: dict[int, dict[str, float]] = {}
    for point in points:
        steps.setdefault(point.step, {})[point.name] = point.value
    if kind == "jsonl":
        return [json.dumps({"step": step, **values}) + "\n" for step, values in steps.items()]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": step, **values} for step, values in steps.items())
    return text.getvalue().splitlines(keepends=True)
