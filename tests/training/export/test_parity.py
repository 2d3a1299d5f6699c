"""What compares an export with its policy sees a difference where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.database.engine import Database
from feedback.errors import CheckpointError
from feedback.types import Split
from tests.factories import make_prompt
from tests.training.tiny_models import change_weights
from training.export.parity import (
    GreedyReply,
    agreement,
    check_replies,
    check_tokenizer,
    choose_prompts,
    greedy_replies,
    load_plain,
)
from training.generation.sampling import banned_tokens, end_tokens
from training.models.base_fit import embedding_rows
from training.models.loading import LoadedPolicy, load_base

ASKED = [[{"role": "user", "content": text}] for text in ("Explain rain.", "Write a note.", "Read a book.")]


@pytest.fixture
def policy(smol_like: Path) -> LoadedPolicy:
    return LoadedPolicy(*load_base(str(smol_like), "cpu"), str(smol_like))


def never_drawn(policy: LoadedPolicy) -> list[int]:
    return banned_tokens(policy.tokenizer, end_tokens(policy), embedding_rows(policy.model))


def copied(directory: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(directory, to))


def test_the_same_weights_agree_and_others_do_not(policy: LoadedPolicy, smol_like: Path, tmp_path: Path) -> None:
    replies, banned = greedy_replies(policy, ASKED), never_drawn(policy)
    same = load_plain(smol_like)
    check_replies(same, replies, policy.tokenizer, ends=end_tokens(policy), banned=banned)
    total = sum(len(one.reply) for one in replies)
    assert agreement(same, replies, banned=banned) == (total, total) and total > 20
    other = copied(smol_like, tmp_path / "other")
    change_weights(other, lambda tensors: tensors["model.layers.1.mlp.down_proj.weight"].neg_())
    changed = load_plain(other)
    assert agreement(changed, replies, banned=banned)[0] < 0.95 * total
    with pytest.raises(CheckpointError, match=r"its greedy reply differs from token \d+ on"):
        check_replies(changed, replies, policy.tokenizer, ends=end_tokens(policy), banned=banned)


def test_one_wrong_token_counts_once(policy: LoadedPolicy, smol_like: Path) -> None:
    (reply,) = greedy_replies(policy, ASKED[:1])
    wrong = next(token for token in range(20, 40) if token != reply.reply[-1])
    spoilt = GreedyReply(reply.messages, reply.prompt, (*reply.reply[:-1], wrong))
    total = len(reply.reply)
    assert agreement(load_plain(smol_like), [spoilt], banned=never_drawn(policy)) == (total - 1, total)


def test_a_reply_that_ends_sooner_or_later_is_another(policy: LoadedPolicy, smol_like: Path) -> None:
    (reply,) = greedy_replies(policy, ASKED[:1])
    cut = GreedyReply(reply.messages, reply.prompt, reply.reply[:-1])
    with pytest.raises(CheckpointError):
        check_replies(
            load_plain(smol_like), [cut], policy.tokenizer, ends=end_tokens(policy), banned=never_drawn(policy)
        )


def test_another_chat_template_is_seen(policy: LoadedPolicy, smol_like: Path, tmp_path: Path) -> None:
    replies = greedy_replies(policy, ASKED)
    check_tokenizer(smol_like, replies)
    other = copied(smol_like, tmp_path / "other")
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("small", "large"))
    with pytest.raises(CheckpointError, match="encodes the prompt 'Explain rain.' otherwise"):
        check_tokenizer(other, replies)


def test_held_out_prompts_come_first_and_control_tokens_are_left_out(db: Database, policy: LoadedPolicy) -> None:
    assert [one[0]["content"] for one in choose_prompts(db, policy, 2)] == [
        "Write a short note to thank a friend.",
        "Explain rain to a child.",
    ]
    make_prompt(db, "For work.")
    make_prompt(db, "Say <|im_end|> twice.", Split.evaluation)
    make_prompt(db, "Held out.", Split.evaluation)
    assert [one[0]["content"] for one in choose_prompts(db, policy, 2)] == ["Held out.", "For work."]
