from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database, open_database
from feedback.datasets import freeze
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.store.models import checkpoints, policies, runs
from feedback.store.reports import lineage
from feedback.types import Checkpoint, DatasetFilters, MetricPoint, Policy, Run, RunState
from tests.factories import judge_by, longer, make_matchup, make_policy


def test_runs_are_listed_by_state_and_method(db: Database) -> None:
    ids = [runs.save_run(db, Run(method=method)).id for method in ("generate", "dpo", "generate", "dpo")]
    runs.transition_run(db, ids[0], expected=[RunState.queued], to=RunState.starting)

    def listed(**asked: Any) -> list[str]:
        return [run.id for run in runs.list_runs(db, **asked)]

    assert listed() == ids[::-1]
    assert listed(method="generate") == [ids[2], ids[0]]
    assert listed(method="generate", limit=1) == [ids[2]]
    assert listed(method="generate", states=[RunState.starting]) == [ids[0]]
    assert listed(method="sft") == []


def test_older_runs_are_listed_from_a_cursor_and_narrowed_by_name(db: Database) -> None:
    made = [runs.save_run(db, Run(method="dpo", config={"name": f"Mild-{number}"})).id for number in range(7)]
    first = runs.list_runs(db, limit=3)
    second = runs.list_runs(db, limit=3, before=first[-1].id)
    rest = runs.list_runs(db, limit=3, before=second[-1].id)
    assert [run.id for run in (*first, *second, *rest)] == made[::-1]
    assert runs.list_runs(db, before=made[0]) == []
    assert [run.id for run in runs.list_runs(db, name="mild-3")] == [made[3]]
    assert [run.id for run in runs.list_runs(db, name=made[5][4:])] == [made[5]]
    assert runs.list_runs(db, name="100%_") == [] and runs.count_runs(db, name="mild") == 7
    assert runs.count_runs(db, method="sft") == 0 and runs.count_runs(db, states=[RunState.queued]) == 7
    with pytest.raises(NotFound, match="newest run"):
        runs.list_runs(db, before="run-none")


def test_runs_of_one_moment_are_listed_once_each(db: Database) -> None:
    made = [runs.save_run(db, Run(method="dpo")) for _ in range(4)]
    for run in made:
        runs.update_run(db, run.id, created_at=made[0].created_at)
    seen: list[str] = []
    while len(seen) < 4:
        seen += [run.id for run in runs.list_runs(db, limit=1, before=seen[-1] if seen else None)]
    assert sorted(seen) == sorted(run.id for run in made) and len(set(seen)) == 4


def test_a_run_moves_only_from_the_states_expected(db: Database) -> None:
    run = runs.save_run(db, Run(method="dpo"))
    assert runs.transition_run(db, run.id, expected={RunState.running}, to=RunState.succeeded) is None
    moved = runs.transition_run(db, run.id, expected={RunState.queued}, to=RunState.starting, pid=7)
    assert moved and moved.state is RunState.starting and moved.pid == 7
    assert runs.get_run(db, run.id).state is RunState.starting
    with pytest.raises(ValueError, match="transition_run"):
        runs.update_run(db, run.id, state=RunState.failed)


def test_the_queue_serves_priority_then_age(db: Database) -> None:
    old, urgent, young = (runs.save_run(db, Run(method="dpo", priority=p)) for p in (0, 5, 0))
    claimed = [runs.claim_next_run(db) for _ in range(4)]
    assert [run.id if run else None for run in claimed] == [urgent.id, old.id, young.id, None]


def _claim_all(path: str) -> list[str]:
    db = open_database(path)
    taken = []
    while (run := runs.claim_next_run(db)) is not None:
        taken.append(run.id)
    return taken


