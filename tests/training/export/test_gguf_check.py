"""A GGUF file that is wrong in one way is told by what reads it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.errors import CheckpointError
from tests.training.export.conftest import tokenizer_split_as
from tests.training.families import save_model
from training.export import gguf_file, gguf_vocabulary
from training.export.gguf_check import FLOORS, check_gguf_model, check_gguf_tokenizer, readable_config
from training.export.gguf_file import Labels, write_gguf
from training.export.gguf_vocabulary import read_vocabulary
from training.export.parity import greedy_replies, load_plain
from training.models.loading import LoadedPolicy, load_base

ASKED = [[{"role": "user", "content": text}] for text in ("Explain rain.", "Write 12 notes.", "Read a book.")]


@pytest.fixture
def policy(smol_like: Path) -> LoadedPolicy:
    return LoadedPolicy(*load_base(str(smol_like), "cpu"), str(smol_like))


def write(policy: LoadedPolicy, path: Path, quantization: str = "f16", **changed: Any) -> Path:
    import dataclasses

    tokenizer = policy.tokenizer
    rows = policy.model.config.vocab_size
    vocabulary = read_vocabulary(tokenizer, rows, end=tokenizer.eos_token_id, begins_with_bos=False)
    write_gguf(path, policy.model, dataclasses.replace(vocabulary, **changed), quantization, Labels("tiny", "base"))
    return path


def check(policy: LoadedPolicy, path: Path) -> tuple[int, int]:
    return check_gguf_model(path, policy.model.config, greedy_replies(policy, ASKED), "f16", banned=[])


def test_a_right_file_passes(policy: LoadedPolicy, tmp_path: Path) -> None:
    path = write(policy, tmp_path / "model.gguf")
    same, total = check(policy, path)
    assert same >= FLOORS["f16"] * total and total > 20
    assert check_gguf_tokenizer(path, policy.tokenizer, greedy_replies(policy, ASKED)) == 4
    config = readable_config(path, policy.model.config)
    assert config.rms_norm_eps == pytest.approx(policy.model.config.rms_norm_eps)
    assert config.num_key_value_heads == policy.model.config.num_key_value_heads


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_q8_0_file_is_the_model_with_its_matrices_rounded(tmp_path: Path, family: str) -> None:
    import torch
    from gguf import GGMLQuantizationType, dequantize, quantize

    base = save_model(tmp_path / "base", tokenizer_split_as("qwen2"), family)
    policy = LoadedPolicy(*load_base(str(base), "cpu"), str(base))
    path, model = write(policy, tmp_path / "model.gguf", "q8_0"), policy.model
    loaded = load_plain(tmp_path, gguf_file=path.name, config=readable_config(path, model.config))
    ids, kind = torch.arange(20, 84)[None], GGMLQuantizationType.Q8_0
    with torch.no_grad():
        exact = model(ids).logits
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.from_numpy(dequantize(quantize(weight.numpy(), kind), kind)))
        rounded = model(ids).logits
        torch.testing.assert_close(loaded(ids).logits, rounded, atol=1e-5, rtol=1e-5)
    assert (exact - rounded).abs().max() > 1e-3


def test_rows_in_the_wrong_order_are_seen(
    policy: LoadedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "interleave", lambda weight, heads: weight)
    with pytest.raises(CheckpointError, match=r"another token than the policy at \d+ of \d+ places; 99 % must be"):
        check(policy, write(policy, tmp_path / "model.gguf"))


def test_a_wrong_entry_is_seen(policy: LoadedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "_rope", lambda config: {"rope_theta": 10.0})
    with pytest.raises(CheckpointError, match="Nothing was exported"):
        check(policy, write(policy, tmp_path / "model.gguf"))


@pytest.mark.parametrize("what", ["pre_tokenizer", "merges", "types"])
def test_a_wrong_vocabulary_is_seen(policy: LoadedPolicy, tmp_path: Path, what: str) -> None:
    right = read_vocabulary(policy.tokenizer, policy.model.config.vocab_size, end=1, begins_with_bos=False)
    wrong = {"pre_tokenizer": "gpt-2", "merges": right.merges[:9], "types": [gguf_vocabulary.NORMAL] * len(right.types)}
    path = write(policy, tmp_path / "model.gguf", **{what: wrong[what]})
    with pytest.raises(CheckpointError, match="tokenizer encodes .* otherwise than the model's own"):
        check_gguf_tokenizer(path, policy.tokenizer, greedy_replies(policy, ASKED))


def test_merges_of_tokens_that_are_not_there_are_seen(policy: LoadedPolicy, tmp_path: Path) -> None:
    path = write(policy, tmp_path / "model.gguf", merges=["Q ZZ"])
    with pytest.raises(CheckpointError, match="cannot be put together again"):
        check_gguf_tokenizer(path, policy.tokenizer, [])
