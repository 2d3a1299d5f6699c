"""A base that was moved is found again by all that stands on it, and another model is not taken for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput, NotFound, RunCancelled
from feedback.store.models.checkpoints import get_checkpoint
from feedback.store.models.policies import get_policy, promote_policy, save_policy
from feedback.store.people import audit
from feedback.tables import PolicyRow
from feedback.types import Policy
from studio.cli.app import app
from studio.doctor import examine
from studio.security import accounts as users
from studio.web.app import create_app
from tests.training.tiny_models import change_weights, model_at
from training.checkpoints.hashing import describe_base
from training.checkpoints.manifest import ADAPTER_CONFIG, read_manifest
from training.checkpoints.opening import open_policy, open_reward
from training.checkpoints.registration import add_policy
from training.home import Home
from training.methods import METHODS
from training.operations.rebase import missing_bases, rebase
from training.reporting.reporter import LocalProgress, RunContext

MakeContext = Callable[..., RunContext]
DPO = {"dataset": "taste", "min_steps": 2, "epochs": 1, "batch_size": 4, "sample_every": 0, "learning_rate": 0.005}
REWARD = {**DPO, "members": 1}


@pytest.fixture
def tiny_policy(db: Database, tmp_path: Path) -> PolicyRow:
    """A base of this test's own, as `policies add` registers it, promoted: what is trained here stands on it."""
    policy = add_policy(db, str(model_at(tmp_path / "before" / "base", max_position_embeddings=256)), "tiny")
    return promote_policy(db, policy.id)


def moved(policy: PolicyRow, tmp_path: Path, to: str = "after") -> str:
    """The base's directory, moved."""
    place = tmp_path / to
    Path(policy.base).rename(place)
    return str(place)


def train(make_context: MakeContext, method: str, **config: Any) -> dict[str, Any]:
    shared = {**DPO, **config}
    return METHODS[method].run(make_context(method, shared))


@pytest.fixture
def trained(make_context: MakeContext, dataset: str) -> None:
    """A policy and a reward model over the base, and a policy over that policy."""
    train(make_context, "dpo", name="child")
    train(make_context, "dpo", name="grandchild", parent="child")
    train(make_context, "reward", name="judge")


