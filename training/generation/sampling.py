"""Prompts to replies: batched, left-padded, KV-cached and seeded reply by reply.

Every reply has its own seed, made from the seed asked for, the prompt and the reply's number, and takes one
uniform number per token from it. So a reply does not depend on which others were drawn beside it, and the
seed stored with a generation is enough to draw it again. Torch's global generators are never touched. A policy
behind an endpoint is given the same seeds; how far it heeds them is its server's affair.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from feedback.errors import InvalidInput
from feedback.types import SamplingSettings, content_hash
from training.generation.endpoint import IN_FLIGHT, REFUSED, Endpoint
from training.generation.stopping import check_stopped
from training.models.base_fit import embedding_rows
from training.models.chat import (
    Messages,
    PromptTooLong,
    Unencodable,
    check_fits,
    decode_reply,
    encode_prompt,
    end_token,
    window_of,
)
from training.models.loading import LoadedPolicy

MAX_REDRAWS = 3
OnProgress = Callable[[int, int], None]  # replies drawn, replies wanted
Replier = LoadedPolicy | Endpoint


@dataclass(frozen=True)
class Reply:
    """One drawn reply. ``finish_reason`` is ``stop`` when the model ended it, ``length`` when it was cut.

    ``refused``, with an empty text, says that an endpoint would not reply to this prompt.
    ``tokens`` counts the reply without its end token; ``token_ids`` holds what was drawn, end token included.
    """

    text: str
    finish_reason: str
    tokens: int
    seed: int
    token_ids: tuple[int, ...] = field(repr=False, default=())


@dataclass(frozen=True)
class _Draw:
    """One reply still to be drawn: its place in the answer and its prompt's tokens."""

    prompt: int
    place: int
    messages: Messages
    ids: tuple[int, ...]  # none for an endpoint, which reads the messages
    seed: int


def sample(
    policy: Replier,
    prompts: Sequence[Messages],
    k: int,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    batch_size: int = 128,
    on_progress: OnProgress | None = None,
    *,
    distinct: bool = True,
) -> list[list[Reply]]:
    """Draw k replies to each prompt, in the order of the prompts.

    The same seed gives the same replies. With ``distinct`` a reply equal to an earlier one of its prompt is
    drawn again, at most three times; blank replies likewise. Without it replies are independent of each other, as
    a measurement needs them. A prompt too long for the model raises PromptTooLong before anything is drawn.
    """
    settings = settings or SamplingSettings()
    if k < 1:
        raise InvalidInput(f"k must be 1 or more replies per prompt, not {k}.")
    encoded = [_encoded(policy, messages, settings) for messages in prompts]
    keys = [content_hash(list(map(dict, messages))) for messages in prompts]
    replies: dict[tuple[int, int], Reply] = {}
    report = on_progress or (lambda drawn, wanted: None)
    wanted = len(prompts) * k
    pending = [(p, j) for p in range(len(prompts)) for j in range(k)]
    with _ready(policy):
        for attempt in range(1 + MAX_REDRAWS):
            draws = [_Draw(p, j, prompts[p], encoded[p], _reply_seed(seed, keys[p], j, attempt)) for p, j in pending]
            for batch in _batches(draws, at_once(policy, batch_size)):
                for draw, reply in zip(batch, _draw_batch(policy, batch, settings), strict=True):
                    replies[draw.prompt, draw.place] = reply
                report(len(replies), wanted)
            pending = _repeats(replies, len(prompts), k)
            if (
                not distinct or not pending or settings.temperature == 0
            ):  # a greedy reply is the same however often it is drawn
                break
    return [[replies[p, j] for j in range(k)] for p in range(len(prompts))]


def fits(policy: Replier, messages: Messages, settings: SamplingSettings) -> None:
    """Raise PromptTooLong when this prompt and its reply do not fit the model's window, so far as that is known."""
    _encoded(policy, messages, settings)


def at_once(policy: Replier, batch_size: int) -> int:
    """How many replies are drawn together: ``batch_size`` at most, and of an endpoint what it bears."""
    return min(batch_size, IN_FLIGHT) if isinstance(policy, Endpoint) else batch_size


def _encoded(policy: Replier, messages: Messages, settings: SamplingSettings) -> tuple[int, ...]:
    """The prompt's tokens, once it is seen to fit; none for an endpoint: what it reads, only its server knows."""
    if isinstance(policy, Endpoint):
        return ()
    ids = tuple(encode_prompt(policy.tokenizer, messages))
    check_fits(len(ids), settings.max_new_tokens, window_of(policy.model))
    return ids


def _ready(policy: Replier) -> AbstractContextManager[Any]:
    return nullcontext() if isinstance(policy, Endpoint) else policy.for_sampling()


