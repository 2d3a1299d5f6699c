"""The loss of the starter: cross-entropy of reply tokens, in batches of like length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from training.starter.corpus import Example, examples

IGNORED = -100
REPLY_TOKENS = 88


@dataclass(frozen=True)
class Encoded:
    """All examples end to end; example i is ``tokens[starts[i]:starts[i + 1]]``."""

    tokens: np.ndarray
    starts: np.ndarray
    replies: np.ndarray
    """Where in example i its reply begins."""
    rare: np.ndarray
    """By token: too rare to be a function word, so worth copying from a prompt."""

    def __len__(self) -> int:
        return len(self.replies)

    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)


def encode(corpus: list[Example], tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Turn examples into tokens by the chat template's layout, dropping replies that are too long."""
    user, assistant = (tokenizer.convert_tokens_to_ids(t) for t in ("<|user|>", "<|assistant|>"))
    end = tokenizer.eos_token_id
    asked = tokenizer([e.prompt for e in corpus], add_special_tokens=False)["input_ids"]
    told = tokenizer([e.reply for e in corpus], add_special_tokens=False)["input_ids"]
    rows, replies = [], []
    for prompt, reply in zip(asked, told, strict=True):
        if len(reply) < REPLY_TOKENS:
            rows.append([user, *prompt, end, assistant, *reply, end])
            replies.append(len(prompt) + 3)
    starts = np.cumsum([0, *map(len, rows)])
    tokens = np.concatenate(rows).astype(np.uint16)
    counts = np.bincount(tokens, minlength=len(tokenizer))
    return Encoded(tokens, starts, np.array(replies), counts < 0.004 * len(tokens))


TokenBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def batches(data: Encoded, budget: int, seed: int) -> Iterator[TokenBatch]:
    """One pass: (tokens, labels, copied), each (rows, length), rows of similar length."""
    rng = Random(seed)
    order = list(range(len(data)))
    rng.shuffle(order)
    lengths = data.lengths()
    pool = 8192
    for at in range(0, len(order), pool):
        chunk = sorted(order[at : at + pool], key=lambda i: lengths[i])
        groups = list(_groups(chunk, lengths, budget))
        rng.shuffle(groups)
        for group in groups:
            yield _collate(data, group, _padded(lengths[group[-1]]))


def _padded(length: int) -> int:
    """Round up to a multiple of eight: few shapes, so that a compiled model is compiled rarely."""
    return math.ceil(int(length) / 8) * 8


def _groups(chunk: list[int], lengths: np.ndarray, budget: int) -> Iterator[list[int]]:
    group: list[int] = []
    for index in chunk:
        if group and (len(group) + 1) * _padded(lengths[index]) > budget:
            yield group
            group = []
        group.append(index)
    yield group


def _collate(data: Encoded, group: list[int], width: int) -> TokenBatch:
    copied = torch.zeros(len(group), width, dtype=torch.bool)
    tokens = torch.zeros(len(group), width, dtype=torch.long)
    labels = torch.full((len(group), width), IGNORED)
    for row, index in enumerate(group):
        raw = data.tokens[data.starts[index] : data.starts[index + 1]]
        piece = torch.from_numpy(raw.astype(np.int64))
        tokens[row, : len(piece)] = piece
        # Position t predicts token t + 1, so the label of a token lies one to its left.
        first = int(data.replies[index])
        labels[row, first - 1 : len(piece) - 1] = piece[first:]
        from_prompt = np.isin(raw[first:], raw[:first]) & data.rare[raw[first:]]
        copied[row, first - 1 : len(piece) - 1] = torch.from_numpy(from_prompt)
    return tokens, labels, copied


def reply_loss(model: LlamaForCausalLM, batch: TokenBatch, copy_weight: float = 1.0) -> torch.Tensor:
    """Mean cross-entropy per reply token, words copied from the prompt weighing ``copy_weight``.

    The vocabulary is only computed where a label is. Rows are padded on the right and attention is causal, so no mask is needed.
    """
    tokens, labels, copied = batch
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    wanted = labels != IGNORED
    each = F.cross_entropy(model.lm_head(hidden[wanted]).float(), labels[wanted], reduction="none")
    weight = 1.0 + (copy_weight - 1.0) * copied[wanted].float()
    return (each * weight).mean()


def held_out_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> float:
    """Loss per reply token on fresh replies to held-out requests."""
    data = encode(list(examples(2, 1400, evaluation=True)), tokenizer)
    device = next(model.parameters()).device
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches(data, 8192, 0):
            size = int((batch[1] != IGNORED).sum())
            tokens, labels, copied = (t.to(device) for t in batch)
            total += reply_loss(model, (tokens, labels, copied)).item() * size
            count += size
    return total / count
