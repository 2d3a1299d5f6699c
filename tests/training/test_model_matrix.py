"""Models of many families through the whole studio: each stage works, or refuses with a reason before it starts.

Tiny random models with the starter's vocabulary, each with a chat template, with one that has no system role, and
without any. One test takes a model through all stages: checked, added, replies drawn, a reward model, DPO, PPO under
that reward model, the merged export, and the export loaded again by plain transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.datasets.freeze import freeze
from feedback.errors import InvalidInput
from feedback.store.content.prompts import save_prompts
from feedback.store.models.checkpoints import list_checkpoints
from feedback.store.models.policies import promote_policy
from feedback.store.models.runs import save_run
from feedback.tables import PolicyRow, PromptRow
from feedback.types import DatasetFilters, Prompt, Run
from tests.factories import get_prompt, judge_by, make_matchup
from tests.training.tiny_models import change_json
from training.bundled import STARTER_DIR
from training.checkpoints.opening import open_policy
from training.checkpoints.registration import add_policy
from training.conversion.prepare import prepare_base
from training.export.exporting import Form, Request, export_policy
from training.generation.sampling import end_tokens
from training.home import Home
from training.methods import METHODS
from training.model_check.check import check_model
from training.models.chat import prompt_text
from training.reporting.reporter import LocalProgress, RunContext
from training.settings.parsing import parse_settings

pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "qwen2": SIZES,
    "qwen3": {**SIZES, "head_dim": 8},
    "gemma2": {**SIZES, "head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "gemma3_text": {**SIZES, "head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "mistral": {**SIZES, "sliding_window": 16},
    "phi3": SIZES,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2},
    "opt": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2},
    "falcon": {**SIZES, "num_kv_heads": 1, "new_decoder_architecture": False, "alibi": False},
    "granite": {
        **SIZES,
        "logits_scaling": 4.0,
        "embedding_multiplier": 6.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.25,
    },
    "bamba": {**SIZES, **MAMBA, "attn_layer_indices": [1]},
    "falcon_h1": {**SIZES, **MAMBA, "mamba_d_ssm": 64, "head_dim": 8, "lm_head_multiplier": 0.5},
}

NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


# Transformers has no class with a scalar head for these
WITHOUT_SCORES = {"granite", "bamba", "falcon_h1"}
QUICK = {"epochs": 1, "min_steps": 2, "batch_size": 4, "lora_rank": 2, "allow_few": True}
DRAWN = {"iterations": 2, "episodes": 4, "batch_size": 4, "max_new_tokens": 6, "epochs": 1, "lora_rank": 2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_MODELS", str(tmp_path / "models"))


def build(family: str, directory: Path, template: str) -> Path:
    """A tiny random model with the starter's tokenizer; without a system role, the end token pads too, and two end."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(STARTER_DIR)
    if template != "template":
        tokenizer.chat_template = NO_SYSTEM if template == "no system role" else None
    if template == "no system role":
        tokenizer.pad_token = tokenizer.eos_token
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **FAMILIES[family], **ends)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    if template == "no system role":
        change_json(directory / "generation_config.json", eos_token_id=[tokenizer.eos_token_id, 40])
    return directory


def run(db: Database, home: Home, method: str, **config: Any) -> dict[str, Any]:
    """A run in this process."""
    row = save_run(db, Run(method=method, config=config))
    settings = parse_settings(method, config)
    return METHODS[method].run(RunContext(run=row, settings=settings, db=db, home=home, progress=LocalProgress()))


def ask(db: Database, text: str) -> PromptRow:
    """A prompt with a system message."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return get_prompt(db, save_prompts(db, [Prompt(messages=messages)]).ids[0])


def vote(db: Database, policy: PolicyRow) -> str:
    """The name of a small frozen dataset in which more words won."""
    for number in range(8):
        texts = [f"no {number}", f"yes yes yes {number}"]
        make_matchup(db, policy=policy, prompt=ask(db, f"Say {number}."), texts=texts)
    judge_by(db, lambda left, right: len(left.split()) - len(right.split()))
    freeze(db, "taste", DatasetFilters(test_share=0.25))
    return "taste"


@pytest.mark.parametrize("template", ["template", "no template", "no system role"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_goes_through_every_stage(family: str, template: str, db: Database, home: Home, tmp_path: Path) -> None:
    base = str(build(family, tmp_path / family, template))
    if template == "no template":
        with pytest.raises(InvalidInput, match="no chat template.*plain, alpaca"):
            add_policy(db, base)
        base = prepare_base(base, "plain")
    outlook = {one.method: one for one in check_model(base, device="cpu").methods}
    unfit = [name for name, one in outlook.items() if not one.works]
    assert unfit == (["reward"] if family in WITHOUT_SCORES else []), outlook
    policy = promote_policy(db, add_policy(db, base).id)
    ask(db, "Say something.")
    assert run(db, home, "generate", per_prompt=2, limit=1, max_new_tokens=6)["refused"] == 0
    dataset, scored = vote(db, policy), {"reward": "judge"}
    if outlook["reward"].works:
        run(db, home, "reward", dataset=dataset, name="judge", **QUICK)
    else:
        with pytest.raises(InvalidInput, match=f"no scoring head for a {family}"):
            run(db, home, "reward", dataset=dataset, name="judge", **QUICK)
        assert list_checkpoints(db) == []
        scored = {"reward_function": "no_repetition"}
    run(db, home, "dpo", dataset=dataset, name="better", **QUICK)
    run(db, home, "ppo", **scored, name="best", **DRAWN)
    for name in ("better", "best"):
        merged = tmp_path / "merged" / name
        export_policy(db, home, name, Request(Form.merged, str(merged), prompts=1))
        compare_with_plain(db, home, name, merged)


def compare_with_plain(db: Database, home: Home, name: str, merged: Path) -> None:
    """An export gives plain transformers the policy's logits, template and end tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = open_policy(db, home, name, "cpu")
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    text = prompt_text(policy.tokenizer, [{"role": "user", "content": "Tell me something."}])
    assert (
        prompt_text(AutoTokenizer.from_pretrained(merged), [{"role": "user", "content": "Tell me something."}]) == text
    )
    ids = policy.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, policy.model(input_ids=ids).logits, atol=1e-3, rtol=1e-3)
    ends = plain.generation_config.eos_token_id
    assert set(ends if isinstance(ends, list) else [ends]) == set(end_tokens(policy))