def test_a_missing_base_names_the_command(db: Database, home: Home, tiny_policy: PolicyRow, tmp_path: Path) -> None:
    moved(tiny_policy, tmp_path)
    with pytest.raises(NotFound, match=rf"`studio policies rebase {tiny_policy.base} NEWPATH`"):
        open_policy(db, home, "tiny", "cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("by", ["tiny", "grandchild", "judge", "the old path"])
def test_all_that_stands_on_a_moved_base_finds_it(
    db: Database, home: Home, tiny_policy: PolicyRow, make_context: MakeContext, tmp_path: Path, by: str
) -> None:
    old, new = tiny_policy.base, moved(tiny_policy, tmp_path)
    done = rebase(db, home, old if by == "the old path" else by, new)
    assert (done.old, done.new, done.proved, done.left) == (old, new, True, ())
    assert set(done.policies) == {"tiny", "child", "grandchild"}
    assert set(done.checkpoints) == {"child", "grandchild", "judge"}
    for name in done.policies:
        assert open_policy(db, home, name, "cpu").base == new
    assert open_reward(db, home, "judge", "cpu").base == new
    assert missing_bases(db) == []
    child = home.path / get_checkpoint(db, "child").path
    assert json.loads((child / ADAPTER_CONFIG).read_text())["base_model_name_or_path"] == new
    assert read_manifest(child).base == old  # what it says of the past is as it was
    if by == "tiny":
        again = train(make_context, "dpo", name="later", parent="grandchild")
        assert get_policy(db, again["policy"]).base == new
        ppo = {"reward": "judge", "iterations": 1, "episodes": 4, "batch_size": 4, "max_new_tokens": 4}
        assert METHODS["ppo"].run(make_context("ppo", {**ppo, "name": "drawn", "parent": "later"}))["policy"]


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_another_model_is_refused_with_both_hashes(
    db: Database, home: Home, tiny_policy: PolicyRow, tmp_path: Path
) -> None:
    expected = describe_base(tiny_policy.base)
    moved(tiny_policy, tmp_path)
    other = model_at(tmp_path / "other", max_position_embeddings=256)
    change_weights(other, lambda tensors: tensors["model.norm.weight"].mul_(2))
    found = describe_base(str(other))
    with pytest.raises(InvalidInput, match=rf"hash {expected[:12]} expected, {found[:12]} found. Nothing was changed"):
        rebase(db, home, "child", str(other))
    assert get_policy(db, "child").base == get_checkpoint(db, "judge").base == tiny_policy.base
    with pytest.raises(InvalidInput, match="another model"):
        rebase(db, home, "child", str(other), unproven=True)


def test_a_base_alone_is_proved_by_the_hash_it_was_added_with(
    db: Database, home: Home, tiny_policy: PolicyRow, tmp_path: Path
) -> None:
    new = moved(tiny_policy, tmp_path)
    other = model_at(tmp_path / "other")
    with pytest.raises(InvalidInput, match="another model than the one at"):
        rebase(db, home, "tiny", str(other))
    assert rebase(db, home, "tiny", new).proved
    assert open_policy(db, home, "tiny", "cpu").base == new


def test_what_nothing_proves_needs_a_word(db: Database, home: Home, tmp_path: Path) -> None:
    save_policy(db, Policy(name="early", base=str(tmp_path / "gone")))
    new = str(model_at(tmp_path / "here"))
    with pytest.raises(InvalidInput, match="give --unproven"):
        rebase(db, home, "early", new)
    done = rebase(db, home, "early", new, unproven=True)
    assert not done.proved and get_policy(db, "early").base == new


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_what_stands_on_another_model_of_the_same_path_stays(
    db: Database, home: Home, tiny_policy: PolicyRow, make_context: MakeContext, tmp_path: Path
) -> None:
    """Another model was put in the base's place, and trained on; then the first is found elsewhere."""
    new = moved(tiny_policy, tmp_path)
    changed = model_at(Path(tiny_policy.base), max_position_embeddings=256)
    change_weights(changed, lambda tensors: tensors["model.norm.weight"].mul_(2))
    train(make_context, "dpo", name="stranger", parent="tiny")
    done = rebase(db, home, "child", new)
    assert "stranger" in done.left and "stranger" not in done.policies
    assert open_policy(db, home, "child", "cpu").base == new
    assert open_policy(db, home, "stranger", "cpu").base == tiny_policy.base


def test_what_cannot_be_said_of_a_place_is_refused(
    db: Database, home: Home, tiny_policy: PolicyRow, tmp_path: Path
) -> None:
    save_policy(db, Policy(name="remote", base="http://127.0.0.1:1/v1#m"))
    save_policy(db, Policy(name="starter", base="starter"))
    for key, new, kind, says in (
        ("nobody", "/nowhere", NotFound, "There is no policy or base 'nobody'"),
        ("tiny", "/nowhere", InvalidInput, "There is no model directory"),
        ("tiny", tiny_policy.base, Conflict, "lies there already"),
        ("tiny", str(tmp_path), InvalidInput, "config.json"),
        ("tiny", "http://127.0.0.1:1/v1#m", InvalidInput, "server's address"),
        ("remote", tiny_policy.base, Conflict, "replies over HTTP"),
        ("starter", tiny_policy.base, Conflict, "The studio itself keeps starter"),
    ):
        with pytest.raises(kind, match=says):
            rebase(db, home, key, new)


@pytest.mark.slow
def test_a_run_at_work_while_its_base_moves_loses_nothing(
    db: Database, home: Home, tiny_policy: PolicyRow, dataset: str, make_context: MakeContext, tmp_path: Path
) -> None:
    class Mover(LocalProgress):
        """Moves the base once the run has loaded it and takes its steps."""

        def __init__(self, to: Path) -> None:
            super().__init__()
            self.to = to

        def metrics(self, step: int, **values: float) -> None:
            here = Path(get_policy(db, "tiny").base)
            if here.is_dir():
                here.rename(self.to)
            super().metrics(step, **values)

    for method in ("dpo", "reward"):
        to = tmp_path / f"after-{method}"
        context = replace(make_context(method, {**DPO, "name": f"by-{method}"}), progress=Mover(to))
        METHODS[method].run(context)
        assert missing_bases(db)
        rebase(db, home, "tiny", str(to))
    assert open_policy(db, home, "by-dpo", "cpu") and open_reward(db, home, "by-reward", "cpu")


@pytest.mark.slow
def test_a_run_that_was_stopped_half_way_goes_on_from_the_new_place(
    db: Database, home: Home, tiny_policy: PolicyRow, dataset: str, make_context: MakeContext, tmp_path: Path
) -> None:
    config = {**DPO, "min_steps": 6, "save_every": 2, "name": "resumed", "parent": "tiny"}

    class Stopped(LocalProgress):
        def metrics(self, step: int, **values: float) -> None:
            super().metrics(step, **values)
            if step == 4:
                raise RunCancelled("stopped by the test")

    context = replace(make_context("dpo", config), progress=Stopped())
    with pytest.raises(RunCancelled):
        METHODS["dpo"].run(context)
    new = moved(tiny_policy, tmp_path)
    with pytest.raises(NotFound, match="policies rebase"):
        METHODS["dpo"].run(make_context("dpo", config, attempt=2, run=context.run))
    rebase(db, home, tiny_policy.base, new)
    again = make_context("dpo", config, attempt=2, run=context.run)
    METHODS["dpo"].run(again)
    assert any("going on from checkpoint-" in line for line in again.progress.lines)  # type: ignore[attr-defined]
    assert open_policy(db, home, "resumed", "cpu").base == new


def test_the_commands_find_it_and_mend_it(tmp_path: Path) -> None:
    home = tmp_path / "home"

    def studio(*arguments: str, home: Path = home) -> Any:
        return CliRunner().invoke(app, ["--home", str(home), *arguments])

    base = model_at(tmp_path / "my base")
    assert studio("policies", "add", str(base), "--name", "mine").exit_code == 0
    healthy = {finding.name: finding for finding in examine(Home(home))}["bases"]
    assert healthy.ok
    new = base.rename(tmp_path / "elsewhere")
    again = studio("policies", "add", str(new), "--name", "mine")
    assert again.exit_code == 1 and f"`studio policies rebase mine {new}`" in again.output + str(again.exception)
    sick = {finding.name: finding for finding in examine(Home(home))}["bases"]
    assert not sick.ok and "mine" in sick.seen and f"policies rebase '{base}' NEWPATH" in sick.remedy
    assert studio("backup", str(tmp_path / "archive")).exit_code == 0
    other = tmp_path / "other-home"
    restored = studio("restore", str(tmp_path / "archive"), home=other)
    assert restored.exit_code == 0 and f"policies rebase '{base}' NEWPATH" in restored.stderr
    for place in (home, other):
        told = studio("policies", "rebase", "mine", str(new), "--json", home=place)
        assert told.exit_code == 0 and json.loads(told.stdout)["policies"] == ["mine"], told.output
        db = Home(place).open()
        (event,) = audit.list_events(db, verb="policy.rebase")
        assert (event.subject, event.detail) == ("mine", {"base": str(new)}) and event.actor.startswith("shell")
        assert [one.subject for one in audit.list_events(db, verb="policy.add")] == [str(base)]
        db.dispose()
    assert studio("policies", "rebase", "mine", str(new)).exit_code == 1


def test_rest_says_where_it_lies_and_writes_it_down(
    db: Database, home: Home, tiny_policy: PolicyRow, tmp_path: Path
) -> None:
    old, new = tiny_policy.base, moved(tiny_policy, tmp_path)
    with TestClient(create_app(home, db), base_url="http://127.0.0.1:7860") as client:
        tokens = {
            role: users.add_user(db, f"the-{role}", role, actor="test").token
            for role in ("annotator", "researcher", "admin")
        }

        def post(role: str, body: dict[str, Any]) -> Any:
            headers = {"Authorization": f"Bearer {tokens[role]}"}
            return client.post("/api/policies/tiny/rebase", json=body, headers=headers)

        assert post("annotator", {"base": new}).status_code == 403
        assert post("researcher", {"base": "/nowhere"}).status_code == 422
        assert post("researcher", {"base": new, "unproven": True}).status_code == 422
        answer = post("researcher", {"base": new})
    assert answer.status_code == 200 and answer.json()["old"] == old and answer.json()["policies"] == ["tiny"]
    events = audit.list_events(db, verb="policy.rebase")
    assert [(event.actor, event.subject) for event in events] == [("the-researcher", "tiny")]
