"""SFT on a tiny model: the loss is on the reply alone, packing changes nothing, and a run leaves a policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from feedback.errors import NotEnoughData, RunFailed
from feedback.store.models.checkpoints import get_checkpoint
from feedback.store.models.policies import get_policy
from feedback.types import Message, Role
from tests.training.conftest import token_exchange
from training.checkpoints.manifest import read_manifest
from training.checkpoints.opening import open_policy
from training.data.encoding import Encoder
from training.methods import METHODS
from training.methods.sft import IGNORED, encode_examples, train_sft
from training.models.loading import load_base
from training.models.scoring import reply_log_probs
from training.reporting.reporter import LocalProgress
from training.settings.sft import SftSettings

QUICK = SftSettings(
    dataset="d", min_steps=4, epochs=1, batch_size=8, learning_rate=5e-3, warmup=0.0, embedding_noise=0.0
)


@dataclass(frozen=True)
class Said:
    messages: tuple[Message, ...]
    reply: str
    cut: bool = False


EXAMPLES = [Said((Message(role=Role.user, content=f"Say {i}."),), "a" * (3 + 5 * i)) for i in range(8)]


def curve(progress: LocalProgress, name: str) -> list[float]:
    return [point.value for point in progress.points if point.name == name]


def test_labels_cover_the_reply_and_its_end_alone(tiny_base: Path) -> None:
    _, tokenizer = load_base(str(tiny_base), "cpu")
    row = encode_examples(Encoder(tokenizer, 256), EXAMPLES[:1])[0]
    prompt, reply = token_exchange(tokenizer, EXAMPLES[0].messages, "aaa")
    assert row["input_ids"] == prompt + reply
    assert row["labels"] == [IGNORED] * len(prompt) + reply
    assert reply[-1] == tokenizer.eos_token_id
    short = Encoder(tokenizer, 20)
    assert encode_examples(short, EXAMPLES) == [
        one for one in encode_examples(Encoder(tokenizer, 256), EXAMPLES) if one["length"] <= 20
    ]
    assert short.counts == {"too_long": short.left_out}
    assert short.left_out > 0


def test_the_first_loss_is_that_of_the_replies_under_the_parent(tiny_base: Path, tmp_path: Path) -> None:
    progress = LocalProgress()
    outcome = train_sft(str(tiny_base), None, EXAMPLES, QUICK, tmp_path, progress, device="cpu")
    model, tokenizer = load_base(str(tiny_base), "cpu")
    tokens = [token_exchange(tokenizer, one.messages, one.reply) for one in EXAMPLES]
    before = reply_log_probs(model, tokenizer.pad_token_id, tokens)
    counted = sum(len(reply) for _, reply in tokens)
    assert curve(progress, "loss")[0] == pytest.approx(-sum(before) / counted, abs=1e-4)
    assert sum(reply_log_probs(outcome.model, tokenizer.pad_token_id, tokens)) > sum(before) + 10
    assert outcome.counts == {"replies": 8, "too_long": 0}


@pytest.mark.slow
def test_packing_gives_the_same_losses_in_fewer_rows(tiny_base: Path, tmp_path: Path) -> None:
    losses = []
    for packing in (False, True):
        progress = LocalProgress()
        settings = QUICK.model_copy(update={"packing": packing})
        outcome = train_sft(str(tiny_base), None, EXAMPLES, settings, tmp_path / str(packing), progress, device="cpu")
        losses.append(curve(progress, "loss"))
        assert outcome.counts["replies"] == 8
    # Eight replies are one batch either way; did one see another, the losses would part at the first step
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


@pytest.mark.slow
def test_a_parents_adapter_is_trained_on(tiny_base: Path, tmp_path: Path) -> None:
    first = train_sft(str(tiny_base), None, EXAMPLES, QUICK, tmp_path / "1", LocalProgress(), device="cpu")
    first.model.save_pretrained(tmp_path / "parent")
    progress = LocalProgress()
    train_sft(str(tiny_base), tmp_path / "parent", EXAMPLES, QUICK, tmp_path / "2", progress, device="cpu")
    assert curve(progress, "loss")[0] < first.figures["loss"]


def test_what_is_left_after_truncation_is_told_before_the_first_step(tiny_base: Path, tmp_path: Path) -> None:
    progress = LocalProgress()
    train_sft(str(tiny_base), None, EXAMPLES, QUICK, tmp_path, progress, device="cpu")
    told = progress.told
    assert told["rows"] == len(EXAMPLES) and told["left_out"] == 0 and told["needed_mb"] > 0
    assert any("replies (none left out)" in line and "MB free" in line for line in progress.lines)


def test_too_few_replies_are_refused_and_too_long_ones_counted(tiny_base: Path, tmp_path: Path) -> None:
    long = Said(EXAMPLES[0].messages, "a" * 400)
    with pytest.raises(NotEnoughData, match="Of 2 replies 1 are longer than 256 tokens, which leaves 1"):
        train_sft(str(tiny_base), None, [EXAMPLES[0], long], QUICK, tmp_path, LocalProgress(), device="cpu")


def test_a_run_that_changed_no_weight_fails_instead_of_being_saved(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: None)
    with pytest.raises(RunFailed, match="Nothing was learnt"):
        train_sft(str(tiny_base), None, EXAMPLES, QUICK, tmp_path, LocalProgress(), device="cpu")


@pytest.mark.parametrize(("replies", "count"), [("chosen", None), ("edited", 0)])
def test_a_run_imitates_what_was_chosen(make_context: Any, dataset: str, replies: str, count: int | None) -> None:
    config = {"dataset": dataset, "name": "mimic", "min_steps": 2, "epochs": 1, "batch_size": 4, "replies": replies}
    context = make_context("sft", config)
    if count == 0:
        with pytest.raises(NotEnoughData, match="0 replies to imitate .replies=edited"):
            METHODS["sft"].run(context)
        return
    result = METHODS["sft"].run(context)
    assert result["policy"] == "mimic" and result["replies"] >= 2 and result["edited"] == 0
    manifest = read_manifest(context.home.path / get_checkpoint(context.db, "mimic").path)
    assert (manifest.method, manifest.parent) == ("sft", get_policy(context.db, "tiny").id)
    assert manifest.reference is None
    assert open_policy(context.db, context.home, "mimic", "cpu").has_adapter
