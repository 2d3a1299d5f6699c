"""The build's parts: batches, loss and the schedule, on a stand-in a few tokens wide."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.starter.build import Recipe, _refuse_other_recipe, llama, rate_at, write_prompts
from training.starter.corpus import examples
from training.starter.loss import IGNORED, Encoded, batches, encode, reply_loss
from training.starter.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def small():  # type: ignore[no-untyped-def]
    corpus = list(examples(8, 120))
    tokenizer = train_tokenizer(text for e in corpus for text in (e.prompt, e.reply))
    return corpus, tokenizer, encode(corpus, tokenizer)


def test_one_pass_yields_each_example_once_within_the_budget(small) -> None:  # type: ignore[no-untyped-def]
    _, _, data = small
    rows = 0
    for tokens, labels, _ in batches(data, 1024, seed=1):
        assert tokens.numel() <= 1024 and tokens.shape == labels.shape
        rows += len(tokens)
    assert rows == len(data)


def test_labels_are_the_reply_and_its_end_shifted_by_one(small) -> None:  # type: ignore[no-untyped-def]
    corpus, tokenizer, data = small
    one = Encoded(data.tokens[: data.starts[1]], data.starts[:2], data.replies[:1], data.rare)
    tokens, labels, copied = next(batches(one, 1024, seed=1))
    said = labels[0][labels[0] != IGNORED]
    assert tokenizer.decode(said) == corpus[0].reply + "<|end|>"
    where = int((labels[0] != IGNORED).nonzero()[0])
    assert tokens[0, where] == tokenizer.convert_tokens_to_ids("<|assistant|>")
    assert set(labels[copied].tolist()) <= set(tokens[0, :where].tolist())


def test_a_copy_weight_of_one_is_plain_cross_entropy(small) -> None:  # type: ignore[no-untyped-def]
    _, tokenizer, data = small
    model = llama(Recipe(hidden=16, layers=1, heads=2, feed_forward=16), tokenizer)
    batch = next(batches(data, 1024, seed=1))
    with torch.no_grad():
        ours = reply_loss(model, batch)
        full = model(input_ids=batch[0]).logits
        plain = torch.nn.functional.cross_entropy(full.flatten(0, 1), batch[1].flatten(), ignore_index=IGNORED)
        assert torch.allclose(ours, plain, atol=1e-4)
        assert reply_loss(model, batch, 3.0) > ours


def test_the_rate_warms_up_peaks_and_falls_to_a_twentieth() -> None:
    rates = np.array([rate_at(step, 1000, 1.0) for step in range(1000)])
    assert rates[0] == pytest.approx(0.05)
    assert rates.argmax() in (19, 20) and rates.max() == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.05, abs=1e-3)


def test_a_state_of_another_recipe_is_refused_but_a_longer_run_is_not(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    _refuse_other_recipe(path, Recipe())
    _refuse_other_recipe(path, Recipe(passes=9))
    with pytest.raises(SystemExit, match="another --work"):
        _refuse_other_recipe(path, Recipe(hidden=64))


def test_prompt_files_are_written_the_same_each_time(tmp_path: Path) -> None:
    write_prompts(tmp_path / "a", work=21, evaluation=14)
    write_prompts(tmp_path / "b", work=21, evaluation=14)
    for name in ("work.jsonl", "evaluation.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
