"""Rollouts of one PPO iteration: prompts, replies, their scores and log-probabilities.

Everything random follows from seed and iteration, so a resumed run draws what the interrupted one would have drawn,
and no generator's state has to be saved.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from training.generation.decoding import Decoded, decode
from training.models.chat import Messages, encode_prompt, is_encodable, window_of
from training.models.kl import kl_k1
from training.ppo.backbone import REFERENCE, Backbone, Role
from training.ppo.batch import ReplyBatch, make_batch
from training.rewards.scorers import Scorer
from training.speedups.frozen_layers import HiddenStateCache

if TYPE_CHECKING:
    from torch import Tensor

    from training.settings.ppo import PpoSettings


@dataclass(frozen=True)
class PoolPrompt:
    """A prompt that can be replied to: its id in the store, its messages, its tokens."""

    id: str
    messages: Messages
    tokens: tuple[int, ...]


class PromptPool:
    """Prompts in an order that follows from the seed: all once, then all again in another order."""

    def __init__(self, prompts: Sequence[PoolPrompt], seed: int) -> None:
        self.prompts = prompts
        self.seed = seed
        self._lap: tuple[int, list[int]] = (-1, [])

    def drawn(self, start: int, count: int) -> list[int]:
        """The places of the prompts from the ``start``-th draw on."""
        return [self._at(draw) for draw in range(start, start + count)]

    def _at(self, draw: int) -> int:
        lap, place = divmod(draw, len(self.prompts))
        if self._lap[0] != lap:
            order = list(range(len(self.prompts)))
            random.Random(f"{self.seed}:lap:{lap}").shuffle(order)
            self._lap = lap, order
        return self._lap[1][place]


@dataclass
class Rollout:
    """One iteration's replies. Lists and the reply axis of every tensor are in the order of the draw.

    Shapes: ``judged`` (scorer, reply), the raw scores; ``scores`` (reply,), combined and scaled. The rest is (reply,
    token): ``log_probs`` of the policy that drew, ``reference`` log-probabilities, ``values``, ``entropy``, ``mask``.
    ``texts`` are the replies alone, of so many tokens as ``lengths`` say; ``reasoning`` is what stands before each, and
    those that are ``unfinished`` have nothing else.
    """

    iteration: int
    prompts: list[int]
    replies: list[list[int]]
    ended: list[bool]
    texts: list[str]
    seeds: list[int]
    judged: Tensor
    scores: Tensor
    log_probs: Tensor = field(repr=False)
    reference: Tensor = field(repr=False)
    values: Tensor = field(repr=False)
    entropy: Tensor = field(repr=False)
    mask: Tensor = field(repr=False)
    reasoning: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    unfinished: list[bool] = field(default_factory=list)

    def to_state(self) -> dict[str, Any]:
        """Return the rollout as plain values and tensors, for a saved state."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Rollout:
        """Return the rollout that ``to_state`` described; a state of an earlier version has no reasoning or lengths."""
        lengths = [len(reply) - end for reply, end in zip(state["replies"], state["ended"], strict=True)]
        usual = {"reasoning": [""] * len(lengths), "lengths": lengths, "unfinished": [False] * len(lengths)}
        return cls(**(usual | dict(state)))

    @property
    def finished(self) -> list[bool]:
        """Which replies came to an end of their own, and not inside their reasoning."""
        return [end and not cut for end, cut in zip(self.ended, self.unfinished, strict=True)]

    @property
    def reply_kl(self) -> Tensor:
        """The log-ratio of each reply to the reference, an estimate of its KL in nats: (reply,)."""
        return (kl_k1(self.log_probs, self.reference) * self.mask).sum(1)


def encode_pool(
    tokenizer: Any, model: Any, prompts: Sequence[Any], max_new_tokens: int
) -> tuple[list[PoolPrompt], int]:
    """Stored prompts as tokens, and how many were left out: no reply would fit, or the template refuses them."""
    pool = []
    for prompt in prompts:
        if not is_encodable(tokenizer, prompt.messages, ["."]):
            continue
        tokens = tuple(encode_prompt(tokenizer, prompt.messages))
        if len(tokens) + max_new_tokens <= window_of(model):
            pool.append(PoolPrompt(prompt.id, prompt.messages, tokens))
    return pool, len(prompts) - len(pool)


def reply_seed(seed: int, iteration: int, place: int) -> int:
    """The seed of one reply; 31 bits, so that every JSON reader keeps it exactly."""
    digest = hashlib.sha256(f"{seed}:{iteration}:{place}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def draw_replies(
    backbone: Backbone,
    role: str,
    prompts: Sequence[PoolPrompt],
    seeds: Sequence[int],
    settings: PpoSettings,
    ends: Sequence[int],
    check: Callable[[], None],
) -> list[Decoded]:
    """Replies of a role to the prompts; the tokens of a stop string are trained on, in the place of an end token."""
    with backbone.role(role):
        return decode(
            backbone.model,
            [prompt.tokens for prompt in prompts],
            seeds,
            ends=ends,
            stops=backbone.reader.found_stop if backbone.reader.stops else None,
            banned=backbone.banned.tolist(),
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            check=check,
            direct_forward=backbone.direct_forward,
        )


