from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.database.engine import Database, open_database
from feedback.datasets import freeze
from feedback.datasets.examples import list_demonstrations, list_labelled_replies, list_rankings
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.labeling import assignment, judging
from feedback.rules import votes as ranking
from feedback.rules.pairing import make_pairs
from feedback.store.content.generations import save_generations
from feedback.store.datasets import datasets as store
from feedback.store.labeling.batches import ensure_batch
from feedback.store.labeling.matchups import save_matchups
from feedback.store.models.runs import save_run
from feedback.types import Batch, DatasetFilters, Generation, Judgment, Run, Source, Split
from tests.factories import judge_by, longer, make_matchup, make_policy, make_prompt


@given(st.lists(st.integers(1, 6), min_size=2, max_size=6))
def test_a_ranking_expands_to_every_ordered_pair_and_back(ranks: list[int]) -> None:
    judgment = Judgment(matchup_id="m", lease_id="l", annotator="a", ranking=ranks)
    votes = list(ranking.votes_of(judgment, "j"))
    assert {(vote.better, vote.worse) for vote in votes} == {
        (i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]
    }


def test_pairs_prefer_what_the_votes_prefer(db: Database) -> None:
    for number in range(6):
        make_matchup(db, texts=[f"short {number}", f"a good deal longer {number}"])
    judge_by(db, longer)
    dataset = freeze.freeze(db, "d")
    pairs = store.list_pairs(db, "d")
    assert dataset.counts["pairs"] == 6 and dataset.dropped == {}
    assert all(len(pair.chosen) > len(pair.rejected) and pair.agreement == 1.0 for pair in pairs)


def test_the_majority_decides_and_an_even_split_is_dropped(db: Database) -> None:
    clear = make_matchup(db, texts=["tiny", "much longer text"], required=3)
    for name, prefers in (("a", longer), ("b", longer), ("c", lambda *texts: -longer(*texts))):
        judge_by(db, prefers, annotator=name)
    split = make_matchup(db, required=2)
    judge_by(db, longer, annotator="a")
    judge_by(db, lambda *texts: -longer(*texts), annotator="b")
    assert freeze.freeze(db, "d").dropped == {"conflict": 1}
    (pair,) = store.list_pairs(db, "d")
    assert pair.matchup_id == clear.id != split.id
    assert pair.chosen == "much longer text" and pair.agreement == pytest.approx(2 / 3) and len(pair.judgment_ids) == 2
    strict = freeze.freeze(db, "strict", DatasetFilters(min_agreement=0.9))
    assert strict.dropped == {"below_agreement": 1, "conflict": 1} and strict.counts["pairs"] == 0


def test_ties_both_bad_and_skips_are_told_apart_in_the_drop_report(db: Database) -> None:
    for verdict in ("tie", "both_bad", "left", "tie"):
        make_matchup(db)
        task = assignment.lease_next(db, "ann")
        assert task
        judging.submit(db, task.lease_id, "ann", verdict=verdict)
    make_matchup(db)
    task = assignment.lease_next(db, "ann")
    assert task
    judging.submit(db, task.lease_id, "ann", skip_reason="?")
    dataset = freeze.freeze(db, "d")
    assert dataset.dropped == {"both_bad": 1, "skip": 1, "tie": 2}
    assert dataset.counts == {
        "judgments": 5,
        "pairs": 1,
        "train": dataset.counts["train"],
        "test": dataset.counts["test"],
        "prompts": 1,
    }


def test_withdrawn_judgments_never_reach_a_dataset(db: Database) -> None:
    make_matchup(db)
    judge_by(db, longer)
    assert judging.undo_last(db, "ann")
    assert freeze.freeze(db, "d").counts["judgments"] == 0


def test_evaluation_prompts_never_reach_a_dataset(db: Database) -> None:
    make_matchup(db, prompt=make_prompt(db, split=Split.evaluation))
    judge_by(db, longer)
    dataset = freeze.freeze(db, "d")
    assert dataset.counts["pairs"] == 0 and dataset.dropped == {"evaluation_prompt": 1}


