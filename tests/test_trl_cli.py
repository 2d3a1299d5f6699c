"""An exported file trains with TRL's own command, unmodified: ``trl dpo`` and ``trl reward``, a few real steps each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feedback import formats
from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.types import DatasetFilters
from tests.factories import judge_by, longer, make_matchup, make_policy
from training.bundled import STARTER_DIR


@pytest.fixture
def exported(db: Database, tmp_path: Path) -> Path:
    policy = make_policy(db, "starter")
    for number in range(24):
        make_matchup(db, policy=policy, texts=[f"Yes, {number}.", f"Yes, and a longer answer too, {number}."])
    judge_by(db, longer)
    freeze.freeze(db, "votes", DatasetFilters(test_share=0.0))
    folder = tmp_path / "export"
    report = formats.export_dataset(db, "votes", "trl-conversational", folder / "votes.jsonl")
    assert report.rows == 24 and report.report.exists()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "extra"), [("dpo", []), ("reward", ["--lora_task_type", "SEQ_CLS", "--lora_modules_to_save", "score"])]
)
def test_trl_trains_on_the_exported_folder(method: str, extra: list[str], exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [str(Path(sys.executable).with_name("trl")), method]
    command += ["--model_name_or_path", str(STARTER_DIR), "--dataset_name", str(exported), "--output_dir", str(out)]
    command += ["--max_steps", "3", "--per_device_train_batch_size", "4", "--logging_steps", "1", "--use_peft"]
    command += ["--report_to", "none", "--use_cpu", "--bf16", "false", "--save_strategy", "steps", "--save_steps", "3"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([*command, *extra], capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    (checkpoint,) = out.glob("checkpoint-*")
    history = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    assert len([entry for entry in history if "loss" in entry]) == 3
    assert (checkpoint / "adapter_model.safetensors").stat().st_size > 0
