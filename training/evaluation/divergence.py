"""How far a policy moved from its reference, in nats per reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.generation.endpoint import Endpoint
from training.generation.sampling import Replier, Reply
from training.models.chat import Messages, encode_prompt
from training.models.kl import kl_k1
from training.models.loading import LoadedPolicy
from training.models.scoring import reply_log_probs


@dataclass(frozen=True)
class Divergence:
    """How far a policy moved from its reference, on its own replies: nats per reply (and its error), and per token."""

    per_reply: float
    error: float
    per_token: float


def divergence_if_local(
    a: Replier, b: Replier, prompts: Sequence[Messages], replies: Sequence[Sequence[Reply]]
) -> Divergence | None:
    """Return the KL of A from B on A's replies; None for an endpoint, or for models that tokenize differently."""
    if isinstance(a, Endpoint) or isinstance(b, Endpoint) or not read_alike(a, b):
        return None
    return divergence(a, b, prompts, replies)


def read_alike(one: LoadedPolicy, other: LoadedPolicy) -> bool:
    """Whether both read a prompt as the same tokens."""
    if one.base == other.base:
        return True
    readers = [(policy.tokenizer.chat_template, policy.tokenizer.get_vocab()) for policy in (one, other)]
    return bool(readers[0] == readers[1])


def divergence(
    policy: LoadedPolicy,
    reference: LoadedPolicy,
    prompts: Sequence[Messages],
    replies: Sequence[Sequence[Reply]],
) -> Divergence:
    """KL(policy || reference) in nats, estimated on the policy's own replies: mean summed log-ratio.

    Unbiased for replies drawn at temperature 1; at another temperature it is the log-ratio of what was drawn.
    The estimate can come out slightly below 0 when the two are alike; the standard error says how slightly.
    """
    exchanges = [
        (encode_prompt(policy.tokenizer, messages), reply.token_ids)
        for messages, own in zip(prompts, replies, strict=True)
        for reply in own
    ]
    pad = policy.tokenizer.pad_token_id
    own_sums = reply_log_probs(policy.model, pad, exchanges)
    other_sums = reply_log_probs(reference.model, pad, exchanges)
    ratios = [kl_k1(own, other) for own, other in zip(own_sums, other_sums, strict=True)]
    mean = sum(ratios) / len(ratios)
    spread = sum((ratio - mean) ** 2 for ratio in ratios) / max(1, len(ratios) - 1)
    tokens = sum(len(ids) for _, ids in exchanges)
    return Divergence(mean, (spread / len(ratios)) ** 0.5, sum(ratios) / max(1, tokens))