def roll_out(
    backbone: Backbone,
    pool: PromptPool,
    scorer: Scorer,
    settings: PpoSettings,
    iteration: int,
    ends: Sequence[int],
    check: Callable[[], None],
) -> Rollout:
    """Draw one iteration's replies and have them scored; scaled scores and log-probabilities are still empty."""
    import torch

    groups = settings.episodes // settings.per_prompt
    places = [p for p in pool.drawn(iteration * groups, groups) for _ in range(settings.per_prompt)]
    seeds = [reply_seed(settings.seed, iteration, number) for number in range(len(places))]
    prompts = [pool.prompts[place] for place in places]
    decoded = draw_replies(backbone, "policy", prompts, seeds, settings, ends, check)
    said = [backbone.reader.read(one) for one in decoded]
    texts = [one.text for one in said]
    judged = scorer.scores([(prompt.messages, text) for prompt, text in zip(prompts, texts, strict=True)])
    empty = torch.zeros(len(places), max(len(one.tokens) for one in decoded))
    return Rollout(
        iteration=iteration,
        prompts=places,
        replies=[list(one.tokens) for one in decoded],
        ended=[one.ended for one in decoded],
        texts=texts,
        reasoning=[one.reasoning for one in said],
        lengths=[one.tokens for one in said],
        unfinished=[one.unfinished for one in said],
        seeds=seeds,
        judged=judged,
        scores=torch.zeros(len(places)),
        log_probs=empty,
        reference=empty,
        values=empty,
        entropy=empty,
        mask=torch.tensor([[1.0] * len(one.tokens) + [0.0] * (empty.shape[1] - len(one.tokens)) for one in decoded]),
    )


def penalties(lengths: Sequence[int], finished: Sequence[bool], settings: PpoSettings) -> Tensor:
    """What is taken off each reply's score for having no end or too few tokens, its reasoning not counted: (reply,)."""
    import torch

    lacking = [not end or length < settings.min_tokens for length, end in zip(lengths, finished, strict=True)]
    return settings.missing_end_penalty * torch.tensor(lacking, dtype=torch.float32)


def measure(
    backbone: Backbone, pool: PromptPool, rollout: Rollout, settings: PpoSettings, micro_batch: int
) -> dict[str, HiddenStateCache]:
    """Fill in log-probabilities of policy and reference, entropies and values, by the forward that training uses.

    Those computed during generation differ by rounding, so the first ratio would not be 1. Returns the cache of hidden
    states of each role that trains. The reference shares the policy's cache, because the policy began as the reference
    and its frozen layers do not change; the value shares it where it began as the policy.
    """
    import torch

    parts = list(batches(backbone, pool, rollout, micro_batch))
    caches = {"policy": HiddenStateCache()}
    caches["value"] = caches["policy"] if backbone.share_frozen_layers("policy", "value") else HiddenStateCache()

    def log_probs(part: tuple[list[int], ReplyBatch], role: Role) -> tuple[Tensor, Tensor]:
        return role.log_probs(part[1], settings.temperature, part[0], caches["policy"])

    def gathered(found: Sequence[Tensor]) -> Tensor:
        whole = torch.zeros_like(rollout.mask)
        for (rows, _), values in zip(parts, found, strict=True):
            whole[rows, : values.shape[1]] = values.cpu()
        return whole

    with backbone.role("policy") as policy:
        found = backbone.core_pool.map(partial(log_probs, role=policy), parts)
    rollout.log_probs, rollout.entropy = (gathered(one) for one in zip(*found, strict=True))
    with backbone.role(REFERENCE) as reference:
        found = backbone.core_pool.map(partial(log_probs, role=reference), parts)
    rollout.reference = gathered([one for one, _ in found])
    rollout.values = torch.zeros_like(rollout.mask)
    if settings.baseline == "value":
        with backbone.role("value") as value:
            rollout.values = gathered(
                backbone.core_pool.map(lambda one: value.values(one[1], one[0], caches["value"]), parts)
            )
    return caches


def batches(
    backbone: Backbone, pool: PromptPool, rollout: Rollout, size: int, rows: Sequence[int] | None = None
) -> Iterator[tuple[list[int], ReplyBatch]]:
    """Rows of a rollout in batches of like length, longest first, each with its places in the rollout."""
    chosen = range(len(rollout.replies)) if rows is None else rows
    length = {row: len(pool.prompts[rollout.prompts[row]].tokens) + len(rollout.replies[row]) for row in chosen}
    order = sorted(chosen, key=lambda row: (-length[row], row))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        prompts = [pool.prompts[rollout.prompts[row]].tokens for row in part]
        yield part, make_batch(prompts, [rollout.replies[row] for row in part], 0, backbone.device)


def part_of(values: Tensor, rows: Sequence[int], batch: ReplyBatch) -> Tensor:
    """The rows of a rollout's tensor that belong to a batch, as wide as the batch and where it is."""
    return values[list(rows), : batch.mask.shape[1]].to(batch.mask.device)


def generations_of(rollout: Rollout, pool: PromptPool, policy_id: str, run_id: str, settings: PpoSettings) -> list[Any]:
    """The replies as the store keeps them; blank ones are left out, since nobody could judge them.

    Beside how it was drawn, each tells its iteration, its score and its distance from the reference in nats.
    """
    from feedback.types import Generation

    reply_kl = rollout.reply_kl.tolist()
    drawn = {"temperature": settings.temperature, "top_p": 1.0, "top_k": 0, "max_new_tokens": settings.max_new_tokens}
    return [
        Generation(
            prompt_id=pool.prompts[place].id,
            policy_id=policy_id,
            text=rollout.texts[row],
            seed=rollout.seeds[row],
            sampling={
                **drawn,
                "iteration": rollout.iteration,
                "score": round(float(rollout.scores[row]), 4),
                "kl": round(reply_kl[row], 4),
            },
            finish_reason="stop" if rollout.ended[row] else "length",
            tokens=rollout.lengths[row],
            reasoning=rollout.reasoning[row] or None,
            run_id=run_id,
        )
        for row, place in enumerate(rollout.prompts)
        if rollout.texts[row]
    ]
