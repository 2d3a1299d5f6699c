"""Every file that an export or a run replaces: a kill in the middle of its write leaves the old one whole.

Each case is code with ``write(text)`` and the name of the file it writes. A process runs it with one text, then with
another, and is killed when the new content is to be synced, which is before the rename. A writer that neither syncs
nor renames does not die, and the test fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CASES = {
    "lines.jsonl": """
from feedback.jsonl import write_lines
def write(text): write_lines(here / "lines.jsonl", [text])
""",
    "state.pt": """
from training.checkpoints.resume_state import write_state
def write(text): write_state(here / "state.pt", {"text": text})
""",
    "manifest.json": """
from training.checkpoints.manifest import Adapter, Manifest, note_scorecard
from training.checkpoints.probe import Probe
def write(text):
    if text == "old":
        probe = Probe(exchanges=[], values=[0.5], dtype="float32")
        adapter = Adapter(kind="LORA")
        manifest = Manifest(kind="policy", name="c", base="b", base_hash="h", adapter=adapter, probe=probe)
        (here / "manifest.json").write_text(manifest.model_dump_json())
    note_scorecard(here, {"text": text})
""",
    "sealed.json": """
from training.trainer.saved_states import seal
def write(text):
    (here / "weights").write_text(text)
    seal(here)
""",
    "start.json": """
from types import SimpleNamespace
from training.runs import same_start
from training.settings.dpo import DpoSettings
def write(text):
    same_start._hashes = lambda context: {"base": text}
    same_start.check_same_start(SimpleNamespace(settings=DpoSettings(dataset="d"), run_dir=here))
""",
    "train.pt": """
import torch
from training.starter.build import _save_state
def write(text):
    model = torch.nn.Linear(1, 1)
    _save_state(model, torch.optim.AdamW(model.parameters()), len(text), here / "train.pt")
""",
    "spec.json": """
from types import SimpleNamespace
from training.execute import _write_spec
def write(text):
    home = SimpleNamespace(run_dir=lambda run_id: here)
    _write_spec(home, SimpleNamespace(id="r", method="dpo", attempt=1, config={}), {"text": text})
""",
    "metrics.jsonl": """
from training.reporting.progress import _forget_lines
def write(text):
    if text == "old":
        (here / "metrics.jsonl").write_text('{"step": 1}\\n{"step": 2}\\n{"step": 3}\\n')
    _forget_lines(here / "metrics.jsonl", 3 if text == "old" else 2)
""",
    "selection.json": """
from training.methods.rft import Selection, _write
def write(text): _write(here / "selection.json", Selection([], 0.5 if text == "old" else 1.5, 1.0))
""",
    "adapter_config.json": """
from training.operations.rebase import _tell_adapters
def write(text):
    path = here / "adapter_config.json"
    if text == "old":
        path.write_text('{"base_model_name_or_path": "none"}')
    _tell_adapters(here, json.loads(path.read_text())["base_model_name_or_path"], text)
""",
    ".ticket-1.json": """
from types import SimpleNamespace
from training.runs.launch.ticket import Ticket, write_ticket
def write(text): write_ticket(SimpleNamespace(run_dir=lambda run_id: here), "r", Ticket(text, 1, "ray"))
""",
}

KILLED = """
import json, os, signal, sys
from pathlib import Path
here = Path(sys.argv[1])
{code}
write("old")
(here / "whole").write_bytes((here / {name!r}).read_bytes())
real = os.fsync
def fsync(descriptor):
    if any(os.path.samestat(path.stat(), os.fstat(descriptor)) for path in here.glob(".*.partial-*")):
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
write("new")
"""


@pytest.mark.slow_except("lines.jsonl")
@pytest.mark.parametrize("name", CASES)
def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file_whole(name: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    code = KILLED.format(code=CASES[name], name=name)
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (tmp_path / name).read_bytes() == (tmp_path / "whole").read_bytes()
    assert len(list(tmp_path.glob(f".{name}.partial-*"))) == 1
