"""Which tokens of a padded batch are computed: no padding, and a prefix that rows share once.

A batch (B, T) becomes one packed row of N tokens. Rows that begin alike, as the two replies of a pair do, form a group:
the packed row holds their common prefix once, and attention sees it from each of them. Everything but attention works
on single tokens and needs no change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

LEAST_SHARED = 8  # tokens; a shorter prefix saves less than its own block of attention costs
CALL_COST = 800_000  # scores times width that a CPU computes in the time that one more call of attention takes


@dataclass(frozen=True)
class Group:
    """Rows whose first ``shared`` tokens are the same."""

    rows: tuple[int, ...]
    shared: int


@dataclass(frozen=True)
class Layout:
    """Where the N packed tokens lie in a batch (B, T), and the blocks that attention works on.

    ``source`` (N,) are places in the flattened batch, ``positions`` (N,) the tokens' positions in their rows.
    ``places`` (B, T) are places in the packed row, N where the batch is padded. ``prefixes`` (G, P) and ``suffixes``
    (B, S) are places in the packed row, padded on the right with 0, with the lengths ``prefix_lengths`` (G,) and
    ``suffix_lengths`` (B,). ``group_of`` (B,) is each row's prefix, 0 for a row without one, whose ``shared`` (B,),
    the length of its prefix, is 0. G and P are 0 where no rows share a prefix. ``windows`` are noted by the attention:
    how far its layers let a token see.
    """

    source: Tensor
    positions: Tensor
    places: Tensor
    prefixes: Tensor
    suffixes: Tensor
    prefix_lengths: Tensor
    suffix_lengths: Tensor
    group_of: Tensor
    shared: Tensor
    windows: set[int | None] = field(default_factory=set)
    _masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict)

    @property
    def shares(self) -> bool:
        """Whether any rows share a prefix."""
        return self.prefixes.numel() > 0

    @cached_property
    def padded(self) -> bool:
        """Whether the packed row leaves out any token of the batch."""
        return len(self.source) < self.places.numel()

    @cached_property
    def back(self) -> Tensor:
        """For each packed token its place (N,) in prefixes and suffixes, flattened and one after the other."""
        kept = torch.cat([_real(self.prefixes, self.prefix_lengths), _real(self.suffixes, self.suffix_lengths)])
        blocks = torch.cat([self.prefixes.flatten(), self.suffixes.flatten()])
        where = torch.empty_like(self.source)
        where[blocks[kept]] = kept.nonzero().squeeze(1)
        return where

    @cached_property
    def segment_lengths(self) -> list[int]:
        """The lengths of the segments of the packed row: all prefixes, then all suffixes."""
        return [*self.prefix_lengths.tolist(), *self.suffix_lengths.tolist()]

    @cached_property
    def prefix_of(self) -> list[int | None]:
        """For each segment the segment of its prefix, None for a prefix and for a row without one."""
        pairs = zip(self.group_of.tolist(), self.shared.tolist(), strict=True)
        return [*[None] * len(self.prefix_lengths), *[group if shared else None for group, shared in pairs]]

    def pays_by_row(self, width: int) -> bool:
        """Whether a call of attention for each segment costs less than the padding of two calls for all of them.

        ``width`` are the numbers of one token's query, all heads together.
        """
        return self._padded_scores * width > CALL_COST * (len(self.segment_lengths) - 2)

    @cached_property
    def _padded_scores(self) -> int:
        """How many scores of queries and keys two calls would compute for padding alone."""
        groups, longest = self.prefixes.shape
        padded = groups * longest**2 // 2 + self.suffixes.numel() * (longest + self.suffixes.shape[1])
        lengths = self.segment_lengths
        seen = [0 if before is None else lengths[before] for before in self.prefix_of]
        real = sum(length**2 // 2 for length in lengths[:groups])
        real += sum(own * (own + prefix) for own, prefix in zip(lengths[groups:], seen[groups:], strict=True))
        return padded - real

    def segment_mask(self, segment: int, window: int | None) -> Tensor:
        """What is added to the scores (S, P + S) of a segment that has a prefix or is longer than the window.

        0 where a token is seen and minus infinity where it is not; P is 0 without a prefix.
        """
        if (segment, window) not in self._masks:
            before, own = self.prefix_of[segment], self.segment_lengths[segment]
            prefix = 0 if before is None else self.segment_lengths[before]
            keys = torch.arange(prefix + own, device=self.source.device)
            seen = _seen(keys[prefix:, None] - keys, window)
            self._masks[segment, window] = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)
        return self._masks[segment, window]

    def prefix_mask(self, window: int | None) -> Tensor | None:
        """What the tokens of a prefix see of it: (P, P), or None for all that went before."""
        if window is None or window >= self.prefixes.shape[1]:
            return None
        place = torch.arange(self.prefixes.shape[1], device=self.prefixes.device)
        return _seen(place[:, None] - place, window)

    def suffix_mask(self, window: int | None) -> Tensor:
        """What the tokens of a suffix see of the row's prefix and of the suffix itself: (B, 1, S, P + S)."""
        own = torch.arange(self.suffixes.shape[1], device=self.suffixes.device)
        before = torch.arange(self.prefixes.shape[1], device=self.suffixes.device)
        position = self.shared[:, None] + own  # (B, S), of the queries and of the suffix's keys
        keys = torch.cat([before.expand(len(position), -1), position], 1)
        seen = _seen(position[:, :, None] - keys[:, None, :], window)
        seen[:, :, : len(before)] &= (before < self.shared[:, None])[:, None, :]
        return seen[:, None]


