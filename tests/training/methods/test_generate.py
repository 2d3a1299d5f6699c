"""Filling the pool: pairs appear chunk by chunk, and what cannot be used is counted with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.errors import RunCancelled, RunFailed
from feedback.labeling.assignment import lease_next
from feedback.store.content.generations import list_generations
from feedback.store.content.prompts import save_prompts
from feedback.store.labeling.batches import ensure_batch, find_batch
from feedback.store.labeling.matchups import count_matchups
from feedback.store.models.policies import save_policy
from feedback.types import Batch, Policy, Prompt, SamplingSettings
from tests.factories import draw_again, make_prompt
from training.methods import METHODS, generate
from training.methods.generate import chunks
from training.models.loading import LoadedPolicy, load_base

QUICK = {"max_new_tokens": 8, "seed": 3}


def test_it_fills_the_pool_with_generations_that_name_their_draw(make_context: Any, tiny_policy: Any) -> None:
    context = make_context("generate", QUICK | {"limit": 6, "per_prompt": 4, "required": 2})
    prompts = [make_prompt(context.db, f"Say {number}.") for number in range(7)]
    result = METHODS["generate"].run(context)
    assert (result["generations"], result["matchups"], result["refused"]) == (24, 12, 0)
    assert count_matchups(context.db).open == 12
    row = list_generations(context.db, prompt_id=prompts[0].id)[0]
    assert row.policy_id == tiny_policy.id
    assert row.run_id == context.run.id
    assert row.sampling["max_new_tokens"] == 8

    again = METHODS["generate"].run(make_context("generate", QUICK))
    assert again["matchups"] == 1  # only the prompt that was left
    nothing = METHODS["generate"].run(make_context("generate", QUICK))
    assert nothing["generations"] == 0
    assert nothing["nothing"].startswith("Every one of the 7 prompts has an open matchup")
    assert "studio judge" in nothing["nothing"] and "studio prompts import" in nothing["nothing"]


def test_a_batch_is_filled_apart_with_its_own_priority_and_prompts_by_tag(make_context: Any) -> None:
    config = QUICK | {"batch": "mine", "tags": ["short"], "required": 2}
    context = make_context("generate", config)
    ensure_batch(context.db, Batch(name="mine", priority=1, required=2))
    asked = [Prompt(messages=[{"role": "user", "content": f"Say {n}."}], tags=["short"] * (n < 3)) for n in range(5)]
    save_prompts(context.db, asked)
    METHODS["generate"].run(make_context("generate", QUICK | {"limit": 2}))  # others may ask about the same prompts
    assert METHODS["generate"].run(context)["matchups"] == 3
    batch = find_batch(context.db, "mine")
    assert batch is not None and count_matchups(context.db, batch_id=batch.id).open == 3
    first, of_batch = lease_next(context.db, "ann"), lease_next(context.db, "bob", batch_id=batch.id)
    assert first is not None and of_batch is not None
    assert first.matchup_id == of_batch.matchup_id, "its priority puts the batch first"
    nothing = METHODS["generate"].run(make_context("generate", config))
    assert nothing["nothing"].startswith("Every one of the 3 prompts that carry short has an open matchup")
    none = METHODS["generate"].run(make_context("generate", QUICK | {"tags": ["odd"]}))
    assert none["nothing"].startswith("There are no prompts that carry odd")


def test_without_prompts_it_says_so(make_context: Any) -> None:
    nothing = METHODS["generate"].run(make_context("generate", QUICK))
    assert nothing["generations"] == 0 and "There are no prompts to reply to" in nothing["nothing"]


def test_every_generation_can_be_drawn_again(make_context: Any, tiny_base: Path) -> None:
    context = make_context("generate", QUICK)
    prompts = [make_prompt(context.db, f"Say {number}.") for number in range(6)]
    METHODS["generate"].run(context)
    policy = LoadedPolicy(*load_base(str(tiny_base), "cpu"), str(tiny_base))
    for prompt in prompts:
        for row in list_generations(context.db, prompt_id=prompt.id):
            again = draw_again(policy, prompt.messages, SamplingSettings(**row.sampling), row.seed)
            assert (again.text, again.finish_reason, again.tokens) == (row.text, row.finish_reason, row.tokens)


def test_a_prompt_too_long_is_counted_and_the_others_go_on(make_context: Any) -> None:
    context = make_context("generate", QUICK)
    make_prompt(context.db, "Say it.")
    long = make_prompt(context.db, "x" * 300)
    result = METHODS["generate"].run(context)
    assert (result["matchups"], result["refused"]) == (1, 1)
    assert result["refused_reasons"] == {"too_long": 1}
    assert any(long.id in line and "window is 256" in line for line in context.progress.lines)


def test_when_no_prompt_fits_the_run_fails_with_the_numbers(make_context: Any) -> None:
    context = make_context("generate", QUICK)
    make_prompt(context.db, "x" * 300)
    with pytest.raises(RunFailed, match=r"None of the 1 prompts can be given to the model.*window is 256"):
        METHODS["generate"].run(context)


def test_the_first_pairs_are_there_before_the_run_is_cancelled(make_context: Any) -> None:
    context = make_context("generate", QUICK | {"batch_size": 8})
    save_prompts(context.db, [Prompt(messages=[{"role": "user", "content": f"Say {n}."}]) for n in range(20)])

    def stop_after_first(step: int, **values: float) -> None:
        context.progress.stop()

    context.progress.metrics = stop_after_first
    with pytest.raises(RunCancelled):
        METHODS["generate"].run(context)
    assert count_matchups(context.db).open == generate.FIRST_CHUNK


@pytest.mark.parametrize("killed_before_pairing", [False, True])
def test_a_resumed_run_goes_on_and_does_not_overshoot(
    make_context: Any, monkeypatch: pytest.MonkeyPatch, killed_before_pairing: bool
) -> None:
    config = QUICK | {"limit": 10, "batch_size": 8}
    context = make_context("generate", config)
    save_prompts(context.db, [Prompt(messages=[{"role": "user", "content": f"Say {n}."}]) for n in range(20)])
    with monkeypatch.context() as dying:
        if killed_before_pairing:
            dying.setattr(generate, "pair_up", lambda *_: context.progress.stop() or context.progress.check())
        else:
            context.progress.metrics = lambda step, **values: context.progress.stop()
        with pytest.raises(RunCancelled):
            METHODS["generate"].run(context)
    assert len(list_generations(context.db)) == 2 * generate.FIRST_CHUNK
    again = make_context("generate", config, attempt=2, run=context.run)
    result = METHODS["generate"].run(again)
    rows = list_generations(context.db)
    assert len({row.prompt_id for row in rows}) == 10
    assert len(rows) == result["generations"] == 20
    assert count_matchups(context.db).open == result["matchups"] == 10
    whole = make_context("generate", config, attempt=3, run=context.run)
    assert METHODS["generate"].run(whole) == result
    assert len(list_generations(context.db)) == 20


def test_identical_replies_make_no_matchup(make_context: Any) -> None:
    context = make_context("generate", QUICK | {"top_k": 1})
    make_prompt(context.db, "Say it.")
    result = METHODS["generate"].run(context)
    assert (result["generations"], result["identical"], result["matchups"]) == (2, 1, 0)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_chunks_hold_every_prompt_once(size: int) -> None:
    for count in (0, 1, 4, 5, 23):
        split = [list(chunk) for chunk in chunks(list(range(count)), size)]  # type: ignore[arg-type]
        assert [prompt for chunk in split for prompt in chunk] == list(range(count))


def test_chunks_grow_up_to_a_full_batch() -> None:
    assert [len(chunk) for chunk in chunks(list(range(100)), 40)] == [1, 4, 16, 40, 39]  # type: ignore[arg-type]
    assert [len(chunk) for chunk in chunks(list(range(6)), 2)] == [1, 2, 2, 1]  # type: ignore[arg-type]


def test_the_first_pair_is_there_before_a_second_prompt_is_drawn(
    make_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context("generate", QUICK)
    save_prompts(context.db, [Prompt(messages=[{"role": "user", "content": f"Say {n}."}]) for n in range(9)])
    found: list[tuple[int, int]] = []
    real = generate.sample

    def noted(policy: Any, prompts: Any, *args: Any, **given: Any) -> Any:
        found.append((len(prompts), count_matchups(context.db).open))
        return real(policy, prompts, *args, **given)

    monkeypatch.setattr(generate, "sample", noted)
    METHODS["generate"].run(context)
    assert found == [(1, 0), (4, 1), (4, 5)]


@pytest.mark.parametrize("config", [{}, {"against": "rival"}])
def test_progress_moves_with_each_token(make_context: Any, config: dict[str, Any], tiny_base: Path) -> None:
    context = make_context("generate", QUICK | config | {"policy": "tiny"})
    save_policy(context.db, Policy(name="rival", base=str(tiny_base)))
    save_prompts(context.db, [Prompt(messages=[{"role": "user", "content": f"Say {n}."}]) for n in range(9)])
    METHODS["generate"].run(context)
    shares = [share for share, text in context.progress.reports if " prompts" in text]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert len(shares) >= 3 * QUICK["max_new_tokens"]  # chunks, each with a report at every token
    assert 0 < shares[0] < 1 / 9
    assert context.progress.reports[-1][1].startswith("9 of 9 prompts, 9 matchups")


def test_a_cancel_is_heard_within_a_chunk(make_context: Any) -> None:
    context = make_context("generate", QUICK)
    make_prompt(context.db, "Say it.")
    heard: list[float] = []

    def report(share: float, text: str) -> None:
        heard.append(share)
        if share:
            context.progress.stop()

    context.progress.report = report
    with pytest.raises(RunCancelled):
        METHODS["generate"].run(context)
    assert len([share for share in heard if share]) == 1
    assert list_generations(context.db) == []


@pytest.mark.parametrize(("precision", "half"), [("auto", True), ("fp32", False)])
def test_it_draws_in_bf16_where_that_pays_and_says_so(
    make_context: Any, monkeypatch: pytest.MonkeyPatch, precision: str, half: bool
) -> None:
    monkeypatch.setattr("training.speedups.half_linears.half_pays", lambda model: True)
    context = make_context("generate", QUICK | {"precision": precision})
    prompt = make_prompt(context.db, "Say it.")
    METHODS["generate"].run(context)
    assert any("bf16" in line for line in context.progress.lines) is half
    for row in list_generations(context.db, prompt_id=prompt.id):
        assert row.sampling.get("precision") == ("bf16" if half else None)
