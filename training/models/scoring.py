"""What a model thinks of replies that are already written: log-probabilities, divergences and rewards.

Right-padded batches, sorted by length, no gradients. Prompts and replies go through ``training.models.chat`` like
everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from training.models.chat import Messages, encode_exchange
from training.models.loading import LoadedReward

if TYPE_CHECKING:
    from torch import Tensor

Tokens = Sequence[int]
MAX_LOGITS = 2**27  # numbers held at once: half a gigabyte in fp32
POSITIONS = 64  # whose distributions are compared at once


def reply_log_probs(
    model: Any, pad_token_id: int, exchanges: Sequence[tuple[Tokens, Tokens]], batch_size: int = 64
) -> list[float]:
    """Summed log-probability in nats of each reply given its prompt; exchanges are (prompt ids, reply ids).

    Batches shrink where a large vocabulary would make their logits too big for memory.
    """
    import torch

    sums = [0.0] * len(exchanges)
    rows = [list(prompt) + list(reply) for prompt, reply in exchanges]
    vocabulary = model.config.get_text_config().vocab_size
    longest = max((len(row) for row in rows), default=1)
    size = max(1, min(batch_size, MAX_LOGITS // (longest * vocabulary)))
    for places in _by_length(rows, size):
        ids, mask = _padded([rows[i] for i in places], pad_token_id, _device(model))
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            picked = logits.gather(-1, ids[:, 1:, None]).squeeze(-1) - logits.logsumexp(-1)  # (row, position)
        for row, place in enumerate(places):
            start = len(exchanges[place][0]) - 1  # the logits at position t speak of token t + 1
            sums[place] = picked[row, start : len(rows[place]) - 1].sum().item()
    return sums


def reply_divergences(
    model: Any, reference: Any, pad_token_id: int, exchanges: Sequence[tuple[Tokens, Tokens]], batch_size: int = 64
) -> list[float]:
    """KL(model || reference) in nats, summed over the positions of each reply; exchanges are (prompt ids, reply ids).

    At each position it is the divergence of the two distributions over the whole vocabulary, never below 0, whatever
    temperature and filters the reply was drawn with. Both models read the same tokens; where one has rows beyond its
    vocabulary, those are left out.
    """
    import torch

    sums = [0.0] * len(exchanges)
    rows = [list(prompt) + list(reply) for prompt, reply in exchanges]
    vocabulary = model.config.get_text_config().vocab_size
    longest = max((len(row) for row in rows), default=1)
    size = max(1, min(batch_size, MAX_LOGITS // (2 * longest * vocabulary)))
    for places in _by_length(rows, size):
        ids, mask = _padded([rows[i] for i in places], pad_token_id, _device(model))
        with torch.inference_mode():
            own = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            other = reference(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for row, place in enumerate(places):
                said = slice(len(exchanges[place][0]) - 1, len(rows[place]) - 1)  # position t speaks of token t + 1
                sums[place] = _divergence(own[row, said], other[row, said])
    return sums


def _divergence(own: Tensor, other: Tensor) -> float:
    """The KL divergence in nats of the distributions with these logits (T, vocabulary), summed over T."""
    width, total = min(own.shape[-1], other.shape[-1]), 0.0
    for parts in zip(own.split(POSITIONS), other.split(POSITIONS), strict=True):
        own_logs, other_logs = (logits.float().log_softmax(-1)[:, :width] for logits in parts)
        total += float((own_logs.exp() * (own_logs - other_logs)).sum())
    return max(0.0, total)


def reward_scores(
    reward: LoadedReward, exchanges: Sequence[tuple[Messages, str]], batch_size: int = 64, cut: Sequence[bool] = ()
) -> list[float]:
    """The score of each reply; exchanges are (messages, reply). A reply that was ``cut`` is read without an end."""
    rows = [
        encode_exchange(reward.tokenizer, messages, reply, ended=not (cut and cut[i])).ids
        for i, (messages, reply) in enumerate(exchanges)
    ]
    return row_scores(reward.model, reward.tokenizer.pad_token_id, rows, batch_size)


def row_scores(model: Any, pad_token_id: int, rows: Sequence[Tokens], batch_size: int = 64) -> list[float]:
    """The score a sequence classifier gives each row of token ids."""
    import torch

    scores = [0.0] * len(rows)
    for places in _by_length(rows, batch_size):
        ids, mask = _padded([rows[i] for i in places], pad_token_id, _device(model))
        with torch.inference_mode():
            values = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].float().tolist()
        for place, value in zip(places, values, strict=True):
            scores[place] = value
    return scores


def _device(model: Any) -> Any:
    return next(model.parameters()).device


def _by_length(rows: Sequence[Tokens], size: int) -> Iterator[list[int]]:
    """Places of the rows in batches of like length, longest first."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _padded(rows: Sequence[Tokens], pad_token_id: int, device: Any) -> tuple[Any, Any]:
    """Token ids and attention mask, padded on the right: (row, position)."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad_token_id] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask
