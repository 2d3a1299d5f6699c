from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from feedback.database.engine import Database, open_database
from feedback.errors import Conflict, InvalidInput
from feedback.store.content.prompts import count_prompts, list_prompts
from feedback.store.models.checkpoints import save_checkpoint
from feedback.store.models.policies import get_champion, list_policies, list_promotions, save_policy
from feedback.types import Checkpoint, Policy, Split
from tests.factories import make_policy
from tests.training import tiny_models
from training.checkpoints.registration import add_policy, check_base, policy_name, register_policy, serve_model
from training.operations.seed import seed_home

ROOT = Path(__file__).parents[3]


def model_at(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    return directory


def test_a_fresh_home_gets_prompts_and_a_champion(db: Database, tmp_path: Path) -> None:
    steps = seed_home(db, starter_dir=model_at(tmp_path / "starter"))
    assert steps.champion == "starter" and steps.prompts == count_prompts(db)
    assert count_prompts(db, split=Split.work) >= 300 and count_prompts(db, split=Split.evaluation) >= 150
    assert seed_home(db) == steps
    assert len(list_promotions(db)) == 1


def bring_smollm2(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2's file lies on this machine, not converted yet."""
    monkeypatch.setenv("STUDIO_MODELS", str(models))
    models.mkdir()
    (models / "SmolLM2-135M-Instruct.Q4_1.gguf").touch()


def test_a_fresh_home_begins_with_smollm2_where_it_is_at_hand(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_smollm2(tmp_path / "models", monkeypatch)
    steps = seed_home(db)
    champion = get_champion(db)
    assert champion is not None
    assert (champion.id, champion.name, champion.base) == ("pol-smollm2", "smollm2", "smollm2")
    assert count_prompts(db, split=Split.work) == 400 and count_prompts(db, split=Split.evaluation) == 200
    assert all("assistant" in prompt.tags for prompt in list_prompts(db))
    assert seed_home(db) == steps


def test_the_starter_can_be_asked_for(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring_smollm2(tmp_path / "models", monkeypatch)
    assert seed_home(db, policy="starter").champion == "starter"
    assert not any("assistant" in prompt.tags for prompt in list_prompts(db))
    assert seed_home(db).champion == "starter"  # a home in use stays as it is


def test_smollm2_can_be_asked_for_before_it_is_here(db: Database) -> None:
    assert seed_home(db, policy="smollm2").champion == "smollm2"


def test_a_home_in_use_is_left_alone(db: Database, tmp_path: Path) -> None:
    make_policy(db, "mine")
    assert seed_home(db, starter_dir=model_at(tmp_path / "starter")).champion is None
    assert [policy.name for policy in list_policies(db)] == ["mine"]


def test_without_starter_weights_the_prompts_still_come(db: Database, tmp_path: Path) -> None:
    steps = seed_home(db, starter_dir=tmp_path / "nothing")
    assert steps.champion is None and steps.prompts > 0


def test_many_processes_may_seed_at_once(tmp_path: Path) -> None:
    model_at(tmp_path / "starter")
    url = str(tmp_path / "studio.db")
    open_database(url).dispose()
    code = (
        "import sys; from pathlib import Path; from feedback.database.engine import open_database;"
        "from training.operations.seed import seed_home;"
        "seed_home(open_database(sys.argv[1]), starter_dir=Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, url, str(tmp_path / "starter")]
    seeders = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [seeder.wait() for seeder in seeders] == [0] * 4
    db = open_database(url)
    assert [policy.name for policy in list_policies(db)] == ["starter"] and len(list_promotions(db)) == 1
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "assets" / "prompts").glob("*.jsonl"))
    assert count_prompts(db) == lines
    db.dispose()


def test_a_model_directory_is_registered_once_and_serves(db: Database, tmp_path: Path) -> None:
    directory = tiny_models.model_at(tmp_path / "My model")
    first = serve_model(db, str(directory))
    assert (first.name, first.base) == ("My-model", str(directory))
    make_policy(db, "other")
    assert serve_model(db, "other").name == "other"
    assert serve_model(db, str(directory)).id == first.id
    champion = get_champion(db)
    assert champion is not None and champion.id == first.id


def test_a_trained_policy_is_not_taken_for_its_base(db: Database, tmp_path: Path) -> None:
    directory = tiny_models.model_at(tmp_path / "model")
    checkpoint = save_checkpoint(db, Checkpoint(name="c", kind="policy", path="checkpoints/c", base=str(directory)))
    save_policy(db, Policy(name="child", base=str(directory), checkpoint_id=checkpoint.id))
    with pytest.raises(Conflict, match="already another policy 'child'"):
        add_policy(db, str(directory), "child")
    assert add_policy(db, str(directory)).checkpoint_id is None


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("/nowhere/model", "no model directory '/nowhere/model'"),
        ("./nowhere", "no model directory"),
        ("a/b/c", "no model directory"),
        ("nobody", "neither a policy of this home"),
    ],
)
def test_a_model_that_cannot_be_is_refused(db: Database, model: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        serve_model(db, model)
    assert list_policies(db) == []


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no config\.json"):
        check_base(str(tmp_path))


def test_names_and_hub_ids() -> None:
    assert check_base("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"
    assert policy_name("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen2.5-0.5B-Instruct"
    assert policy_name("/models/my model!/") == "my-model"
    assert policy_name("/models/__") == "base-model"


def test_a_name_taken_by_another_model_is_a_conflict(db: Database) -> None:
    register_policy(db, "twin", "one/model")
    assert register_policy(db, "twin", "one/model").base == "one/model"
    with pytest.raises(Conflict):
        register_policy(db, "twin", "other/model")