def test_the_same_judgments_hash_alike_and_one_more_vote_does_not(db: Database) -> None:
    for _ in range(4):
        make_matchup(db)
    judge_by(db, longer)
    first, second = freeze.freeze(db, "one"), freeze.freeze(db, "two")
    assert first.hash == second.hash and len(first.hash) == 64
    make_matchup(db)
    judge_by(db, longer)
    assert freeze.freeze(db, "three").hash != first.hash
    assert [p.chosen for p in store.list_pairs(db, "one")] == [p.chosen for p in store.list_pairs(db, "two")]


def test_the_same_judgments_lie_in_the_same_order_in_every_home(tmp_path: Path) -> None:
    """Ids are random: in their order batches, and the model that comes of them, would differ from home to home."""

    def told(home: str) -> list[object]:
        db = open_database(tmp_path / f"{home}.db")
        policy = make_policy(db)
        for number in range(12):
            texts = [f"short {number}", f"a good deal longer {number}"]
            prompt = make_prompt(db, f"Tell me about {number}.")
            make_matchup(db, policy=policy, prompt=prompt, texts=texts, required=2)
        judge_by(db, longer, annotator="ann")
        judge_by(db, lambda *texts: 0 if texts[0][-1] in "159" else longer(*texts), annotator="ben")
        freeze.freeze(db, "d")
        said = [
            [(pair.messages[0].content, pair.chosen, pair.rejected) for pair in store.list_pairs(db, "d")],
            [(example.messages[0].content, example.reply) for example in list_demonstrations(db, "d")],
            [(example.messages[0].content, example.reply) for example in list_labelled_replies(db, "d")],
            [(example.messages[0].content, sorted(example.replies)) for example in list_rankings(db, "d")],
        ]
        db.dispose()
        return said

    first = told("first")
    assert all(len(part) > 5 for part in first)
    assert first == told("second") == told("third")


def test_a_hash_does_not_depend_on_the_order_of_the_matchups(db: Database) -> None:
    for _ in range(5):
        make_matchup(db)
    judge_by(db, longer)
    derivation = freeze.preview(db)
    turned = replace(derivation, pairs=derivation.pairs[::-1])
    assert turned.pairs != derivation.pairs
    filters = DatasetFilters()
    assert freeze.dataset_hash(filters, turned) == freeze.dataset_hash(filters, derivation)


def test_a_prompt_lies_on_one_side_of_the_split_whatever_its_pairs(db: Database) -> None:
    policy = make_policy(db)
    for _ in range(30):
        prompt = make_prompt(db)
        make_matchup(db, policy=policy, prompt=prompt)
        make_matchup(db, policy=policy, prompt=prompt)
    judge_by(db, longer)
    dataset = freeze.freeze(db, "d", DatasetFilters(test_share=0.4))
    sides: dict[str, set[str]] = {}
    for pair in store.list_pairs(db, "d"):
        sides.setdefault(pair.prompt_id, set()).add(pair.split)
    assert all(len(side) == 1 for side in sides.values())
    assert 0 < dataset.counts["test"] < dataset.counts["pairs"]
    assert dataset.counts["train"] + dataset.counts["test"] == 60 == len(store.list_pairs(db, "d"))
    assert len(store.list_pairs(db, "d", split="test")) == dataset.counts["test"]
    assert len(store.list_pairs(db, "d", limit=7)) == 7


def test_the_split_follows_its_share() -> None:
    rng = random.Random(1)
    hashes = [rng.randbytes(16).hex() for _ in range(4000)]
    share = sum(freeze.split_of(digest, 0.25, 0) == "test" for digest in hashes) / 4000
    assert share == pytest.approx(0.25, abs=0.03)
    assert any(freeze.split_of(h, 0.25, 0) != freeze.split_of(h, 0.25, 1) for h in hashes)


