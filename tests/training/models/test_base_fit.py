"""A base that does not fit its use is refused where it is loaded: noise is never served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import InvalidInput, NotFound
from feedback.types import SamplingSettings
from tests.training.tiny_models import byte_tokenizer, change_json, change_weights, model_at
from training.checkpoints.base_check import examine_base
from training.generation.sampling import sample
from training.models.loading import LoadedPolicy, load_base, load_scorer

Load = Callable[..., Any]
LOADS = (load_base, load_scorer, examine_base)


def load(how: Load, base: Path) -> Any:
    return how(str(base)) if how is examine_base else how(str(base), "cpu")


@pytest.mark.parametrize("how", LOADS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "opt", "mixtral", "gemma2"])
@pytest.mark.parametrize("tied", [True, False])
def test_whole_models_of_every_family_load(how: Load, family: str, tied: bool, tmp_path: Path) -> None:
    rows = {"vocab_size": 300}
    assert load(how, model_at(tmp_path / family, family, tie_word_embeddings=tied, **rows))


@pytest.mark.parametrize("how", LOADS)
def test_missing_weights_are_refused_by_name_and_number(how: Load, tmp_path: Path) -> None:
    base = model_at(tmp_path / "gaps")

    def drop(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if ".mlp." in name]:
            del tensors[name]

    change_weights(base, drop)
    with pytest.raises(InvalidInput, match=r"lack model\.layers\.0\.mlp\.down_proj\.weight and 5 more, 6 of the \d+"):
        load(how, base)


@pytest.mark.parametrize("how", (load_base, examine_base))
def test_a_missing_head_is_refused_unless_it_is_tied(how: Load, tmp_path: Path) -> None:
    base = model_at(tmp_path / "headless", tie_word_embeddings=False)
    change_weights(base, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(InvalidInput, match=r"lack lm_head\.weight"):
        load(how, base)
    change_json(base / "config.json", tie_word_embeddings=True)
    assert load(how, base)


@pytest.mark.parametrize("how", LOADS)
@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight"])
def test_weights_without_a_place_are_refused(how: Load, name: str, tmp_path: Path) -> None:
    import torch

    base = model_at(tmp_path / "surplus")
    change_weights(base, lambda tensors: tensors.update({name: torch.zeros(16)}))
    with pytest.raises(InvalidInput, match=rf"no place for {name}"):
        load(how, base)


@pytest.mark.parametrize("how", LOADS)
def test_old_buffers_and_further_heads_are_no_fault(how: Load, tmp_path: Path) -> None:
    import torch

    base = model_at(tmp_path / "old", "gpt2", vocab_size=300)
    names = ("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias", "v_head.summary.weight")
    change_weights(base, lambda tensors: tensors.update({name: torch.zeros(2) for name in names}))
    assert load(how, base)


@pytest.mark.parametrize("how", LOADS)
def test_encoders_and_encoder_decoders_are_refused(how: Load, tmp_path: Path) -> None:
    from transformers import BertForMaskedLM, BertLMHeadModel, T5ForConditionalGeneration

    for kind, family, says in (
        (BertForMaskedLM, "bert", r"encoder \(bert\)"),
        (BertLMHeadModel, "bert", r"encoder \(bert\)"),
        (T5ForConditionalGeneration, "t5", r"encoder-decoder \(t5\)"),
    ):
        base = model_at(tmp_path / f"{kind.__name__}", family, kind=kind)
        with pytest.raises(InvalidInput, match=says):
            load(how, base)


@pytest.mark.parametrize("how", LOADS)
def test_a_model_saved_with_another_head_is_refused(how: Load, tmp_path: Path) -> None:
    from transformers import LlamaForSequenceClassification, LlamaModel

    for kind in (LlamaModel, LlamaForSequenceClassification):
        base = model_at(tmp_path / kind.__name__, kind=kind, tie_word_embeddings=True)
        with pytest.raises(InvalidInput, match=rf"saved as {kind.__name__}, which has no language-model head"):
            load(how, base)


@pytest.mark.parametrize("how", LOADS)
def test_a_file_that_was_cut_off_is_named(how: Load, tmp_path: Path) -> None:
    base = model_at(tmp_path / "torn")
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(NotFound, match=r"model\.safetensors is damaged or was cut off"):
        load(how, base)


@pytest.mark.parametrize("how", LOADS)
def test_weights_of_another_size_are_a_sentence(how: Load, tmp_path: Path) -> None:
    base = model_at(tmp_path / "sizes")
    change_json(base / "config.json", intermediate_size=48)
    with pytest.raises(NotFound, match="cannot be loaded"):
        load(how, base)


def test_a_model_without_a_scoring_head_says_so(tmp_path: Path) -> None:
    base = model_at(tmp_path / "granite", "granite")
    assert load(load_base, base)
    with pytest.raises(InvalidInput, match="no scoring head for a granite"):
        load(load_scorer, base)


def beyond(tmp_path: Path, **named: Any) -> Path:
    """A model of 261 rows whose tokenizer has a 262nd token, of this name and kind."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(named)
    return model_at(tmp_path / "beyond", tokenizer=tokenizer)


@pytest.mark.parametrize("how", LOADS)
def test_a_pad_token_beyond_the_embedding_becomes_the_end_token(how: Load, tmp_path: Path) -> None:
    base = beyond(tmp_path, pad_token="[PAD]")
    loaded = load(how, base)
    if how is examine_base:
        return
    model, tokenizer = loaded
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    if how is load_base:
        policy = LoadedPolicy(model, tokenizer, str(base))
        prompts = [[{"role": "user", "content": text}] for text in ("Hi", "A longer prompt")]
        replies = sample(policy, prompts, 2, SamplingSettings(max_new_tokens=4))
        assert [len(row) for row in replies] == [2, 2]


@pytest.mark.parametrize("how", LOADS)
def test_a_pad_token_of_the_configuration_beyond_the_embedding_is_let_go(how: Load, tmp_path: Path) -> None:
    base = beyond(tmp_path, pad_token="[PAD]")
    change_json(base / "config.json", pad_token_id=261)
    assert load(how, base)


@pytest.mark.parametrize("how", LOADS)
@pytest.mark.parametrize("named", [{"bos_token": "[BOS]"}, {"eos_token": "[EOS]"}])
def test_a_named_token_beyond_the_embedding_is_refused_with_both_numbers(
    how: Load, named: dict[str, str], tmp_path: Path
) -> None:
    base = beyond(tmp_path, **named)
    with pytest.raises(InvalidInput, match=r"has the number 261, and the embedding has 261 rows"):
        load(how, base)


@pytest.mark.parametrize("how", LOADS)
def test_plain_and_template_tokens_beyond_the_embedding_are_refused(how: Load, tmp_path: Path) -> None:
    plain = byte_tokenizer()
    plain.add_tokens(["hello"])
    with pytest.raises(InvalidInput, match=r"'hello' has the number 261, and the embedding has 261 rows"):
        load(how, model_at(tmp_path / "plain", tokenizer=plain))
    turns = byte_tokenizer("{% for message in messages %}<|turn|>{{ message['content'] }}<|end|>{% endfor %}")
    turns.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    with pytest.raises(InvalidInput, match=r"the template's '<\|turn\|>' has the number 261"):
        load(how, model_at(tmp_path / "turns", tokenizer=turns))


@pytest.mark.parametrize("how", LOADS)
def test_a_special_token_that_nothing_writes_is_no_fault(how: Load, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    assert load(how, model_at(tmp_path / "image", tokenizer=tokenizer))
