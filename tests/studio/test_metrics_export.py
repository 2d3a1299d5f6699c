from __future__ import annotations

import csv
import io
import json

import pytest

from feedback.errors import InvalidInput
from feedback.tables import MetricRow
from studio.metrics_export import metric_lines

POINTS = [
    MetricRow(run_id="r", step=step, name=name, value=value)
    for step, name, value in ((1, "loss", 0.7), (1, "accuracy", 0.5), (2, "loss", 0.6), (4, "length", 12.0))
]


def test_csv_has_a_column_for_each_curve_and_gaps_where_there_is_no_point() -> None:
    rows = list(csv.DictReader(io.StringIO("".join(metric_lines(POINTS, "csv")))))
    assert rows[0] == {"step": "1", "loss": "0.7", "accuracy": "0.5", "length": ""}
    assert [row["step"] for row in rows] == ["1", "2", "4"] and rows[2]["length"] == "12.0"


def test_jsonl_has_an_object_for_each_step() -> None:
    lines = [json.loads(line) for line in metric_lines(POINTS, "jsonl")]
    assert lines == [{"step": 1, "loss": 0.7, "accuracy": 0.5}, {"step": 2, "loss": 0.6}, {"step": 4, "length": 12.0}]
    assert metric_lines([], "csv") == ["step\n"]


def test_another_format_names_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"exported as 'xml'\. Formats: csv, jsonl"):
        metric_lines(POINTS, "xml")
