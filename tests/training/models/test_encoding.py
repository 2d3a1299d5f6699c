"""Examples become token rows: what is left out and what was cut is counted and said, and the first rows are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.datasets.examples import list_demonstrations, list_labelled_replies, list_rankings
from feedback.datasets.freeze import freeze
from feedback.errors import RunFailed
from feedback.store.content.prompts import save_prompts
from feedback.store.datasets.datasets import list_pairs
from feedback.store.models.policies import promote_policy, save_policy
from feedback.types import DatasetFilters, Message, Policy, PreferencePair, Prompt, Role
from tests.factories import get_prompt, judge_by, make_matchup, make_prompt
from tests.training.conftest import make_pair
from tests.training.families import FAMILIES, ZEPHYR, save_model, tokenizer_of
from tests.training.models.test_chat_families import METASPACE
from training.data import encoding
from training.data.encoding import Encoder
from training.data.pairs import encode_pairs
from training.evaluation.reward_accuracy import pair_accuracy
from training.methods import METHODS
from training.methods.sft import IGNORED, encode_examples
from training.models.chat import encode_prompt
from training.models.loading import LoadedReward, load_base, load_scorer
from training.reporting.reporter import LocalProgress

ASKED_BEFORE = Message(role=Role.user, content="Listen.")  # Gemma's template refuses two messages of the user in a row


def asked_twice(pair: PreferencePair) -> PreferencePair:
    return pair.model_copy(update={"messages": (ASKED_BEFORE, *pair.messages)})


def test_what_cannot_be_trained_on_is_left_out_counted_and_named() -> None:
    tokenizer, progress = tokenizer_of(FAMILIES["gemma"]), LocalProgress()
    pairs = [make_pair(0), asked_twice(make_pair(1)), make_pair(2, chosen="very " * 60), make_pair(3)]
    encoder = Encoder(tokenizer, 60)
    rows = encode_pairs(encoder, pairs)
    encoder.report(progress, "pairs", len(pairs))
    assert len(rows) == 2
    assert encoder.counts == {"too_long": 1, "refused": 1}
    assert "1 of 4 pairs are longer than 60 tokens" in "\n".join(progress.lines)
    assert "1 of 4 pairs cannot be given to this model and are left out: This model's chat template refuses a" in (
        "\n".join(progress.lines)
    )


def test_a_cut_side_has_no_end_and_is_counted() -> None:
    tokenizer, progress = tokenizer_of(FAMILIES["qwen2_5"]), LocalProgress()
    pair = make_pair(0).model_copy(update={"chosen_cut": True})
    encoder = Encoder(tokenizer, 200)
    (row,) = encode_pairs(encoder, [pair])
    encoder.report(progress, "pairs", 1)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end not in row["chosen_ids"]
    assert row["rejected_ids"][-1] == end
    assert encoder.counts == {"too_long": 0, "cut": 1}
    assert "1 of 1 pairs hold a reply that was cut at its length limit" in "\n".join(progress.lines)


def test_a_run_refuses_tokens_that_are_not_the_templates() -> None:
    tokenizer = tokenizer_of(METASPACE, ZEPHYR)
    encoder = Encoder(tokenizer, 200)
    encode_pairs(encoder, [make_pair(0, chosen="Read a book.")])
    encoder.report(LocalProgress(), "pairs", 1)
    first = encoder._first[0]
    # As replies were once encoded: by themselves, with SentencePiece's leading space
    apart = [*tokenizer("Read a book.", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    encoder._first[0] = replace(first, exchange=replace(first.exchange, reply=apart))
    with pytest.raises(RunFailed, match=r"are not those of the model's chat template: token \d+ .* is '▁Read'"):
        encoder.report(LocalProgress(), "pairs", 1)


def test_a_prompt_that_is_not_the_templates_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, progress = tokenizer_of(FAMILIES["gemma"]), LocalProgress()
    prompts = [[{"role": "user", "content": "Hello."}]]
    encoding.check_prompts(tokenizer, prompts, progress)
    assert "a reply ends with '<end_of_turn>'" in progress.lines[-1]
    monkeypatch.setattr(encoding, "encode_prompt", lambda *given: [*encode_prompt(*given), 5])
    with pytest.raises(RunFailed, match="Nothing was trained"):
        encoding.check_prompts(tokenizer, prompts, progress)


@pytest.fixture
def cut_dataset(db: Database, tiny_policy: Any) -> str:
    """A dataset whose winners were cut, all but two."""
    for number in range(12):
        texts = [f"no {number}", f"yes yes yes {number}"]
        make_matchup(
            db,
            policy=tiny_policy,
            prompt=make_prompt(db, f"Say {number}."),
            texts=texts,
            cut=[False, number > 1],
        )
    judge_by(db, lambda left, right: len(left.split()) - len(right.split()))
    freeze(db, "cut", DatasetFilters(test_share=0.0))
    return "cut"


def test_a_dataset_knows_which_replies_were_cut(db: Database, cut_dataset: str) -> None:
    pairs = list_pairs(db, cut_dataset)
    assert sum(pair.chosen_cut for pair in pairs) == 10
    assert not any(pair.rejected_cut for pair in pairs)
    assert sum(one.cut for one in list_demonstrations(db, cut_dataset)) == 10
    assert sum(one.cut for one in list_labelled_replies(db, cut_dataset)) == 10
    assert sum(any(one.cut) for one in list_rankings(db, cut_dataset)) == 10


def test_cut_replies_change_no_hash_and_are_in_the_drop_report(db: Database, cut_dataset: str) -> None:
    from feedback.datasets.freeze import dataset_hash, preview
    from feedback.store.datasets.datasets import get_dataset

    filters = DatasetFilters(test_share=0.0)
    derivation = preview(db, filters)
    assert derivation.dropped["cut_reply"] == 10
    assert derivation.counts()["pairs"] == 12
    plain = [pair.model_copy(update={"chosen_cut": False}) for pair in derivation.pairs]
    assert dataset_hash(filters, replace(derivation, pairs=plain)) == get_dataset(db, cut_dataset).hash


def test_a_text_that_once_ended_by_itself_is_not_cut(db: Database, tiny_policy: Any) -> None:
    prompt = make_prompt(db, "Say it.")
    make_matchup(db, policy=tiny_policy, prompt=prompt, texts=["yes yes", "no"], cut=[True, False])
    make_matchup(db, policy=tiny_policy, prompt=prompt, texts=["yes yes", "well"], cut=[False, False])
    judge_by(db, lambda left, right: len(left.split()) - len(right.split()))
    freeze(db, "twice", DatasetFilters(test_share=0.0))
    assert [(one.reply, one.cut) for one in list_demonstrations(db, "twice")] == [("yes yes", False)]


@pytest.mark.slow_except("kto")
@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "reward"])
def test_each_method_says_how_many_replies_were_cut(make_context: Any, cut_dataset: str, method: str) -> None:
    context = make_context(method, {"dataset": cut_dataset, "min_steps": 1, "epochs": 1, "batch_size": 4})
    result = METHODS[method].run(context)
    assert result["cut"] == 10
    assert any("of 12" in line or "of 24" in line for line in context.progress.lines if "cut at its length" in line)


def test_a_cut_demonstration_teaches_no_end(tiny_base: Path, db: Database, cut_dataset: str) -> None:
    _, tokenizer = load_base(str(tiny_base), "cpu")
    examples = list_demonstrations(db, cut_dataset)
    rows = encode_examples(Encoder(tokenizer, 200), examples)
    ends = [row["labels"][-1] == tokenizer.eos_token_id for row in rows]
    assert ends == [not example.cut for example in examples]
    assert all(row["labels"][0] == IGNORED for row in rows)


def test_a_prompt_the_template_refuses_is_counted_and_the_others_are_replied_to(
    make_context: Any, db: Database, tmp_path: Path
) -> None:
    base = save_model(tmp_path / "gemma", tokenizer_of(FAMILIES["gemma"]))
    save_policy(db, Policy(name="gem", base=str(base)))
    promote_policy(db, "gem")
    refused = save_prompts(
        db, [Prompt(messages=[ASKED_BEFORE.model_dump(mode="json"), {"role": "user", "content": "Say 0."}])]
    ).ids[0]
    kept = [make_prompt(db, f"Say {number}.").id for number in (1, 2)]
    context = make_context("generate", {"policy": "gem", "per_prompt": 2, "max_new_tokens": 4})
    result = METHODS["generate"].run(context)
    assert result["refused_reasons"] == {"template": 1}
    assert result["generations"] == 2 * len(kept)
    assert any(refused in line and "roles must alternate" in line for line in context.progress.lines)
    assert get_prompt(db, refused).id == refused


def test_test_pairs_the_template_refuses_are_not_scored(tmp_path: Path) -> None:
    base = save_model(tmp_path / "gemma", tokenizer_of(FAMILIES["gemma"]))
    model, tokenizer = load_scorer(str(base), "cpu")
    reward = LoadedReward(model, tokenizer, str(base))
    figures = pair_accuracy(reward, [make_pair(0), make_pair(1), asked_twice(make_pair(2))])
    assert figures["test_pairs"] == 2


def test_generation_and_training_read_a_system_message_alike_where_there_is_no_such_role(tmp_path: Path) -> None:
    tokenizer, progress = tokenizer_of(FAMILIES["gemma"]), LocalProgress()
    pair = make_pair(0).model_copy(
        update={"messages": (Message(role=Role.system, content="Be brief."), *make_pair(0).messages)}
    )
    encoder = Encoder(tokenizer, 200)
    (row,) = encode_pairs(encoder, [pair])
    encoder.report(progress, "pairs", 1)
    asked = encoding.as_dicts(pair.messages)
    encoding.check_prompts(tokenizer, [asked], progress)
    assert row["prompt_ids"] == encode_prompt(tokenizer, asked)
    assert "user\nBe brief.\n\nSay 0.<end_of_turn>" in tokenizer.decode(row["prompt_ids"])


def test_sampling_stops_where_the_template_ends_a_turn(tmp_path: Path) -> None:
    from training.generation.sampling import end_tokens
    from training.models.loading import LoadedPolicy

    base = save_model(tmp_path / "gemma", tokenizer_of(FAMILIES["gemma"]))
    model, tokenizer = load_base(str(base), "cpu")
    ends = end_tokens(LoadedPolicy(model, tokenizer, str(base)))
    assert ends == [tokenizer.convert_tokens_to_ids(name) for name in ("<end_of_turn>", "<eos>")]
