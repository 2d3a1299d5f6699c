"""Preference pairs as token rows: which are usable, and how they are batched by length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

from feedback.errors import NotEnoughData
from feedback.types import PreferencePair
from training.data.encoding import Encoder
from training.models.chat import window_of
from training.models.memory_estimate import shares_prompts, tell_preflight
from training.reporting.reporter import Reporter
from training.settings.train import TrainSettings

MIN_PAIRS = 2
FEW_PAIRS = 50


class TokenPair(TypedDict):
    """A preference pair as token ids; ``length`` is that of the longer side. A reply has its end unless it was cut."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    length: int


def pair_tokens(pairs: Sequence[TokenPair], model: Any, settings: TrainSettings) -> list[int]:
    """How many tokens of each pair are computed: its prompt once where the replies share it, else twice."""
    prompts = 1 if shares_prompts(model, settings) else 2
    return [prompts * len(pair["prompt_ids"]) + len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs]


def require_pairs(pairs: Sequence[Any], noun: str, reporter: Reporter) -> None:
    """Refuse what nothing can be learnt from, and say so in the log where little can be."""
    if len(pairs) < MIN_PAIRS:
        raise NotEnoughData(
            f"{noun} has {len(pairs)} pair{'s' * (len(pairs) != 1)} to train on; at least {MIN_PAIRS} are needed "
            f"and {FEW_PAIRS} or more are advised. Judge more pairs and freeze a new dataset."
        )
    if len(pairs) < FEW_PAIRS:
        reporter.log(f"warning: only {len(pairs)} pairs; below about {FEW_PAIRS} a run mostly learns noise")


def encode_pairs(encoder: Encoder, pairs: Sequence[PreferencePair]) -> list[TokenPair]:
    """The pairs as token ids, those that can be trained on."""
    rows = []
    for pair in pairs:
        sides = encoder.encode(pair.messages, [(pair.chosen, pair.chosen_cut), (pair.rejected, pair.rejected_cut)])
        if sides is not None:
            chosen, rejected = sides
            length = len(chosen.prompt) + max(len(chosen.reply), len(rejected.reply))
            row = TokenPair(
                prompt_ids=chosen.prompt, chosen_ids=chosen.reply, rejected_ids=rejected.reply, length=length
            )
            rows.append(row)
    return rows


def usable_pairs(
    tokenizer: Any, model: Any, pairs: Sequence[PreferencePair], settings: TrainSettings, reporter: Reporter
) -> tuple[list[TokenPair], Encoder]:
    """The pairs that can be trained on, and the counts of the others; refused when fewer than two are left."""
    require_pairs(pairs, f"The dataset {settings.dataset!r}", reporter)
    encoder = Encoder(tokenizer, min(settings.max_length, window_of(model)))
    encoded = encode_pairs(encoder, pairs)
    encoder.report(reporter, "pairs", len(pairs))
    if len(encoded) < MIN_PAIRS:
        raise NotEnoughData(
            f"Of {len(pairs)} pairs {encoder.left_why}, which leaves {len(encoded)}; at least {MIN_PAIRS} are needed. "
            f"Raise max_length (now {settings.max_length}) or choose a model that reads more."
        )
    tell_preflight(
        model,
        settings,
        reporter,
        rows=len(encoded),
        left_out=encoder.left_out,
        longest=max(pair["length"] for pair in encoded),
        tokens=max(pair_tokens(encoded, model, settings)),
    )
    return encoded, encoder


def prompt_groups(encoded: Sequence[Any]) -> list[list[int]]:
    """The indices of rows of the same ``group``, in the order of the first; a row without one is by itself."""
    groups: dict[Any, list[int]] = {}
    for number, row in enumerate(encoded):
        groups.setdefault(row.get("group", ("row", number)), []).append(number)
    return list(groups.values())


class LikeLengths:
    """The order of an epoch: shuffled, then pairs of like length put into one batch, which saves a third of padding.

    Only four batches at a time are sorted and their order is shuffled again, so that chance still decides most. The
    order depends on the batch, the seed and the epoch alone: a resumed run meets the pairs it had not seen, and any
    number of processes or micro batches meet the same pairs in each step.

    Rows of one of the ``groups`` follow each other, so that a prompt they share is computed once; left out, each row
    is by itself.
    """

    BATCHES = 4

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, groups: Sequence[Sequence[int]] | None = None
    ) -> None:
        self.groups = groups or [[row] for row in range(len(lengths))]
        self.longest = {row: max(lengths[one] for one in group) for group in self.groups for row in group}
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.longest)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed}:{self.epoch}")
        shuffled = list(self.groups)
        rng.shuffle(shuffled)
        order = [row for group in shuffled for row in group]
        span = self.BATCHES * self.batch_size
        for start in range(0, len(order), span):
            rows = sorted(order[start : start + span], key=self.longest.__getitem__)
            batches = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
            last = [batches.pop()] if len(batches[-1]) < self.batch_size else []  # a short one must stay the last
            rng.shuffle(batches)
            for batch in batches + last:
                yield from batch