def _reply_seed(seed: int, key: str, place: int, attempt: int) -> int:
    """The seed of one reply; 31 bits, so that every JSON reader keeps it exactly."""
    digest = hashlib.sha256(f"{seed}:{key}:{place}:{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _batches(draws: Sequence[_Draw], size: int) -> list[list[_Draw]]:
    """Prompts of like length together, so that little is padded; longest first shows a memory limit at once."""
    ordered = sorted(draws, key=lambda draw: -len(draw.ids))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _repeats(replies: dict[tuple[int, int], Reply], prompts: int, k: int) -> list[tuple[int, int]]:
    """Places whose reply is blank or equal to an earlier one of the same prompt."""
    places = []
    for p in range(prompts):
        seen: set[str] = set()
        for j in range(k):
            text = " ".join(replies[p, j].text.split())
            if replies[p, j].finish_reason == REFUSED:
                continue  # it would be again
            if not text or text in seen:
                places.append((p, j))
            seen.add(text)
    return places


def _draw_batch(policy: Replier, batch: Sequence[_Draw], settings: SamplingSettings) -> list[Reply]:
    """The replies to one batch, each drawn from its own seed."""
    if isinstance(policy, Endpoint):
        said = policy.reply_all([(draw.messages, draw.seed) for draw in batch], settings)
        return [Reply(one.text, one.finish_reason, one.tokens, d.seed) for one, d in zip(said, batch, strict=True)]
    return _generate(policy, batch, settings)


def _generate(policy: LoadedPolicy, batch: Sequence[_Draw], settings: SamplingSettings) -> list[Reply]:
    """One left-padded call of ``generate``."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    tokenizer, model = policy.tokenizer, policy.model
    ends = end_tokens(policy)
    width = max(len(draw.ids) for draw in batch)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(draw.ids)) + list(draw.ids) for draw in batch])
    mask = torch.tensor([[0] * (width - len(draw.ids)) + [1] * len(draw.ids) for draw in batch])
    # The draw happens in _Chooser. What is left unnamed here, `generate` would take from the model's own file, and
    # a repetition penalty from there would make the replies another distribution than the one that is trained.
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        num_beams=1,
        eos_token_id=ends,
        pad_token_id=pad,
        use_cache=True,
    )
    draw = _Chooser(settings, [d.seed for d in batch], width, banned_tokens(tokenizer, ends, embedding_rows(model)))
    with torch.no_grad():
        out = model.generate(
            input_ids=ids.to(policy.device),
            attention_mask=mask.to(policy.device),
            generation_config=config,
            logits_processor=LogitsProcessorList([draw]),
        )
    rows = out[:, width:].tolist()
    return [_reply(tokenizer, row, set(ends), d.seed) for row, d in zip(rows, batch, strict=True)]


def end_tokens(policy: LoadedPolicy) -> list[int]:
    """Every token that ends a reply: the template's, the tokenizer's, and those of the model's generation settings."""
    named = getattr(getattr(policy.model, "generation_config", None), "eos_token_id", None)
    others = named if isinstance(named, list) else [] if named is None else [named]
    return list(dict.fromkeys([end_token(policy.tokenizer), policy.tokenizer.eos_token_id, *others]))


def banned_tokens(tokenizer: Any, ends: Sequence[int], rows: int) -> list[int]:
    """Special tokens but the ends: a few in a thousand would leak at temperature 1.

    Those beyond the model's ``rows`` tokens cannot be drawn and are left out.
    """
    special = set(tokenizer.all_special_ids)
    special.update(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    return sorted(i for i in special - set(ends) if i < rows)


def _reply(tokenizer: Any, row: Sequence[int], ends: set[int], seed: int) -> Reply:
    """What stands in a row up to its first end token."""
    stop = next((i for i, token in enumerate(row) if token in ends), None)
    body = list(row) if stop is None else list(row[:stop])
    drawn = body if stop is None else list(row[: stop + 1])
    return Reply(decode_reply(tokenizer, body), "length" if stop is None else "stop", len(body), seed, tuple(drawn))


class _Chooser:
    """A logits processor that leaves one token possible: the one each row's next uniform number points at.

    Inverse-CDF sampling: exact, one number per token, and independent of device and batch.
    """

    def __init__(self, settings: SamplingSettings, seeds: Sequence[int], width: int, banned: list[int]) -> None:
        import torch

        self.settings = settings
        self.width = width
        self.banned = banned
        streams = [random.Random(seed) for seed in seeds]
        numbers = [[stream.random() for _ in range(settings.max_new_tokens)] for stream in streams]
        self.uniforms = torch.tensor(numbers, dtype=torch.float64)  # (row, step)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The scores with every token but the drawn one at minus infinity."""
        import torch

        check_stopped()
        scores = scores.float()
        if self.banned:
            scores[:, self.banned] = -torch.inf
        step = input_ids.shape[1] - self.width
        chosen = scores.argmax(-1, keepdim=True) if self.settings.temperature == 0 else self._drawn(scores, step)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)

    def _drawn(self, scores: Any, step: int) -> Any:
        import torch

        probabilities = self._filtered(scores / self.settings.temperature).softmax(-1)
        cumulative = probabilities.cumsum(-1)  # (row, vocabulary)
        point = self.uniforms[:, step : step + 1].to(scores.device, scores.dtype) * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, point, right=True).clamp_(max=scores.shape[-1] - 1)
        # Rounding can land on a token of probability 0 at the very end of the sum
        impossible = probabilities.gather(1, chosen) == 0
        return torch.where(impossible, probabilities.argmax(-1, keepdim=True), chosen)

    def _filtered(self, scores: Any) -> Any:
        import torch

        if self.settings.top_k:
            least = scores.topk(min(self.settings.top_k, scores.shape[-1])).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        if self.settings.top_p < 1.0:
            ordered, order = scores.sort(-1, descending=True)
            before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
            scores = scores.masked_fill(
                (before >= self.settings.top_p).scatter(1, order, before >= self.settings.top_p), -torch.inf
            )
        return scores


def fitting(policy: Replier, prompts: Sequence[Messages], sampling: SamplingSettings) -> list[Messages]:
    """The prompts that this policy can be given, and that leave room for a reply in its window."""
    kept = []
    for messages in prompts:
        try:
            fits(policy, messages, sampling)
            kept.append(messages)
        except (PromptTooLong, Unencodable):
            continue
    return kept
