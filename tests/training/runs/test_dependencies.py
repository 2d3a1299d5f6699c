"""A run that waits for another: passed over until that one has succeeded, and told why when it never will."""

from __future__ import annotations

import pytest

from feedback.database.engine import Database
from feedback.datasets.freeze import freeze
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.store.models.policies import promote_policy
from feedback.store.models.runs import claim_next_run, get_run
from feedback.types import DatasetFilters, RunState
from tests.factories import judge_by, longer, make_matchup, make_policy
from training.runs import lifecycle, queue
from training.runs.dependencies import give_up_waiting


@pytest.fixture
def champion(db: Database) -> str:
    return promote_policy(db, make_policy(db, "champion-1").id).name


@pytest.fixture
def dataset(db: Database, champion: str) -> str:
    for _ in range(14):
        make_matchup(db)
    judge_by(db, longer)
    return freeze(db, "d").name


def test_a_run_begins_only_when_the_one_before_it_succeeded(db: Database, champion: str) -> None:
    first = queue.submit(db, "generate", {})
    second = queue.submit(db, "generate", {"after": first.id, "priority": "5"})
    assert (second.after, second.priority, second.progress_text) == (first.id, 5, f"waits for {first.id}")
    assert "after" not in second.config and "priority" not in second.config
    claimed = claim_next_run(db)
    assert claimed is not None and claimed.id == first.id  # although the second has the higher priority
    assert claim_next_run(db) is None
    lifecycle.advance(db, first.id, RunState.running)
    assert claim_next_run(db) is None
    lifecycle.advance(db, first.id, RunState.succeeded)
    claimed = claim_next_run(db)
    assert claimed is not None and claimed.id == second.id


def test_priority_goes_before_age(db: Database, champion: str) -> None:
    queue.submit(db, "generate", {})
    urgent = queue.submit(db, "generate", {}, priority=1)
    claimed = claim_next_run(db)
    assert claimed is not None and claimed.id == urgent.id
    with pytest.raises(InvalidInput, match="priority='soon' is not a whole number"):
        queue.submit(db, "generate", {"priority": "soon"})


@pytest.mark.parametrize("end", [RunState.failed, RunState.cancelled])
def test_a_wait_without_hope_ends_with_the_reason(db: Database, champion: str, end: RunState) -> None:
    first = queue.submit(db, "generate", {})
    second = queue.submit(db, "generate", {}, after=first.id)
    third = queue.submit(db, "generate", {}, after=second.id)
    assert give_up_waiting(db) == []
    claim_next_run(db)
    lifecycle.advance(db, first.id, RunState.running)
    lifecycle.advance(db, first.id, end, error="It broke." if end is RunState.failed else None)
    for waiting in (second, third):
        assert [run.id for run in give_up_waiting(db)] == [waiting.id]
    told = str(get_run(db, second.id).error)
    assert f"waited for run {first.id}, which is {end.value}" in told and f"runs resume {second.id}" in told
    assert ("It broke" in told) == (end is RunState.failed)


def test_an_interrupted_run_is_still_waited_for(db: Database, champion: str) -> None:
    first = queue.submit(db, "generate", {})
    second = queue.submit(db, "generate", {}, after=first.id)
    claim_next_run(db)
    lifecycle.advance(db, first.id, RunState.interrupted)
    assert give_up_waiting(db) == []
    assert get_run(db, second.id).state is RunState.queued


def test_what_a_run_will_make_can_be_named_before_it_is_there(db: Database, dataset: str, champion: str) -> None:
    learnt = queue.submit(db, "dpo", {"dataset": dataset, "name": "warm-1"})
    further = queue.submit(db, "dpo", {"dataset": dataset, "name": "warm-2", "parent": "warm-1"}, after=learnt.id)
    queue.submit(db, "evaluate", {"a": "warm-1", "b": "warm-2", "oracle": "shorter"}, after=further.id)
    with pytest.raises(NotFound, match="warm-1"):
        queue.submit(db, "dpo", {"dataset": dataset, "parent": "warm-1"})
    with pytest.raises(Conflict, match="will be named 'warm-1' too"):
        queue.submit(db, "dpo", {"dataset": dataset, "name": "warm-1"}, after=learnt.id)


def test_nothing_comes_after_what_is_over_or_unknown(db: Database, champion: str) -> None:
    first = queue.submit(db, "generate", {})
    queue.cancel(db, first.id)
    with pytest.raises(Conflict, match=f"is cancelled, so nothing can come after it.*resume {first.id}"):
        queue.submit(db, "generate", {}, after=first.id)
    with pytest.raises(NotFound, match="run-nope"):
        queue.submit(db, "generate", {}, after="run-nope")


def test_too_few_pairs_for_a_reward_model_are_refused_with_numbers_unless_one_insists(
    db: Database, champion: str
) -> None:
    for _ in range(5):
        make_matchup(db)
    judge_by(db, longer)
    freeze(db, "five", DatasetFilters(test_share=0.0))
    with pytest.raises(Exception, match=r"has 5 training pairs, and reward learns .* fewer than 8.*allow_few=true"):
        queue.submit(db, "reward", {"dataset": "five"})
    assert queue.submit(db, "reward", {"dataset": "five", "allow_few": "true"}).state is RunState.queued
    assert queue.submit(db, "dpo", {"dataset": "five"}).state is RunState.queued


def test_a_library_that_is_missing_is_named_before_the_run_begins(
    db: Database, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.runs.validation.find_spec", lambda name: None)
    monkeypatch.setattr("training.models.loading.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="report_to=wandb needs the package wandb.*pip install wandb"):
        queue.submit(db, "dpo", {"dataset": dataset, "report_to": "wandb"})
    with pytest.raises(InvalidInput, match="quantize=8bit needs bitsandbytes"):
        queue.submit(db, "dpo", {"dataset": dataset, "quantize": "8bit"})
