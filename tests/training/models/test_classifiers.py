"""Where a score is taken: at the last token that was read, whatever the pad token is, on every architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from feedback.errors import InvalidInput
from feedback.store.models.policies import save_policy
from feedback.types import Policy
from tests.training.checkpoints.test_checkpoints import manifest_of, random_adapter
from tests.training.shapes import FAMILIES, save_family
from training.checkpoints.loading import load_reward
from training.checkpoints.manifest import MANIFEST_FILE, read_manifest
from training.checkpoints.saving import save_checkpoint
from training.home import Home
from training.methods import METHODS
from training.models.chat import encode_exchange
from training.models.classifiers import head_of
from training.models.loading import HEAD, LoadedReward, load_base, load_scorer
from training.models.reward_heads import last_places, scalar_head
from training.models.scoring import reward_scores
from training.ppo.backbone import Backbone
from training.ppo.backbone_adapters import PeftAdapters
from training.ppo.reward_roles import read_reward
from training.ppo.setup import build_backbone
from training.settings.ppo import PpoSettings

EXCHANGES = [([{"role": "user", "content": "hi"}], "a" * n) for n in (3, 30, 1, 12)]


def by_hand(reward: LoadedReward) -> list[float]:
    """The head on the hidden state of each row's own last token, one row at a time and without padding."""
    found = []
    for messages, reply in EXCHANGES:
        ids = torch.tensor([encode_exchange(reward.tokenizer, messages, reply).ids])
        with torch.no_grad():
            states = reward.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            found.append(head_of(reward.model)(states)[0, -1, 0].item())
    return found


