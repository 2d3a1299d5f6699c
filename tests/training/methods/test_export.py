"""An export as a run: an archive that opens elsewhere, or a failure in words that leaves the older archive."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import Conflict, InvalidInput, RunCancelled
from feedback.store.models.policies import save_policy
from feedback.types import Policy
from training.checkpoints.atomic_directory import scratch_directory
from training.export.archive import archive_path, write_archive
from training.methods import METHODS
from training.models.loading import load_base
from training.runs.queue import submit


def test_a_policy_is_packed_into_an_archive_that_opens_elsewhere(
    make_context: Any, tiny_base: Path, tmp_path: Path
) -> None:
    context = make_context("export", {"policy": "tiny", "prompts": 2})
    result = METHODS["export"].run(context)
    path = archive_path(context.home, result["policy"], "merged", "f16")
    assert result["bytes"] == path.stat().st_size and "token by token" in result["checks"][0]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name.partition("/")[0] for name in archive.namelist()} == {"tiny-merged"}
        archive.extractall(tmp_path)
    model, _ = load_base(str(tmp_path / "tiny-merged"), "cpu")
    base, _ = load_base(str(tiny_base), "cpu")
    assert all(bool((a == b).all()) for a, b in zip(model.parameters(), base.parameters(), strict=True))
    assert list(path.parent.iterdir()) == [path], "nothing but the archive is left"
    assert any("packing the archive" in text for _, text in context.progress.reports)


def test_what_a_killed_export_left_is_removed_by_the_next(make_context: Any) -> None:
    context = make_context("export", {"policy": "tiny", "form": "adapter"})
    parent = archive_path(context.home, "tiny", "adapter", "f16").parent
    parent.mkdir(parents=True)
    code = (
        "import os, pathlib, signal, sys\nfrom training.checkpoints.atomic_directory import scratch_directory\n"
        "with scratch_directory(pathlib.Path(sys.argv[1])) as scratch:\n"
        "    (scratch / 'model').write_text('large')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, str(parent)], cwd=root, check=False)
    (left,) = parent.iterdir()
    with scratch_directory(parent) as another:  # of another worker
        assert not left.exists()
        with pytest.raises(InvalidInput, match="has no adapter"):
            METHODS["export"].run(context)
        assert list(parent.iterdir()) == [another], "one that is held stays"


def test_what_cannot_be_exported_so_fails_in_words_and_leaves_the_older_archive(make_context: Any) -> None:
    context = make_context("export", {"policy": "tiny", "form": "adapter"})
    path = archive_path(context.home, "tiny", "adapter", "f16")
    path.parent.mkdir(parents=True)
    path.write_text("older")
    with pytest.raises(InvalidInput, match="has no adapter"):
        METHODS["export"].run(context)
    assert path.read_text() == "older" and list(path.parent.iterdir()) == [path]


def test_a_cancelled_archive_is_none(tmp_path: Path, make_context: Any) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a").write_text("a")
    context = make_context("export", {"policy": "tiny"})
    context.progress.stop()
    with pytest.raises(RunCancelled):
        write_archive(files, tmp_path / "out" / "a.zip", context.progress.check)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_policy_behind_a_server_is_refused_at_once(make_context: Any) -> None:
    context = make_context("export", {"policy": "tiny"})
    save_policy(context.db, Policy(name="far", base="http://127.0.0.1:9/v1#m"))
    with pytest.raises(Conflict, match="replies over HTTP"):
        submit(context.db, "export", {"policy": "far"})
