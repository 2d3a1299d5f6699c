"""What an export tells of its policy: all that was measured, and nobody's name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import metadata_load

from feedback.database.engine import Database
from feedback.store.datasets.datasets import get_dataset
from feedback.store.models.checkpoints import get_checkpoint
from feedback.store.models.policies import get_policy, save_policy
from feedback.store.models.runs import save_run
from feedback.store.models.scorecards import save_scorecard
from feedback.types import Checkpoint, Policy, Run, Scorecard
from tests.training.export.conftest import MakePolicy
from tests.training.tiny_models import change_json
from training.export.card import card
from training.export.origin import Origin, find_origin, license_of_base, name_of_base, provenance
from training.home import Home

FIGURES = {"win_rate": 0.625, "low": 0.55, "high": 0.7, "n_prompts": 150}


@pytest.fixture
def measured(db: Database, home: Home, make_trained: MakePolicy, tiny_base: Path, dataset: str) -> Origin:
    """A policy of a run on a frozen dataset, over the champion, measured by a rule."""
    from feedback.store.models.checkpoints import save_checkpoint

    made = make_trained(tiny_base, name="first")
    frozen, run = get_dataset(db, dataset), save_run(db, Run(method="dpo", config={"dataset": dataset}))
    old = get_checkpoint(db, str(made.checkpoint_id))
    row = save_checkpoint(
        db,
        Checkpoint(
            name="child", kind="policy", path=old.path, base=old.base, run_id=run.id, dataset_id=frozen.id
        ),
    )  # fmt: skip
    parent = get_policy(db, "tiny")
    child = Policy(name="child", base=old.base, checkpoint_id=row.id, run_id=run.id, parent_id=parent.id)
    subject = save_policy(db, child)
    for figures in ({**FIGURES, "win_rate": 0.1, "low": 0.0, "high": 0.2}, FIGURES):
        save_scorecard(
            db,
            Scorecard(
                kind="win_rate", subject_id=subject.id, against_id=parent.id, settings={"oracle": "longer"},
                figures=figures,
            ),
        )  # fmt: skip
    return find_origin(db, home, "child")


def test_the_card_tells_base_training_measurements_and_gate(measured: Origin, db: Database, tmp_path: Path) -> None:
    text = card(measured, "merged", ["Greedy replies were the same."])
    frozen = measured.lineage["dataset"]
    assert f"dataset: `taste`, hash `{frozen['hash']}`, of {measured.lineage['judgments']['count']} judgments" in text
    assert "Lineage: `child` (dpo) ← `tiny`." in text and "- parent: `tiny`" in text
    assert "- It wins 62.5 % [55.0, 70.0] of comparisons with tiny on 150 held-out prompts, judged by longer" in text
    assert "10.0 %" not in text, "only the newest measurement by a judge"
    assert "The promotion gate says: **PROMOTE, measured against tiny**." in text
    assert "passed: It wins 62.5 %" in text and "Greedy replies were the same." in text
    assert "AutoModelForCausalLM" in text
    annotators = measured.lineage["judgments"]["annotators"]
    assert annotators and not any(name in text for name in annotators)
    (tmp_path / "README.md").write_text(text)
    told: Any = metadata_load(tmp_path / "README.md")
    assert "base_model" not in told, "a directory's name is no id of the Hub"
    known = dataclasses.replace(measured, base_name="someone/model")
    (tmp_path / "README.md").write_text(card(known, "gguf", []))
    named: Any = metadata_load(tmp_path / "README.md")
    assert named["base_model"] == "someone/model" and named["base_model_relation"] == "finetune"
    assert told["library_name"] == "transformers" and told["tags"] == ["rlhf-studio", "dpo", "lora"]
    assert "license" not in told and "license: that of the base" in text


def test_the_record_has_ids_and_hashes_and_no_paths(measured: Origin, tiny_base: Path) -> None:
    record = provenance(measured, "merged", {"tokens": 3})
    assert record["policy"] == {"id": measured.policy.id, "name": "child"} and record["parent"] == "tiny"
    assert record["dataset"]["hash"] == measured.lineage["dataset"]["hash"]
    assert record["run"] == {"id": measured.policy.run_id, "method": "dpo"}
    assert measured.manifest is not None and record["checkpoint"]["files"] == measured.manifest.files
    assert record["base"] == {"name": "tiny", "hash": measured.manifest.base_hash} and record["checks"] == {"tokens": 3}
    assert str(tiny_base) not in json.dumps(record)


@pytest.mark.parametrize(("form", "library"), [("adapter", "peft"), ("gguf", "gguf")])
def test_each_form_has_its_library_and_its_way_to_load(measured: Origin, form: str, library: str) -> None:
    text = card(measured, form, [], "child-f16.gguf")
    assert f"library_name: {library}\n" in text and {"adapter": "PeftModel", "gguf": "ollama create"}[form] in text


def test_a_bare_base_has_no_training(db: Database, home: Home, tiny_base: Path) -> None:
    save_policy(db, Policy(name="bare", base=str(tiny_base)))
    origin = find_origin(db, home, "bare")
    text = card(origin, "merged", [])
    assert "- training: none" in text and "No win rate was measured." in text and "Lineage" not in text
    assert "base_model_relation" not in text and provenance(origin, "merged", {})["checkpoint"] is None


def test_name_and_license_of_a_base(tiny_base: Path, tmp_path: Path) -> None:
    assert (name_of_base("starter"), license_of_base("starter")) == ("starter", {"license": "apache-2.0"})
    assert name_of_base(str(tiny_base)) == "tiny" and license_of_base(str(tiny_base)) == {}
    assert name_of_base("someone/model") == "someone/model" and license_of_base("someone/model") == {}
    known = Path(shutil.copytree(tiny_base, tmp_path / "copy"))
    change_json(known / "config.json", _name_or_path="someone/model")
    (known / "README.md").write_text("---\nlicense: [\n---\n# It\n")
    assert license_of_base(str(known)) == {}
    (known / "README.md").write_text("---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n# It\n")
    assert name_of_base(str(known)) == "copy", "the name in config.json may be that of the base's own base"
    cached = Path(shutil.copytree(known, tmp_path / "hub" / "models--someone--a--model" / "snapshots" / "0a1b"))
    assert name_of_base(str(cached)) == "someone/a--model"
    assert license_of_base(str(known)) == {"license": "other", "license_name": "own", "license_link": "LICENSE"}
