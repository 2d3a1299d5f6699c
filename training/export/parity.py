"""Does an export say what the policy says? Greedy replies of both, and the likeliest tokens along them.

Replies are drawn in fp32 with the studio's own decoding loop; the export is loaded by plain ``transformers``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.errors import CheckpointError, InvalidInput
from feedback.types import SamplingSettings, Split
from training.checkpoints.probe import PROBES
from training.models.chat import Messages, encode_prompt
from training.models.chat_template import fix_template_date, rendered_ids

if TYPE_CHECKING:
    from feedback.database.engine import Database
    from training.models.loading import LoadedPolicy

NEW_TOKENS = 48
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=NEW_TOKENS)


@dataclass(frozen=True)
class GreedyReply:
    """A conversation, its token ids, and the ids of the policy's greedy reply, the end token included."""

    messages: Messages
    prompt: tuple[int, ...]
    reply: tuple[int, ...]


def choose_prompts(db: Database, policy: LoadedPolicy, count: int) -> list[Messages]:
    """The conversations to compare on: held-out prompts of the home, then others, then fixed ones.

    Prompts that spell a control token are left out: plain ``transformers`` encodes those in another way.
    """
    from feedback.store.content.prompts import list_prompts
    from training.generation.sampling import fitting

    rows = [row for split in (Split.evaluation, Split.work) for row in list_prompts(db, split=split, limit=2 * count)]
    asked: list[Messages] = [row.messages for row in rows]
    asked += [[{"role": "user", "content": ask}] for ask, _ in PROBES]
    plain = [one for one in fitting(policy, asked, GREEDY) if _is_plain(policy.tokenizer, one)]
    if not plain:
        raise InvalidInput(
            f"None of the home's prompts fits the model's window with {NEW_TOKENS} tokens for a reply, so nothing can "
            "be compared. Import shorter ones: `studio prompts import FILE`."
        )
    return plain[:count]


def greedy_replies(policy: LoadedPolicy, prompts: Sequence[Messages]) -> list[GreedyReply]:
    """The policy's own greedy replies of at most ``NEW_TOKENS`` tokens."""
    from training.generation.sampling import sample

    drawn = sample(policy, prompts, 1, GREEDY)
    encoded = [tuple(encode_prompt(policy.tokenizer, messages)) for messages in prompts]
    return [
        GreedyReply(messages, ids, replies[0].token_ids)
        for messages, ids, replies in zip(prompts, encoded, drawn, strict=True)
    ]


def load_plain(directory: Path, **named: Any) -> Any:
    """The model in a directory as plain ``transformers`` loads it, in fp32 on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    from training.models.loading import quiet_loading

    # Reading GGUF, transformers draws a bar that its own setting does not switch off
    with quiet_loading(), contextlib.redirect_stderr(io.StringIO()):
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(directory), dtype=torch.float32, local_files_only=True, **named
        )
    return model.eval()


def check_tokenizer(directory: Path, replies: Sequence[GreedyReply]) -> None:
    """Raise CheckpointError unless the exported tokenizer and template give each prompt the same ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    fix_template_date(tokenizer)
    for one in replies:
        if tuple(rendered_ids(tokenizer, one.messages, generation_prompt=True)) != one.prompt:
            raise CheckpointError(
                f"The exported tokenizer encodes the prompt {_short(one.messages)} otherwise than the studio does. "
                "Nothing was exported."
            )


def check_replies(
    model: Any, replies: Sequence[GreedyReply], tokenizer: Any, *, ends: list[int], banned: list[int]
) -> None:
    """Raise CheckpointError unless the model's greedy replies are those of the policy, token by token.

    The tokens that the studio never draws (``banned``: control tokens but the ends) are not drawn here either.
    """
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0],
        suppress_tokens=banned or None,
    )
    for one in replies:
        with torch.inference_mode():
            ids = torch.tensor([one.prompt])
            drawn = model.generate(ids, attention_mask=torch.ones_like(ids))[0, len(one.prompt) :].tolist()
        if tuple(drawn) != one.reply:
            same = next((i for i, pair in enumerate(zip(drawn, one.reply, strict=False)) if len(set(pair)) > 1), 0)
            raise CheckpointError(
                f"The exported model does not reply as the policy does: to {_short(one.messages)} its greedy reply "
                f"differs from token {same + 1} on, {tokenizer.decode(drawn)[:80]!r} instead of "
                f"{tokenizer.decode(list(one.reply))[:80]!r}. Nothing was exported; `--as adapter` exports the adapter "
                "as it is."
            )


def agreement(model: Any, replies: Sequence[GreedyReply], *, banned: list[int]) -> tuple[int, int]:
    """How many tokens of the policy's replies are the model's likeliest one at their place, and of how many.

    The model reads the policy's own reply up to each place (teacher forcing), so one difference counts once.
    """
    import torch

    same = total = 0
    for one in replies:
        with torch.no_grad():
            logits = model(torch.tensor([one.prompt + one.reply])).logits[0, len(one.prompt) - 1 : -1]
        logits[:, banned] = -torch.inf
        same += int((logits.argmax(-1) == torch.tensor(one.reply)).sum())
        total += len(one.reply)
    return same, total


def _is_plain(tokenizer: Any, messages: Messages) -> bool:
    return rendered_ids(tokenizer, messages, generation_prompt=True) == encode_prompt(tokenizer, messages)


def _short(messages: Messages) -> str:
    return repr(messages[-1]["content"][:60])
