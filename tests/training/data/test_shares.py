"""The steps of a run are the same for any number of processes, any micro batch and any number of rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training import shared_steps
from training.data.shares import Rows, Shares
from training.trainer import distributed

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 7, 12, 13, 25, 44])
def test_every_row_is_in_one_part(rows: int, processes: int) -> None:
    parts = [list(Shares(range(rows), 12, number, processes)) for number in range(processes)]
    steps = [[row for part in step for row in part] for step in zip(*parts, strict=True)]
    assert [row for step in steps for row in step] == list(range(rows))
    assert [len(step) for step in steps] == [12] * (rows // 12) + [rows % 12] * (rows % 12 > 0)
    assert all(max(map(len, step)) - min(map(len, step)) <= 1 for step in zip(*parts, strict=True))
    assert len(Shares(range(rows), 12, 0, processes)) == len(steps)


def test_an_empty_part_has_no_rows() -> None:
    assert Rows(["a", "b"]).__getitems__([]) == [] and Rows(["a", "b"]).__getitems__([1]) == ["b"]


def shared_curves(base: Path, directory: Path, rows: int, processes: int, micro: int = 0) -> dict[str, Any]:
    """The curves of a run that so many processes share."""
    directory.mkdir()
    command = [sys.executable, "-m", "tests.training.shared_steps", str(base), str(directory), str(rows), str(micro)]
    started = [
        subprocess.Popen(
            command,
            env={
                **os.environ,
                **distributed._environment(number, processes, directory / "meet"),
                "OMP_NUM_THREADS": "1",
            },
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]
    said = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes, "\n".join(said)[-4000:]
    return json.loads((directory / "curves.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "processes", "micro"), [(25, 2, 0), (29, 3, 0), (29, 2, 2)])
def test_processes_see_the_rows_that_one_sees(
    rows: int, processes: int, micro: int, tiny_base: Path, tmp_path: Path
) -> None:
    """25 rows in batches of 12 leave one for the last step, and a process without any."""
    alone = shared_steps.curves(str(tiny_base), tmp_path / "alone", rows, None)
    shared = shared_curves(tiny_base, tmp_path / "shared", rows, processes, micro)
    assert alone.keys() == shared.keys()
    for method, curves in alone.items():
        wanted = ("loss", "gradient_norm") if micro else curves
        for name in wanted:
            # At the first step policy and reference are the same: which is ahead is decided by rounding
            first = int(name == "accuracy")
            assert shared[method][name][first:] == pytest.approx(curves[name][first:], rel=2e-3, abs=2e-4), (
                method,
                name,
            )
        assert len(curves["loss"]) == shared_steps.STEPS


@pytest.mark.slow
def test_a_micro_batch_changes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    whole = shared_steps.curves(str(tiny_base), tmp_path / "whole", 29, None)
    parts = shared_steps.curves(str(tiny_base), tmp_path / "parts", 29, 4)
    for method, curves in whole.items():
        for name in ("loss", "gradient_norm"):
            assert parts[method][name] == pytest.approx(curves[name], rel=2e-3, abs=2e-4), (method, name)