def test_the_last_place_comes_from_the_mask() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0]])
    assert last_places(mask).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("pooling", ["last", "sum", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_is_read_though_it_is_the_pad_token(family: str, pooling: Any, tiny_base: Path, tmp_path: Path) -> None:
    base = str(save_family(family, tiny_base, tmp_path / family))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reward = LoadedReward(*load_scorer(base, "cpu", pooling), base)
    assert reward.tokenizer.pad_token_id == reward.tokenizer.eos_token_id
    scores = reward_scores(reward, EXCHANGES)
    assert scores == pytest.approx(by_hand(reward), abs=1e-4)
    assert len({round(score, 4) for score in scores}) == len(scores)


@pytest.mark.slow_except("llama-last")
@pytest.mark.parametrize("pooling", ["last", "sum", "mean"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma", "phi3"])
def test_a_judge_on_roles_scores_as_the_checkpoint_was_measured(
    family: str, pooling: Any, make_context: Any, dataset: str, tiny_base: Path, tmp_path: Path
) -> None:
    base = str(save_family(family, tiny_base, tmp_path / family))
    context = make_context("reward", _config_of(pooling) | {"dataset": dataset, "parent": "shaped"})
    save_policy(context.db, Policy(name="shaped", base=base))
    METHODS["reward"].run(context)
    directory = context.home.checkpoints / "rm"
    saved = read_manifest(directory)
    assert saved.reads_end and (saved.heads, saved.pooling) == ([HEAD], pooling)
    reward = load_reward(directory, device="cpu")
    judged = _judge(directory, base).scores(EXCHANGES)[0].tolist()
    assert judged == pytest.approx(reward_scores(reward, EXCHANGES), abs=1e-3)


@pytest.mark.slow
def test_reward_then_ppo_on_a_base_whose_pad_is_its_end(
    make_context: Any, dataset: str, tiny_base: Path, tmp_path: Path
) -> None:
    base = str(save_family("llama", tiny_base, tmp_path / "shaped"))
    context = make_context("reward", _config_of("last") | {"dataset": dataset, "parent": "shaped"})
    save_policy(context.db, Policy(name="shaped", base=base))
    METHODS["reward"].run(context)
    drawn = {"reward": "rm", "parent": "shaped", "dataset": dataset, "max_new_tokens": 8, "name": "after"}
    context = make_context("ppo", drawn | {"iterations": 1, "episodes": 4, "batch_size": 4, "canary_every": 0})
    assert METHODS["ppo"].run(context)["iterations"] == 1


def test_a_padded_row_is_read_at_its_own_end(tiny_base: Path, tmp_path: Path) -> None:
    base = str(save_family("llama", tiny_base, tmp_path / "shaped"))
    seen: list[torch.Tensor] = []
    model, _ = load_scorer(base, "cpu", "last")
    head_of(model).register_forward_hook(lambda *call: seen.append(call[2]))
    ids, mask = torch.tensor([[5, 6, 1], [5, 1, 1]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    logits = model(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(logits, torch.stack([seen[0][0, 2], seen[0][1, 1]]))


def test_an_architecture_that_scores_in_another_way_is_refused(tiny_base: Path, monkeypatch: Any) -> None:
    from transformers import LlamaForSequenceClassification

    usual = LlamaForSequenceClassification.forward

    def shifted(self: Any, *arguments: Any, **named: Any) -> Any:
        output = usual(self, *arguments, **named)
        output.logits = output.logits + 1.0
        return output

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", shifted)
    with pytest.raises(InvalidInput, match="makes its scores in a way this trainer does not know"):
        load_scorer(str(tiny_base), "cpu")


def save_as_before(base: str, directory: Path, pooling: Any) -> None:
    """A reward checkpoint as earlier versions saved it: scores by transformers' own forward, the head named score."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    model.config.pad_token_id = tokenizer.pad_token_id
    if pooling != "last":
        head = scalar_head(pooling, model.score.weight.shape[1], bias=False)
        head.weight = torch.nn.Parameter(model.score.weight.detach().clone())
        model.score = head
    model = random_adapter(model, "SEQ_CLS")
    manifest = manifest_of("reward", Path(base), model, tokenizer, directory.name)
    manifest = manifest.model_copy(update={"pooling": pooling})
    save_checkpoint(Home(directory.parent.parent).create(), directory.name, model.save_pretrained, manifest)
    path = directory / MANIFEST_FILE
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "reads_end"})
    )


@pytest.mark.parametrize("pad_is_end", [True, False])
@pytest.mark.parametrize("pooling", ["last", "sum", "mean"])
def test_a_reward_model_of_an_earlier_version_scores_as_it_was_measured(
    pooling: Any, pad_is_end: bool, home: Home, tiny_base: Path, tmp_path: Path
) -> None:
    base = str(save_family("llama", tiny_base, tmp_path / "shaped", pad_is_end=pad_is_end))
    directory = home.checkpoints / "old"
    save_as_before(base, directory, pooling)
    reward = load_reward(directory, device="cpu")  # refused unless its probe comes out as it was
    scores = reward_scores(reward, EXCHANGES)
    assert _judge(directory, base).scores(EXCHANGES)[0].tolist() == pytest.approx(scores, abs=1e-3)
    settings = PpoSettings(reward="old", lora_rank=2, baseline="leave_one_out", per_prompt=2)
    *_, in_ppo = build_backbone(base, None, [directory], settings, "cpu")
    assert in_ppo.scores(EXCHANGES)[0].tolist() == pytest.approx(scores, abs=1e-3)
    ended = [encode_exchange(reward.tokenizer, messages, reply).ids for messages, reply in EXCHANGES]
    assert all(ids[-1] == reward.tokenizer.eos_token_id for ids in ended)


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "pad_is_end"), [("sum", False), ("mean", False), ("last", True), ("last", False)])
def test_plain_peft_refuses_what_it_would_score_differently_and_the_card_says_so(
    pooling: Any, pad_is_end: bool, make_context: Any, dataset: str, tiny_base: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    base = str(save_family("llama", tiny_base, tmp_path / "shaped", pad_is_end=pad_is_end))
    context = make_context("reward", _config_of(pooling) | {"dataset": dataset, "parent": "shaped"})
    save_policy(context.db, Policy(name="shaped", base=base))
    METHODS["reward"].run(context)
    directory = context.home.checkpoints / "rm"
    reward = load_reward(directory, device="cpu")
    card = (directory / "README.md").read_text()
    assert "More Information Needed" not in card and "# rm" in card
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    if (pooling, pad_is_end) != ("last", False):
        with pytest.raises(KeyError, match="score.weight"):
            PeftModel.from_pretrained(plain, str(directory))
        assert "**Plain PEFT does not load it**" in card
        return
    assert "gives the same scores" in card
    under = PeftModel.from_pretrained(plain, str(directory)).eval()
    ids = [encode_exchange(reward.tokenizer, messages, reply).ids for messages, reply in EXCHANGES]
    with torch.no_grad():
        scores = [under(input_ids=torch.tensor([row])).logits[0, 0].item() for row in ids]
    assert scores == pytest.approx(reward_scores(reward, EXCHANGES), abs=1e-4)


def _config_of(pooling: str) -> dict[str, Any]:
    return {"name": "rm", "min_steps": 4, "epochs": 1, "batch_size": 4, "pooling": pooling}


def _judge(directory: Path, base: str) -> Any:
    model, tokenizer = load_base(base, "cpu")
    adapters = PeftAdapters(model)
    backbone = Backbone(base, model, tokenizer, adapters)
    return read_reward(backbone, adapters, "reward_0", directory, base)
