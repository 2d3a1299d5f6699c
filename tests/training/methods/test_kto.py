"""KTO on a tiny model: labels become weights, good replies gain on bad ones, both kinds are required."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedback.datasets.examples import LabelledReply
from feedback.errors import NotEnoughData
from feedback.store.models.checkpoints import get_checkpoint
from feedback.store.models.policies import get_policy
from feedback.types import Message, Role
from tests.training.conftest import token_exchange
from training.checkpoints.manifest import read_manifest
from training.data.encoding import Encoder
from training.methods import METHODS
from training.methods.kto import class_weights, encode_labelled, train_kto
from training.models.loading import load_base
from training.models.scoring import reply_log_probs
from training.reporting.reporter import LocalProgress
from training.settings.kto import KtoSettings

QUICK = KtoSettings(
    dataset="d", min_steps=8, epochs=1, batch_size=4, learning_rate=5e-3, warmup=0.0, embedding_noise=0.0
)


def labelled(number: int, reply: str, good: bool) -> LabelledReply:
    return LabelledReply(
        prompt_id=f"p{number}",
        messages=(Message(role=Role.user, content=f"Say {number}."),),
        reply=reply,
        good=good,
    )


REPLIES = [labelled(i, ("a" if i % 3 else "z") * (3 + i % 4), bool(i % 3)) for i in range(12)]


def mean_log_prob(model: Any, tokenizer: Any, good: bool) -> float:
    tokens = [token_exchange(tokenizer, one.messages, one.reply) for one in REPLIES if one.good is good]
    return sum(reply_log_probs(model, tokenizer.pad_token_id, tokens)) / len(tokens)


def test_good_replies_gain_on_bad_ones(tiny_base: Path, tmp_path: Path) -> None:
    progress = LocalProgress()
    outcome = train_kto(str(tiny_base), None, REPLIES, QUICK, tmp_path, progress, device="cpu")
    base, tokenizer = load_base(str(tiny_base), "cpu")
    gained = mean_log_prob(outcome.model, tokenizer, True) - mean_log_prob(base, tokenizer, True)
    lost = mean_log_prob(outcome.model, tokenizer, False) - mean_log_prob(base, tokenizer, False)
    assert gained > lost + 1
    assert outcome.counts == {"good": 8, "bad": 4, "too_long": 0}
    assert "8 good replies count 1, 4 bad ones 2" in progress.lines
    assert {"loss", "good_log_prob", "kl"} <= {point.name for point in progress.points}


@pytest.mark.parametrize(
    ("good", "bad", "set_to", "weights"),
    [(100, 50, {}, (1.0, 2.0)), (20, 60, {}, (3.0, 1.0)), (5, 5, {}, (1.0, 1.0)), (5, 50, {"good_weight": 2}, (2, 1))],
)
def test_the_rarer_kind_counts_more_unless_told_otherwise(
    good: int, bad: int, set_to: dict[str, float], weights: tuple[float, float]
) -> None:
    assert class_weights(good, bad, KtoSettings(dataset="d", **set_to)) == weights


def test_every_reply_has_another_prompts_reply_beside_it(tiny_base: Path) -> None:
    _, tokenizer = load_base(str(tiny_base), "cpu")
    replies = [labelled(i // 2, f"reply {i}", bool(i % 2)) for i in range(12)]
    rows = encode_labelled(Encoder(tokenizer, 256), replies, seed=0)
    said = [tokenizer.decode(row["KL_completion_ids"], skip_special_tokens=True) for row in rows]
    owners = [int(text.removeprefix("reply ")) // 2 for text in said]
    assert all(owner != i // 2 for i, owner in enumerate(owners))


def test_the_reference_is_asked_about_a_reply_and_the_other_prompts_reply(tiny_base: Path, tmp_path: Path) -> None:
    replies = [
        *(labelled(i // 2, ("ab" if i % 2 else "yzx") * (2 + i % 5), bool(i % 2)) for i in range(6)),
        labelled(7, "a reply of other length, a longer one", True),
    ]
    model, tokenizer = load_base(str(tiny_base), "cpu")
    rows = encode_labelled(Encoder(tokenizer, 1024), replies, QUICK.seed)
    cache = tmp_path / "references"
    train_kto(str(tiny_base), None, replies, QUICK, tmp_path / "run", LocalProgress(), device="cpu", cache=cache)
    own, other = json.loads(next(cache.glob("*.json")).read_text())
    for sums, column in ((own, "completion_ids"), (other, "KL_completion_ids")):
        exchanges = [(row["prompt_ids"], row[column]) for row in rows]
        assert sums == pytest.approx(reply_log_probs(model, tokenizer.pad_token_id, exchanges), abs=1e-3)


def test_one_kind_alone_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    only_good = [one for one in REPLIES if one.good]
    with pytest.raises(NotEnoughData, match="8 good and 0 bad replies"):
        train_kto(str(tiny_base), None, only_good, QUICK, tmp_path, LocalProgress(), device="cpu")


def test_a_run_names_its_reference(make_context: Any, dataset: str) -> None:
    config = {"dataset": dataset, "name": "kind", "min_steps": 2, "epochs": 1, "batch_size": 4}
    context = make_context("kto", config)
    result = METHODS["kto"].run(context)
    assert result["good"] == result["bad"] > 0
    manifest = read_manifest(context.home.path / get_checkpoint(context.db, "kind").path)
    assert manifest.reference == manifest.parent == get_policy(context.db, "tiny").id
