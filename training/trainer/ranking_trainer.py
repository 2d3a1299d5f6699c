"""The reward trainer on whole rankings: each reply is read once, however many it is compared with.

TRL's trainer with another loss: Plackett-Luce with ties, a margin for strong preferences and room for wrong labels
(``training.trainer.losses``). A pair is a ranking of two, and so are two replies called equally good: they are
pulled to one score, which tells as much about a taste as a preference does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict

from feedback.errors import NotEnoughData
from feedback.types import Message, PreferencePair
from training.adapters.build import adapter_config
from training.data.encoding import Encoder
from training.data.pairs import MIN_PAIRS, require_pairs
from training.forward.trainer_forward import TrainerForward
from training.models.chat import window_of
from training.models.classifiers import head_of
from training.models.memory_estimate import tell_preflight
from training.reporting.reporter import Reporter
from training.settings.reward import RewardSettings
from training.trainer.arguments import trainer_arguments
from training.trainer.dropout import disable_dropout
from training.trainer.losses import ranking_loss
from training.trainer.subclasses import silenced

COLUMNS = ("ids", "ranks", "margin", "weight")


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

    @property
    def weight(self) -> float:
        """How much it counts; 1 is usual."""
        ...

    @property
    def cut(self) -> Sequence[bool]:
        """Which replies were cut at their length limit and have no end; empty where none was."""
        ...


class TokenRanking(TypedDict):
    """A ranking as token ids, prompts included; ``length`` is that of the longest.

    A reply has its end unless it was cut.
    """

    ids: list[list[int]]
    ranks: list[int]
    margin: float
    weight: float
    length: int


class _Pair:
    """A preference pair as a ranking of two."""

    def __init__(self, pair: PreferencePair) -> None:
        self.messages: Sequence[Message] = pair.messages
        self.replies: Sequence[str] = (pair.chosen, pair.rejected)
        self.ranks: Sequence[int] = (1, 2)
        self.strength = pair.margin
        self.weight = pair.weight
        self.cut: Sequence[bool] = (pair.chosen_cut, pair.rejected_cut)


def as_rankings(pairs: Sequence[PreferencePair]) -> list[Ranked]:
    """Pairs as rankings of two."""
    return [_Pair(pair) for pair in pairs]


def is_decisive(ranks: Sequence[int]) -> bool:
    """Whether some reply stands above another."""
    return len(set(ranks)) > 1


def usable_rankings(
    tokenizer: Any, model: Any, rankings: Sequence[Ranked], settings: RewardSettings, reporter: Reporter
) -> tuple[list[TokenRanking], Encoder]:
    """The rankings as token ids, and the counts of the others; refused when fewer than two decisive ones are left.

    Weights come out with a mean of 1 over the decisive ones, which keeps the learning rate what it is.
    """
    decisive = [ranking for ranking in rankings if is_decisive(ranking.ranks)]
    require_pairs(decisive, f"The dataset {settings.dataset!r}", reporter)
    encoder = Encoder(tokenizer, min(settings.max_length, window_of(model)))
    usual = sum(ranking.weight for ranking in decisive) / len(decisive)
    rows = []
    for ranking in rankings:
        cut = ranking.cut or (False,) * len(ranking.replies)
        exchanges = encoder.encode(ranking.messages, list(zip(ranking.replies, cut, strict=True)))
        if exchanges is not None:
            ids = [exchange.ids for exchange in exchanges]
            margin = settings.margin * ranking.strength
            # Efron's loss of a tie of two is twice the cross-entropy with a half, so half of it counts
            weight = ranking.weight / usual if is_decisive(ranking.ranks) else settings.ties / 2
            length = max(map(len, ids))
            row = TokenRanking(ids=ids, ranks=list(ranking.ranks), margin=margin, weight=weight, length=length)
            rows.append(row)
    encoder.report(reporter, "rankings", len(rankings))
    left = sum(is_decisive(row["ranks"]) for row in rows)
    if left < MIN_PAIRS:
        raise NotEnoughData(
            f"Of {len(rankings)} rankings {encoder.left_why}, which leaves {left} that put a reply above another; "
            f"at least {MIN_PAIRS} are needed. Raise max_length (now {settings.max_length})."
        )
    tell_preflight(
        model,
        settings,
        reporter,
        rows=len(rows),
        left_out=encoder.left_out,
        longest=max(row["length"] for row in rows),
        tokens=max(map(_tokens, rows)),
        noun="rankings",
    )
    return rows, encoder


def _tokens(row: TokenRanking) -> int:
    return sum(map(len, row["ids"]))


def build_ranking_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[TokenRanking],
    settings: RewardSettings,
    directory: Path,
    reporter: Reporter,
) -> Any:
    """TRL's reward trainer, reading rankings."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    trainer: Any = RewardTrainer

    class RankingTrainer(trainer):  # type: ignore[misc]
        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns = list(COLUMNS)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
            ranks = inputs["ranks"]
            scores = outputs.logits.new_zeros(ranks.shape).masked_scatter(ranks > 0, outputs.logits[:, 0]).float()
            losses = ranking_loss(scores, ranks, inputs["margins"], settings.label_smoothing)
            centre = 2 * scores.sum(1) / (ranks > 0).sum(1)  # for a pair: the sum of its scores
            loss = (inputs["weights"] * losses).mean() + settings.centering * (centre**2).mean()
            for name, value in _curves(*_side_by_side(self, scores.detach(), ranks)).items():
                self._metrics["train"][name].append(value)
            return (loss, outputs) if return_outputs else loss

    forward = TrainerForward.for_run(settings, model, reporter, head_of)
    arguments = trainer_arguments(settings, model, list(map(_tokens, rows)), directory, forward.precision)
    disable_dropout(model)
    return silenced(RankingTrainer, rows, settings.seed, forward)(
        model=model,
        args=RewardConfig(**arguments, center_rewards_coefficient=None),
        data_collator=_collator(tokenizer.pad_token_id),
        train_dataset=Dataset.from_list(
            [{name: value for name, value in row.items() if name in COLUMNS} for row in rows]
        ),
        processing_class=tokenizer,
        peft_config=adapter_config(settings, "SEQ_CLS", model),
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
            "weights": torch.tensor([one["weight"] for one in batch], dtype=torch.float32),
        }

    return collate


def _side_by_side(trainer: Any, scores: Any, ranks: Any) -> tuple[Any, Any]:
    """Scores and ranks (ranking, reply) of all processes, made equally wide with ranks of 0."""
    import torch

    if trainer.accelerator.num_processes == 1:
        return scores, ranks
    width = int(trainer.gathered(torch.tensor([ranks.shape[1]], device=ranks.device)).max())
    wide = (0, max(0, width - ranks.shape[1]))
    both = (torch.nn.functional.pad(one, wide)[:, :width] for one in (scores, ranks))
    return tuple(trainer.gathered(one) for one in both)  # type: ignore[return-value]


def _curves(scores: Any, ranks: Any) -> dict[str, float]:
    """Over all pairs of replies with different ranks: how often the better scores higher, and by how much."""
    better = (ranks[:, :, None] > 0) & (ranks[:, None, :] > ranks[:, :, None])
    leads = (scores[:, :, None] - scores[:, None, :])[better]
    known = {"mean_reward": scores[ranks > 0].mean().item()}
    if len(leads):  # a batch may hold nothing but ties
        known |= {"accuracy": (leads > 0).float().mean().item(), "margin": leads.mean().item()}
    return known