def lay_out(ids: Tensor, mask: Tensor, *, share: bool = True) -> Layout:
    """The layout of a batch of token ids (B, T) whose real tokens have a 1 in the ``mask`` (B, T).

    ``share`` off, every row stands for itself: for inputs that differ although their tokens are the same.
    """
    real, device = mask.bool().cpu(), ids.device
    flat = torch.arange(ids.numel()).view(ids.shape)
    where = [flat[row][real[row]] for row in range(len(ids))]
    rows = [own.tolist() for own in torch.split(ids.cpu()[real], [len(own) for own in where])]
    groups = group_rows(rows) if share else []
    shared, group_of = [0] * len(rows), [0] * len(rows)
    for number, group in enumerate(groups):
        for row in group.rows:
            shared[row], group_of[row] = group.shared, number
    source: list[Tensor] = []
    prefixes, suffixes = [], []
    used = 0
    for group in groups:
        source.append(where[group.rows[0]][: group.shared])
        prefixes.append(torch.arange(used, used + group.shared))
        used += group.shared
    for own, begin in zip(where, shared, strict=True):
        source.append(own[begin:])
        suffixes.append(torch.arange(used, used + len(own) - begin))
        used += len(own) - begin
    places = torch.full((ids.numel(),), used)
    for row, own in enumerate(where):
        both = [prefixes[group_of[row]]] if shared[row] else []
        places[own] = torch.cat([*both, suffixes[row]])
    positions = [torch.arange(group.shared) for group in groups]
    positions += [torch.arange(begin, len(own)) for own, begin in zip(where, shared, strict=True)]
    found = (
        torch.cat(source),
        torch.cat(positions),
        places.view(ids.shape),
        _block(prefixes),
        _block(suffixes),
        torch.tensor([len(own) for own in prefixes], dtype=torch.long),
        torch.tensor([len(own) for own in suffixes], dtype=torch.long),
        torch.tensor(group_of),
        torch.tensor(shared),
    )
    return Layout(*[one.to(device) for one in found])  # type: ignore[arg-type]


def group_rows(rows: Sequence[Sequence[int]], least: int = LEAST_SHARED) -> list[Group]:
    """The groups of rows that save most tokens, when each computes its common prefix once; each row in one at most.

    Sorted, rows that begin alike are neighbors; among the ways to cut the sorted rows into groups the best is found by
    dynamic programming. A prefix is never a whole row.
    """
    order = sorted(range(len(rows)), key=lambda row: list(rows[row]))
    alike = [_alike(rows[one], rows[two]) for one, two in pairwise(order)]
    saved, begins = [0] * (len(order) + 1), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        saved[end], begins[end] = saved[end - 1], end - 1
        shortest, shared = len(rows[order[end - 1]]), 1 << 62
        for begin in range(end - 2, -1, -1):
            shared = min(shared, alike[begin])
            shortest = min(shortest, len(rows[order[begin]]))
            usable = min(shared, shortest - 1)
            if usable < least:
                break
            worth = saved[begin] + usable * (end - begin - 1)
            if worth > saved[end]:
                saved[end], begins[end] = worth, begin
    groups, end = [], len(order)
    while end:
        begin = begins[end]
        if end - begin > 1:
            members = order[begin:end]
            shared = min(min(alike[begin : end - 1]), min(len(rows[row]) for row in members) - 1)
            groups.append(Group(tuple(sorted(members)), shared))
        end = begin
    return groups


def _alike(one: Sequence[int], two: Sequence[int]) -> int:
    """How many tokens two rows begin alike with."""
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _block(rows: Sequence[Tensor]) -> Tensor:
    if not rows:
        return torch.zeros(0, 0, dtype=torch.long)
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _real(block: Tensor, lengths: Tensor) -> Tensor:
    """Which places of a flattened block are not padding."""
    return (torch.arange(block.shape[1], device=block.device) < lengths[:, None]).flatten()


def _seen(distance: Tensor, window: int | None) -> Tensor:
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)