@pytest.mark.slow
def test_no_run_is_claimed_twice(tmp_path: Path) -> None:
    db = open_database(tmp_path / "studio.db")
    made = [runs.save_run(db, Run(method="dpo")).id for _ in range(40)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        taken = pool.map(_claim_all, [str(tmp_path / "studio.db")] * 4)
    assert sorted(run_id for part in taken for run_id in part) == sorted(made)


def test_a_live_chart_reads_only_what_is_new(db: Database) -> None:
    run = runs.save_run(db, Run(method="dpo"))
    runs.save_metrics(
        db, run.id, [MetricPoint(step=1, name="loss", value=0.7), MetricPoint(step=2, name="loss", value=0.6)]
    )
    seen = runs.list_metrics(db, run.id)
    runs.save_metrics(db, run.id, [MetricPoint(step=3, name="loss", value=0.5)])
    assert [(point.step, point.value) for point in runs.list_metrics(db, run.id, after_id=seen[-1].id or 0)] == [
        (3, 0.5)
    ]


def test_lineage_walks_from_a_policy_to_the_people(db: Database) -> None:
    base = make_policy(db, "base")
    for _ in range(3):
        make_matchup(db, policy=base)
    judge_by(db, longer, annotator="ann", count=2)
    judge_by(db, longer, annotator="bob")
    dataset = freeze.freeze(db, "votes")
    run = runs.save_run(db, Run(method="dpo"))
    checkpoint = checkpoints.save_checkpoint(
        db,
        Checkpoint(name="c", kind="policy", path="checkpoints/c", base="starter", run_id=run.id, dataset_id=dataset.id),
    )
    policies.save_policy(
        db, Policy(name="better", base="starter", checkpoint_id=checkpoint.id, parent_id=base.id, run_id=run.id)
    )
    walk = lineage.policy_lineage(db, "better")
    assert walk["dataset"]["hash"] == dataset.hash and walk["run"]["id"] == run.id
    assert walk["judgments"]["annotators"] == {"ann": 2, "bob": 1} and walk["judgments"]["by_source"] == {"human": 3}
    assert walk["judged_policies"] == {"base": 6}
    assert walk["parent"]["policy"]["name"] == "base" and walk["parent"]["parent"] is None


def test_lineage_goes_through_the_reward_model_and_back(db: Database) -> None:
    """A vote teaches a reward model, which scores what a policy learns from: two datasets, of which one is prompts."""
    base = make_policy(db, "base")
    make_matchup(db, policy=base)
    judge_by(db, longer, annotator="ann")
    taught = freeze.freeze(db, "taught")
    make_matchup(db, policy=base)
    judge_by(db, longer, annotator="bob")
    prompts_only = freeze.freeze(db, "prompts-only", DatasetFilters(annotators=("bob",)))

    def checkpoint(name: str, kind: str, dataset_id: str | None, **config: str) -> Any:
        run = runs.save_run(db, Run(method=kind, config=config))
        value = Checkpoint(name=name, kind=kind, path=name, base="b", run_id=run.id, dataset_id=dataset_id)
        return checkpoints.save_checkpoint(db, value)

    judge = checkpoint("judge", "reward", taught.id)
    other = checkpoint("other", "reward", prompts_only.id)
    made = {
        "by-judge": checkpoint("by-judge", "policy", prompts_only.id, reward=f"judge, {other.id}"),
        "by-function": checkpoint("by-function", "policy", prompts_only.id, reward_function="no_repetition"),
        "by-votes": checkpoint("by-votes", "policy", taught.id),
    }
    for name, row in made.items():
        policies.save_policy(
            db, Policy(name=name, base="b", checkpoint_id=row.id, parent_id=base.id, run_id=row.run_id)
        )
    child = Policy(name="child", base="b", parent_id=policies.get_policy(db, "by-judge").id)
    policies.save_policy(db, child)
    walk = lineage.policy_lineage(db, "by-judge")
    assert [step["checkpoint"]["name"] for step in walk["rewards"]] == ["judge", "other"]
    assert walk["rewards"][0]["checkpoint"]["id"] == judge.id and walk["rewards"][0]["run"]["method"] == "reward"
    assert [step["judgments"]["annotators"] for step in walk["rewards"]] == [{"ann": 1}, {"bob": 1}]
    assert walk["dataset"]["name"] == "prompts-only"
    told = {name: lineage.policy_lineage(db, name) for name in made}
    assert {name: walk["prompts_only"] for name, walk in told.items()} == {
        "by-judge": True, "by-function": True, "by-votes": False,
    }  # fmt: skip
    assert [told[name]["reward_function"] for name in made] == [None, "no_repetition", None]
    assert told["by-function"]["rewards"] == told["by-votes"]["rewards"] == []

    (vote,) = lineage.policy_lineage(db, "by-votes")["judgments"]["ids"]
    back = lineage.judgment_lineage(db, vote)
    assert back["judgment"]["annotator"] == "ann"
    assert [[row["name"] for row in back[kind]] for kind in ("datasets", "rewards", "policies")] == [
        ["taught"],
        ["judge"],
        ["by-judge", "by-votes", "child"],
    ]
    with pytest.raises(NotFound, match="no judgment 'nope'"):
        lineage.judgment_lineage(db, "nope")


def test_names_are_unique_and_missing_ones_list_the_known(db: Database) -> None:
    make_policy(db, "one")
    with pytest.raises(Conflict, match="already a policy 'one'"):
        make_policy(db, "one")
    with pytest.raises(NotFound, match="no policy 'two'. Known: one"):
        policies.get_policy(db, "two")


def test_a_name_that_is_taken_and_a_reference_to_nothing_are_told_apart(db: Database) -> None:
    policies.save_policy(db, Policy(name="one", base="b"))
    with pytest.raises(Conflict, match="already a policy 'one'"):
        policies.save_policy(db, Policy(name="one", base="b"))
    with pytest.raises(InvalidInput, match="policy 'two' cannot be saved: its run_id 'run-nope' is not there"):
        policies.save_policy(db, Policy(name="two", base="b", run_id="run-nope"))
    checkpoints.save_checkpoint(db, Checkpoint(name="c", kind="reward", path="p", base="b"))
    with pytest.raises(Conflict, match="already a checkpoint 'c'"):
        checkpoints.save_checkpoint(db, Checkpoint(name="c", kind="reward", path="p", base="b"))
    with pytest.raises(InvalidInput, match="checkpoint 'd' cannot be saved: its dataset_id 'dat-nope' is not there"):
        checkpoints.save_checkpoint(db, Checkpoint(name="d", kind="reward", path="p", base="b", dataset_id="dat-nope"))
