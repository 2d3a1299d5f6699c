"""Prompts to replies: batched, and seeded reply by reply.

Every reply has its own seed, made from the seed asked for, the prompt and the reply's number, and takes one
uniform number per token from it. So in fp32 a reply does not depend on which others were drawn beside it, and the
seed stored with a generation is enough to draw it again. In bf16 it takes the same company too, because its rounding
depends on it. Torch's global generators are never touched. A policy behind an endpoint is given the same seeds; how far
it heeds them is its server's affair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from feedback.errors import InvalidInput
from feedback.types import SamplingSettings, content_hash
from training.generation.decoding import Decoded, OnToken, decode
from training.generation.endpoint import IN_FLIGHT, Endpoint
from training.generation.endpoint_answers import REFUSED
from training.generation.endpoint_answers import Said as EndpointSaid
from training.generation.endpoint_stream import stream_reply
from training.generation.replies import ReplyReader, Said
from training.generation.stop_strings import StopStrings, before_strings, named_ends
from training.models.base_fit import embedding_rows
from training.models.chat import (
    Messages,
    PromptTooLong,
    Unencodable,
    check_fits,
    encode_prompt,
    end_token,
    window_of,
)
from training.models.loading import LoadedPolicy

MAX_REDRAWS = 3
OnProgress = Callable[[int, int], None]  # replies drawn, replies wanted
OnSaid = Callable[[Said], None]  # what a reply says so far
Replier = LoadedPolicy | Endpoint


@dataclass(frozen=True)
class Reply:
    """One drawn reply. ``finish_reason`` is ``stop`` when the model ended it, ``length`` when it was cut.

    ``refused``, with an empty text, says that an endpoint would not reply to this prompt.
    ``tokens`` counts the reply without its end token or stop string, which ``token_ids`` hold. ``reasoning`` is what
    the model wrote before its reply, and no part of it; ``unfinished``, with an empty text, that it has no end.
    """

    text: str
    finish_reason: str
    tokens: int
    seed: int
    token_ids: tuple[int, ...] = field(repr=False, default=())
    reasoning: str = ""
    unfinished: bool = False


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
    on_token: OnToken = lambda drawn, tokens: None,
    distinct: bool = True,
) -> list[list[Reply]]:
    """Draw k replies to each prompt, in the order of the prompts.

    The same seed gives the same replies. With ``distinct`` a reply equal to an earlier one of its prompt is
    drawn again, at most three times; blank replies likewise. Without it replies are independent of each other, as
    a measurement needs them. A prompt too long for the model raises PromptTooLong before anything is drawn.
    ``on_progress`` is told after each batch, ``on_token`` after each token of a model here.
    """
    settings = settings or SamplingSettings()
    if k < 1:
        raise InvalidInput(f"k must be 1 or more replies per prompt, not {k}.")
    encoded = [_encoded(policy, messages, settings) for messages in prompts]
    keys = [content_hash(list(map(dict, messages))) for messages in prompts]
    replies: dict[tuple[int, int], Reply] = {}
    report = on_progress or (lambda drawn, wanted: None)
    wanted, spent = len(prompts) * k, 0
    pending = [(p, j) for p in range(len(prompts)) for j in range(k)]
    with _ready(policy):
        for attempt in range(1 + MAX_REDRAWS):
            draws = [_Draw(p, j, prompts[p], encoded[p], _reply_seed(seed, keys[p], j, attempt)) for p, j in pending]
            drawn = _draw_all(
                policy,
                draws,
                settings,
                batch_size,
                lambda done: report(max(done, len(replies)), wanted),
                lambda done, tokens, before=spent: on_token(max(done, len(replies)), before + tokens),  # type: ignore[misc]
            )
            spent += sum(map(_drawn_tokens, drawn))
            replies.update({(draw.prompt, draw.place): reply for draw, reply in zip(draws, drawn, strict=True)})
            pending = _repeats(replies, len(prompts), k)
            if (
                not distinct or not pending or settings.temperature == 0
            ):  # a greedy reply is the same however often it is drawn
                break
    return [[replies[p, j] for j in range(k)] for p in range(len(prompts))]


def sample_one(
    policy: Replier, messages: Messages, settings: SamplingSettings, seed: int, on_said: OnSaid = lambda said: None
) -> Reply:
    """Draw one reply by this very seed; ``on_said`` is given what it says so far whenever there is more of it.

    A prompt too long for the model raises PromptTooLong before anything is drawn.
    """
    draw = _Draw(0, 0, messages, _encoded(policy, messages, settings), seed)
    if isinstance(policy, Endpoint):
        return _as_reply(stream_reply(policy, messages, seed, settings, on_said), seed)
    with _ready(policy):
        return _decode(policy, [draw], settings, 1, _ignore, _ignore, on_said)[0]


def _ignore(*_: float) -> None:
    """Progress that nobody reads."""


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


def use_half(policy: Replier, log: Callable[[str], None]) -> bool:
    """Let a policy draw in bf16 if that is faster for this model on this machine, and say so; whether it does."""
    if isinstance(policy, Endpoint):
        return False
    from training.speedups.half_linears import half_pays

    policy.half = half_pays(policy.model)
    if policy.half:
        log("drawing in bf16, which this CPU computes faster; precision=fp32 draws each reply again by its seed alone")
    return policy.half


@contextmanager
def _ready(policy: Replier) -> Iterator[None]:
    """A policy for the time of the block as it draws: its adapter folded, its products in bf16 where it may."""
    if isinstance(policy, Endpoint):
        yield
        return
    from training.speedups.half_linears import half_linears

    with policy.for_sampling() as model, half_linears(model) if policy.half else nullcontext():
        yield


def _reply_seed(seed: int, key: str, place: int, attempt: int) -> int:
    """The seed of one reply; 31 bits, so that every JSON reader keeps it exactly."""
    digest = hashlib.sha256(f"{seed}:{key}:{place}:{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _repeats(replies: dict[tuple[int, int], Reply], prompts: int, k: int) -> list[tuple[int, int]]:
    """Places whose reply is blank or equal to an earlier one of the same prompt."""
    places = []
    for p in range(prompts):
        seen: set[str] = set()
        for j in range(k):
            text = " ".join(replies[p, j].text.split())
            if replies[p, j].finish_reason == REFUSED or replies[p, j].unfinished:
                continue  # it would be again, or in all likelihood
            if not text or text in seen:
                places.append((p, j))
            seen.add(text)
    return places


def _draw_all(
    policy: Replier,
    draws: Sequence[_Draw],
    settings: SamplingSettings,
    batch_size: int,
    on_batch: Callable[[int], None],
    on_token: OnToken = lambda drawn, tokens: None,
) -> list[Reply]:
    """The reply to each draw, from its own seed; ``on_batch`` is told after each batch how many are drawn."""
    size = at_once(policy, batch_size)
    if isinstance(policy, Endpoint):
        return _ask(policy, draws, settings, size, on_batch, on_token)
    return _decode(policy, draws, settings, size, on_batch, on_token)


def _decode(
    policy: LoadedPolicy,
    draws: Sequence[_Draw],
    settings: SamplingSettings,
    batch_size: int,
    on_batch: Callable[[int], None],
    on_token: OnToken,
    on_said: OnSaid | None = None,
) -> list[Reply]:
    """Draw by a model here; ``on_said`` is for a single reply."""
    from training.speedups.direct_forward import DirectForward

    reader = ReplyReader(policy.tokenizer, settings.stop)
    ends = end_tokens(policy, reader.stops)
    # The adapter's layers lie inside the base; the wrapper around them would only hide what its forward takes
    model = policy.model.get_base_model() if policy.has_adapter else policy.model
    drawn = decode(
        model,
        [draw.ids for draw in draws],
        [draw.seed for draw in draws],
        ends=ends,
        stops=reader.found_stop if reader.stops else None,
        banned=banned_tokens(policy.tokenizer, ends, embedding_rows(model)),
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        batch_size=batch_size,
        on_batch=on_batch,
        on_token=on_token,
        on_drawn=(lambda drawn: None) if on_said is None else lambda drawn: on_said(reader.read_so_far(drawn[0])),
        direct_forward=DirectForward.of(model),
    )
    return [_reply(reader, one, draw.seed) for one, draw in zip(drawn, draws, strict=True)]


def _ask(
    endpoint: Endpoint,
    draws: Sequence[_Draw],
    settings: SamplingSettings,
    batch_size: int,
    on_batch: Callable[[int], None],
    on_token: OnToken,
) -> list[Reply]:
    replies: list[Reply] = []
    for start in range(0, len(draws), batch_size):
        batch = draws[start : start + batch_size]
        said = endpoint.reply_all([(draw.messages, draw.seed) for draw in batch], settings)
        replies += [_as_reply(one, draw.seed) for one, draw in zip(said, batch, strict=True)]
        on_batch(len(replies))
        on_token(len(replies), sum(map(_drawn_tokens, replies)))
    return replies


def _as_reply(said: EndpointSaid, seed: int) -> Reply:
    return Reply(said.text, said.finish_reason, said.tokens, seed, reasoning=said.reasoning, unfinished=said.unfinished)


def _drawn_tokens(reply: Reply) -> int:
    return len(reply.token_ids) or reply.tokens


def end_tokens(policy: LoadedPolicy, stops: StopStrings | None = None) -> list[int]:
    """Every token that ends a reply.

    The template's, the tokenizer's, those of the model's generation settings, and the stop strings that are tokens.
    """
    named = getattr(getattr(policy.model, "generation_config", None), "eos_token_id", None)
    others = named if isinstance(named, list) else [] if named is None else [named]
    own = stops.end_ids if stops is not None else []
    return list(dict.fromkeys([end_token(policy.tokenizer), policy.tokenizer.eos_token_id, *others, *own]))


def log_drawing(policy: Replier, settings: SamplingSettings, log: Callable[[str], None]) -> None:
    """Say in a run's log how replies are drawn, and what ends them."""
    top_k = settings.top_k or "off"
    log(
        f"drawing with temperature {settings.temperature:g}, top_p {settings.top_p:g}, top_k {top_k}, at most "
        f"{settings.max_new_tokens} tokens"
    )
    if isinstance(policy, Endpoint):
        log(f"its server ends a reply{before_strings(settings.stop)}")
        return
    stops = StopStrings(policy.tokenizer, settings.stop)
    log(named_ends(policy.tokenizer, end_tokens(policy, stops), stops.strings))


def log_unfinished(count: int, others: int, settings: SamplingSettings, log: Callable[[str], None]) -> None:
    """Say in a run's log how many replies have reasoning alone, and what to raise so that they come to an answer."""
    if count:
        log(
            f"warning: {count} of {count + others} replies ended inside their reasoning and are empty; raise "
            f"max_new_tokens (now {settings.max_new_tokens}), which counts the reasoning too"
        )


def banned_tokens(tokenizer: Any, ends: Sequence[int], rows: int) -> list[int]:
    """Special tokens but the ends: a few in a thousand would leak at temperature 1.

    Those beyond the model's ``rows`` tokens cannot be drawn and are left out.
    """
    special = set(tokenizer.all_special_ids)
    special.update(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    return sorted(i for i in special - set(ends) if i < rows)


def _reply(reader: ReplyReader, drawn: Decoded, seed: int) -> Reply:
    said = reader.read(drawn)
    reason = "stop" if drawn.ended else "length"
    return Reply(said.text, reason, said.tokens, seed, drawn.tokens, said.reasoning, said.unfinished)


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
