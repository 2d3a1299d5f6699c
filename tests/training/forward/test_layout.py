"""Which tokens of a batch are computed, and which prefixes are shared."""

from __future__ import annotations

import random

import pytest
import torch

from training.forward.layout import Group, group_rows, lay_out


def batch(rows: list[list[int]], *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows padded with 7, which is a token of the rows too, and their mask."""
    width = max(map(len, rows))
    ids = [[7] * (width - len(row)) + row if left else row + [7] * (width - len(row)) for row in rows]
    mask = [[0] * (width - len(r)) + [1] * len(r) if left else [1] * len(r) + [0] * (width - len(r)) for r in rows]
    return torch.tensor(ids), torch.tensor(mask)


def prompted(seed: int, groups: int, replies: int) -> list[list[int]]:
    """Rows that begin with one of so many prompts, in a random order."""
    rng = random.Random(seed)
    rows = []
    for _ in range(groups):
        prompt = [rng.randrange(50) for _ in range(rng.randrange(4, 30))]
        rows += [prompt + [rng.randrange(50) for _ in range(rng.randrange(1, 12))] for _ in range(replies)]
    rng.shuffle(rows)
    return rows


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_every_token_finds_its_own_place(seed: int, left: bool) -> None:
    rows = prompted(seed, groups=1 + seed % 4, replies=1 + seed % 3)
    ids, mask = batch(rows, left=left)
    layout = lay_out(ids, mask)
    packed = ids.flatten()[layout.source]
    assert len(packed) <= int(mask.sum())
    for row, tokens in enumerate(rows):
        places = layout.places[row][mask[row].bool()]
        assert packed[places].tolist() == tokens
        assert layout.positions[places].tolist() == list(range(len(tokens)))
        assert set(layout.places[row][~mask[row].bool()].tolist()) <= {len(packed)}


@pytest.mark.parametrize("seed", range(8))
def test_blocks_hold_every_token_once_and_lead_back(seed: int) -> None:
    layout = lay_out(*batch(prompted(seed, groups=3, replies=2)))
    blocks = torch.cat([layout.prefixes.flatten(), layout.suffixes.flatten()])
    assert blocks[layout.back].tolist() == list(range(len(layout.source)))


def test_a_pair_computes_its_prompt_once() -> None:
    prompt = list(range(10, 30))
    ids, mask = batch([[*prompt, 1, 2, 3], [*prompt, 4]])
    layout = lay_out(ids, mask)
    assert len(layout.source) == 20 + 3 + 1
    assert layout.shared.tolist() == [20, 20] and layout.prefix_lengths.tolist() == [20]
    assert len(lay_out(ids, mask, share=False).source) == 23 + 21


def test_a_prefix_is_never_a_whole_row() -> None:
    row = list(range(20))
    assert group_rows([row, row]) == [Group((0, 1), 19)]
    assert group_rows([row, [*row, 20]]) == [Group((0, 1), 19)]


def test_groups_are_those_that_save_most() -> None:
    system, one, two = list(range(10)), list(range(100, 140)), list(range(200, 240))
    rows = [[*system, *one, 1], [*system, *one, 2], [*system, *two, 3], [*system, *two, 4]]
    # Two groups of 50 save 100 tokens; one of all four would save 3 times the 10 of the system message
    assert {(group.rows, group.shared) for group in group_rows(rows)} == {((0, 1), 50), ((2, 3), 50)}
    alone = [[*system, number] for number in range(1, 5)]
    assert group_rows(alone) == [Group((0, 1, 2, 3), 10)]


def test_short_prefixes_are_not_shared() -> None:
    assert group_rows([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6]]) == []


def best_by_hand(rows: list[list[int]], least: int) -> int:
    """The most tokens that any cut of the sorted rows into groups saves, by trying all of them."""
    rows = sorted(rows)
    best = 0
    for cuts in range(1 << (len(rows) - 1)):
        saved, begin = 0, 0
        for end in range(1, len(rows) + 1):
            if end < len(rows) and not cuts >> (end - 1) & 1:
                continue
            group = rows[begin:end]
            shared = min(len(row) - 1 for row in group)
            while any(row[:shared] != group[0][:shared] for row in group):
                shared -= 1
            saved += shared * (len(group) - 1) if shared >= least else 0
            begin = end
        best = max(best, saved)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_no_other_grouping_saves_more(seed: int) -> None:
    rng = random.Random(seed)
    rows = [[rng.randrange(2) for _ in range(rng.randrange(1, 9))] for _ in range(7)]
    found = group_rows(rows, least=2)
    assert sum(group.shared * (len(group.rows) - 1) for group in found) == best_by_hand(rows, 2)
    assert len({row for group in found for row in group.rows}) == sum(len(group.rows) for group in found)
    for group in found:
        assert len({tuple(rows[row][: group.shared]) for row in group.rows}) == 1


@pytest.mark.parametrize("window", [None, 3, 100])
def test_masks_show_what_a_row_alone_would_see(window: int | None) -> None:
    prompt = list(range(10, 22))
    layout = lay_out(*batch([[*prompt, 1, 2, 3], [*prompt, 4], [5, 6]]))
    seen = layout.suffix_mask(window)[:, 0]
    shared = layout.prefixes.shape[1]
    for row in range(3):
        begin = int(layout.shared[row])
        for own in range(int(layout.suffix_lengths[row])):
            at = begin + own
            visible = [place for place in range(at + 1) if window is None or at - place < window]
            keys = [key for key in seen[row, own].nonzero().flatten().tolist()]
            assert [key if key < shared else key - shared + begin for key in keys] == visible
    mask = layout.prefix_mask(window)
    assert (mask is None) == (window in (None, 100))
    if mask is not None:
        assert mask[5].nonzero().flatten().tolist() == [3, 4, 5]


def test_rows_of_uneven_length_are_attended_one_by_one() -> None:
    even = [[group] * 400 + [60 + group, 61] for group in range(4)]
    uneven = [[0] * 400 + [60, 61], *[[group, 61] for group in range(1, 4)]]
    assert lay_out(*batch(uneven)).pays_by_row(1024)
    assert not lay_out(*batch(uneven)).pays_by_row(1)
    assert not lay_out(*batch(even)).pays_by_row(1024)


def test_a_segment_sees_its_prefix_and_itself_within_the_window() -> None:
    prefix = list(range(10, 20))
    layout = lay_out(*batch([[*prefix, 1, 2], [*prefix, 3]]))
    assert layout.segment_lengths == [10, 2, 1]
    assert layout.prefix_of == [None, 0, 0]
    assert (layout.segment_mask(1, None) == 0).tolist() == [[True] * 11 + [False], [True] * 12]
    assert (layout.segment_mask(1, 3) == 0).tolist() == [[False] * 8 + [True] * 3 + [False], [False] * 9 + [True] * 3]
