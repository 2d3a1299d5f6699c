"""The reward trainer on whole rankings: each reply is read once, however many it is compared with.

TRL's trainer with another loss: Plackett-Luce with ties, a margin for strong preferences and room for wrong labels
(``training.preference_losses``). A pair is a ranking of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict

from feedback.errors import NotEnoughData
from feedback.types import Message, PreferencePair
from training.adapters import adapter_config
from training.chat import encode_prompt, encode_reply, window_of
from training.config import RewardSettings
from training.preference_losses import ranking_loss
from training.preflight import tell_preflight
from training.progress import Reporter
from training.trainers import MIN_PAIRS, require_pairs, silenced, trainer_arguments


class Ranked(Protocol):
    """Replies to one conversation with their ranks, 1 for the best."""

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation."""
        ...

    @property
    def replies(self) -> Sequence[str]:
        """The replies, in any order."""
        ...

    @property
    def ranks(self) -> Sequence[int]:
        """Their ranks; equal ones tie."""
        ...

    @property
    def strength(self) -> float:
        """How much better the better ones are, 1 to 3; 0 where nobody said."""
        ...


class TokenRanking(TypedDict):
    """A ranking as token ids, prompts included, the replies with their end; ``length`` is that of the longest."""

    ids: list[list[int]]
    ranks: list[int]
    margin: float
    length: int


class _Pair:
    """A preference pair as a ranking of two."""

    def __init__(self, pair: PreferencePair) -> None:
        self.messages: Sequence[Message] = pair.messages
        self.replies: Sequence[str] = (pair.chosen, pair.rejected)
        self.ranks: Sequence[int] = (1, 2)
        self.strength = pair.margin


def needs_rankings(settings: RewardSettings) -> bool:
    """Whether settings ask for more than the plain pair loss."""
    return settings.rankings or settings.margin > 0 or settings.label_smoothing > 0


def as_rankings(pairs: Sequence[PreferencePair]) -> list[Ranked]:
    """Pairs as rankings of two."""
    return [_Pair(pair) for pair in pairs]


def usable_rankings(
    tokenizer: Any, model: Any, rankings: Sequence[Ranked], settings: RewardSettings, reporter: Reporter
) -> tuple[list[TokenRanking], int]:
    """The rankings as token ids, and how many were too long; refused when fewer than two are left."""
    require_pairs(rankings, f"The dataset {settings.dataset!r}", reporter)
    longest = min(settings.max_length, window_of(model))
    rows = []
    for ranking in rankings:
        prompt = encode_prompt(tokenizer, [{"role": m.role.value, "content": m.content} for m in ranking.messages])
        ids = [prompt + encode_reply(tokenizer, reply) for reply in ranking.replies]
        length = max(map(len, ids))
        if length <= longest:
            margin = settings.margin * ranking.strength
            rows.append(TokenRanking(ids=ids, ranks=list(ranking.ranks), margin=margin, length=length))
    too_long = len(rankings) - len(rows)
    if too_long:
        reporter.log(f"warning: {too_long} of {len(rankings)} rankings are longer than {longest} tokens and left out")
    if len(rows) < MIN_PAIRS:
        raise NotEnoughData(
            f"Of {len(rankings)} rankings {too_long} are longer than {longest} tokens, which leaves {len(rows)}; at "
            f"least {MIN_PAIRS} are needed. Raise max_length (now {settings.max_length})."
        )
    row, sides = max(row["length"] for row in rows), max(len(row["ids"]) for row in rows)
    tell_preflight(
        model, settings, reporter, rows=len(rows), left_out=too_long, longest=row, noun="rankings", sides=sides
    )
    return rows, too_long


def build_ranking_trainer(
    model: Any, tokenizer: Any, rows: Sequence[TokenRanking], settings: RewardSettings, directory: Path
) -> Any:
    """TRL's reward trainer, reading rankings."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    class RankingTrainer(silenced(RewardTrainer, rows, settings.seed)):  # type: ignore[misc]
        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns = ["ids", "ranks", "margin"]

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
            ranks = inputs["ranks"]
            scores = outputs.logits.new_zeros(ranks.shape).masked_scatter(ranks > 0, outputs.logits[:, 0]).float()
            losses = ranking_loss(scores, ranks, inputs["margins"], settings.label_smoothing)
            centre = 2 * scores.sum(1) / (ranks > 0).sum(1)  # for a pair: the sum of its scores
            loss = losses.mean() + settings.centering * (centre**2).mean()
            for name, value in _curves(scores.detach(), ranks).items():
                self._metrics["train"][name].append(value)
            return (loss, outputs) if return_outputs else loss

    arguments = trainer_arguments(settings, model, len(rows), directory)
    return RankingTrainer(
        model=model,
        args=RewardConfig(**arguments, center_rewards_coefficient=None),
        data_collator=_collator(tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([{name: row[name] for name in ("ids", "ranks", "margin")} for row in rows]),
        processing_class=tokenizer,
        peft_config=adapter_config(settings, "SEQ_CLS"),
    )


def _collator(pad: int) -> Any:
    """All replies of all rankings as rows of one batch, in order; ranks (ranking, reply) are 0 where there is none."""
    import torch

    def collate(batch: list[TokenRanking]) -> dict[str, Any]:
        rows = [ids for ranking in batch for ids in ranking["ids"]]
        width, most = max(map(len, rows)), max(len(ranking["ranks"]) for ranking in batch)
        return {
            "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows]),
            "ranks": torch.tensor([one["ranks"] + [0] * (most - len(one["ranks"])) for one in batch]),
            "margins": torch.tensor([one["margin"] for one in batch], dtype=torch.float32),
        }

    return collate


def _curves(scores: Any, ranks: Any) -> dict[str, float]:
    """Over all pairs of replies with different ranks: how often the better scores higher, and by how much."""
    better = (ranks[:, :, None] > 0) & (ranks[:, None, :] > ranks[:, :, None])
    leads = (scores[:, :, None] - scores[:, None, :])[better]
    return {
        "accuracy": (leads > 0).float().mean().item(),
        "margin": leads.mean().item(),
        "mean_reward": scores[ranks > 0].mean().item(),
    }
