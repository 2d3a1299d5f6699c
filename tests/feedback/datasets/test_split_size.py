"""A small test side is told in words before anything is measured on it."""

from __future__ import annotations

from feedback.datasets.split_size import few_pairs_note, split_notes


def test_a_split_far_from_what_was_asked_and_too_small_is_told() -> None:
    asked, few = split_notes({"pairs": 72, "train": 70, "test": 2}, 0.1)
    assert "asked 10 %, got 3 % (2 of 72 pairs)" in asked
    assert "Only 2 pairs are kept for testing" in few and "fewer than 30" in few
    assert "split seed" in few and "larger test share" in few
    [one] = split_notes({"pairs": 10, "train": 9, "test": 1}, 0.1)
    assert "Only 1 pair is kept" in one


def test_a_split_as_it_should_be_needs_no_word() -> None:
    assert split_notes({"pairs": 400, "train": 360, "test": 40}, 0.1) == []
    assert split_notes({"pairs": 0, "train": 0, "test": 0}, 0.1) == []


def test_a_side_without_pairs_is_told() -> None:
    assert "cannot be measured" in split_notes({"pairs": 9, "train": 9, "test": 0}, 0.0)[0]
    assert any("train on" in note for note in split_notes({"pairs": 2, "train": 0, "test": 2}, 0.5))


def test_an_accuracy_on_few_pairs_says_so() -> None:
    assert few_pairs_note(2) == "measured on 2 test pairs only: fewer than 30 say little"
    assert few_pairs_note(30) == ""