def test_replies_drawn_on_the_way_are_not_the_parents(db: Database) -> None:
    """Those of a run that broke off stay under the policy it moved away from; its first were that policy's own."""
    parent = make_policy(db, "parent")
    going, made = (save_run(db, Run(method="ppo", config={})) for _ in range(2))
    child = make_policy(db, "child", run_id=made.id)
    for run, policy, iteration in ((going, parent, 0), (going, parent, 3), (made, child, 0), (made, child, 3)):
        prompt = make_prompt(db)
        replies = [
            Generation(
                prompt_id=prompt.id,
                policy_id=policy.id,
                text=text,
                run_id=run.id,
                sampling={"iteration": iteration},
                seed=0,
                tokens=2,
            )
            for text in (f"short {prompt.id}", f"a good deal longer {prompt.id}")
        ]
        save_matchups(db, make_pairs(save_generations(db, replies), random.Random(0)))
    judge_by(db, longer)
    assert freeze.freeze(db, "all").counts["pairs"] == 4
    of_parent = freeze.freeze(db, "parents", DatasetFilters(policies=("parent",)))
    assert (of_parent.counts["pairs"], of_parent.dropped) == (1, {"other_policy": 3})
    assert freeze.freeze(db, "childs", DatasetFilters(policies=("child",))).counts["pairs"] == 2


def test_a_dataset_takes_what_was_judged_in_its_batches_alone(db: Database) -> None:
    for name in ("one", "two"):
        make_matchup(db, batch=ensure_batch(db, Batch(name=name)))
    make_matchup(db)
    judge_by(db, longer)
    of_one = freeze.freeze(db, "ones", DatasetFilters(batches=("one",)))
    assert (of_one.counts["pairs"], of_one.dropped) == (1, {"other_batch": 2})
    assert freeze.freeze(db, "both", DatasetFilters(batches=("one", "two"))).counts["pairs"] == 2
    with pytest.raises(NotFound, match="nope"):
        freeze.freeze(db, "none", DatasetFilters(batches=("nope",)))


def test_filters_choose_by_source_annotator_and_policy_and_say_what_they_left_out(db: Database) -> None:
    one, other = make_policy(db, "one"), make_policy(db, "other")
    make_matchup(db, policy=one)
    judge_by(db, longer, annotator="ann")
    make_matchup(db, policy=other)
    judge_by(db, longer, annotator="oracle:longer", source=Source.simulated)
    human = freeze.freeze(db, "human", DatasetFilters(sources=(Source.human,)))
    assert (human.counts["pairs"], human.dropped) == (1, {"source_simulated": 1})
    ann = freeze.freeze(db, "ann", DatasetFilters(annotators=("ann",)))
    assert (ann.counts["pairs"], ann.dropped) == (1, {"other_annotator": 1})
    first = freeze.freeze(db, "first", DatasetFilters(policies=("one",)))
    assert (first.counts["pairs"], first.dropped) == (1, {"other_policy": 1})
    later = freeze.freeze(db, "later", DatasetFilters(since=datetime(2999, 1, 1)))  # no zone: local time
    assert later.dropped == {"before_since": 2}
    with pytest.raises(NotFound, match="nobody"):
        freeze.freeze(db, "x", DatasetFilters(policies=("nobody",)))
    known = "There is no judgment by 'nobody'. Known: ann, oracle:longer. Leave the annotator out"
    with pytest.raises(NotFound, match=known):
        freeze.freeze(db, "x", DatasetFilters(annotators=("ann", "nobody")))
    assert "x" not in [row.name for row in store.list_datasets(db)]


def test_an_annotator_who_took_everything_back_is_known_all_the_same(db: Database) -> None:
    make_matchup(db)
    judge_by(db, longer)
    assert judging.undo_last(db, "ann")
    assert freeze.freeze(db, "d", DatasetFilters(annotators=("ann",))).counts["judgments"] == 0


def test_the_same_two_texts_judged_twice_make_one_pair(db: Database) -> None:
    prompt, policy = make_prompt(db), make_policy(db)
    for _ in range(2):
        make_matchup(db, prompt=prompt, policy=policy, texts=["same short", "same but longer"])
    judge_by(db, longer)
    dataset = freeze.freeze(db, "d")
    assert dataset.counts["pairs"] == 1 and dataset.dropped == {"duplicate": 1}


def test_a_dataset_name_is_taken_once(db: Database) -> None:
    freeze.freeze(db, "d")
    with pytest.raises(Conflict, match="already a dataset 'd'"):
        freeze.freeze(db, "d")
    with pytest.raises(InvalidInput, match="cannot name a dataset"):
        freeze.freeze(db, "../escape")
