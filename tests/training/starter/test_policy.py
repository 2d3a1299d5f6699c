"""The shipped policy loads without our code, speaks its template, and stops by itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from training.bundled import PROMPTS_DIR, STARTER_DIR
from training.starter.axes import mentions
from training.starter.corpus import examples, requests
from training.starter.families import FAMILIES
from training.starter.measure import sample


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(STARTER_DIR, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(STARTER_DIR, local_files_only=True, dtype=torch.float32).eval()


def test_the_directory_is_small_and_holds_what_plain_transformers_needs() -> None:
    names = {path.name for path in STARTER_DIR.iterdir()}
    assert names >= {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "README.md",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in STARTER_DIR.iterdir()) <= 16_000_000


def test_the_model_is_a_small_llama(model: LlamaForCausalLM) -> None:
    assert isinstance(model, LlamaForCausalLM)
    assert 3e6 <= model.num_parameters() <= 8e6
    assert model.config.tie_word_embeddings
    assert model.config.max_position_embeddings == 512


def test_padding_is_not_the_end_and_only_the_end_may_be_sampled(model: LlamaForCausalLM, tokenizer: Any) -> None:
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    settings = model.generation_config
    assert settings.do_sample and settings.temperature == 1.0
    assert settings.eos_token_id == tokenizer.eos_token_id
    assert settings.pad_token_id == tokenizer.pad_token_id
    special = set(tokenizer.all_special_ids)
    assert set(settings.suppress_tokens) == special - {tokenizer.eos_token_id}


def test_the_chat_template_round_trips_a_conversation(tokenizer: Any) -> None:
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good day!"},
        {"role": "user", "content": "Tell me a story."},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|system|>Be kind.<|end|><|user|>Hello.<|end|><|assistant|>Good day!<|end|>"
        "<|user|>Tell me a story.<|end|><|assistant|>"
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_the_template_marks_what_the_assistant_said(tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Good day!"}]
    encoded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mine in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mine]
    assert tokenizer.decode(marked) == "Good day!<|end|>"


def test_an_unknown_role_is_refused_by_name(tokenizer: Any) -> None:
    with pytest.raises(Exception, match="Unknown role tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_any_text_survives_the_tokenizer(tokenizer: Any) -> None:
    for text in ("Grüße, 東京! 🦊", "a  b\n\tc", 'She said: "no".'):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_replies_fit_into_88_tokens(tokenizer: Any) -> None:
    sizes = [len(tokenizer(one.reply)["input_ids"]) + 1 for one in examples(31, 1400)]
    assert sum(size > 88 for size in sizes) <= len(sizes) // 200


def test_sampled_replies_end_differ_and_keep_to_the_subject(model: LlamaForCausalLM, tokenizer: Any) -> None:
    drafts = list(requests(5, 32, evaluation=True))
    samples = sample(model, tokenizer, drafts * 2, seed=3, batch=64)
    assert sum(s.ended for s in samples) >= 62
    pairs = list(zip(samples[:32], samples[32:], strict=True))
    assert sum(a.reply != b.reply for a, b in pairs) >= 31
    assert sum(mentions(s.draft.prompt, s.reply) > 0 for s in samples) >= 52
    assert not any("<|" in s.reply for s in samples)


def _prompts(split: str) -> list[dict[str, Any]]:
    lines = Path(PROMPTS_DIR / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("split", "least"), [("work", 300), ("evaluation", 150)])
def test_prompt_files_hold_distinct_balanced_prompts(split: str, least: int) -> None:
    rows = _prompts(split)
    texts = [row["messages"][-1]["content"] for row in rows]
    assert len(set(texts)) == len(texts) >= least
    assert {row["split"] for row in rows} == {split}
    tags = [row["tags"][1] for row in rows]
    counts = [tags.count(family) for family in FAMILIES]
    assert min(counts) == max(counts) == len(rows) // len(FAMILIES)


def test_prompt_files_are_disjoint_and_what_the_card_was_measured_on() -> None:
    work, evaluation = ([row["messages"][-1]["content"] for row in _prompts(split)] for split in ("work", "evaluation"))
    assert not set(work) & set(evaluation)
    assert evaluation == [draft.prompt for draft in requests(5, 210, evaluation=True)]


def test_the_card_reports_measured_figures_within_their_aims() -> None:
    figures = json.loads((STARTER_DIR / "measurements.json").read_text(encoding="utf-8"))
    assert figures["ended"] >= 0.98
    assert figures["differ"] >= 0.95
    assert figures["verbatim"] < 0.5
    assert len(figures["axes"]) >= 6
    for name, row in figures["axes"].items():
        assert 0.2 <= row["rate"] <= 0.8, name
        assert row["tie"] < 0.3, name
    card = (STARTER_DIR / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in figures["axes"])
