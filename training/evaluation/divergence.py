"""How far a policy moved from its reference, in nats per reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.generation.endpoint import Endpoint
from training.generation.sampling import Replier, Reply
from training.models.chat import Messages, encode_prompt
from training.models.loading import LoadedPolicy
from training.models.scoring import reply_divergences


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
    """KL(policy || reference) in nats along the policy's own replies: its mean over replies, and its standard error.

    At each position the divergence is that of the whole distributions at temperature 1, so that it is never below 0 and
    does not depend on the temperature and the filters by which the token was drawn; the replies are those that were
    drawn with them. For replies drawn at temperature 1 the mean estimates KL over whole replies, with less variance
    than the log-ratio of what was drawn.
    """
    exchanges = [
        (encode_prompt(policy.tokenizer, messages), reply.token_ids)
        for messages, own in zip(prompts, replies, strict=True)
        for reply in own
    ]
    sums = reply_divergences(policy.model, reference.model, policy.tokenizer.pad_token_id, exchanges)
    mean = sum(sums) / len(sums)
    spread = sum((one - mean) ** 2 for one in sums) / max(1, len(sums) - 1)
    tokens = sum(len(ids) for _, ids in exchanges)
    return Divergence(mean, (spread / len(sums)) ** 0.5, sum(sums) / max(1, tokens))
