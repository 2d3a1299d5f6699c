"""The corpus is clean, repeatable, and varies on each axis by itself."""

from collections import Counter
from itertools import combinations
from statistics import correlation, median

import pytest

from training.starter.axes import AXES, mentions, subjects
from training.starter.corpus import WORD_LIMIT, Example, examples, held_out, length, requests
from training.starter.families import FAMILIES
from training.starter.measure import detectors
from training.starter.text import phrases
from training.starter.text.grammar import flaws, sentences


@pytest.fixture(scope="module")
def corpus() -> list[Example]:
    return list(examples(21, 3500))


@pytest.fixture(scope="module")
def scores(corpus: list[Example]) -> dict[str, list[float]]:
    return {name: [axis.score(one.prompt, one.reply) for one in corpus] for name, axis in AXES.items()}


def test_replies_have_no_flaw_the_grammar_check_knows(corpus: list[Example]) -> None:
    found = [(flaw, one.reply) for one in corpus for flaw in flaws(one.reply)]
    assert len(found) <= len(corpus) // 500, found[:5]


def test_prompts_are_clean_too() -> None:
    found = [(flaw, d.prompt) for d in requests(3, 1400, evaluation=False) for flaw in flaws(d.prompt)]
    assert not found, found[:5]


def test_nothing_is_left_of_the_templates(corpus: list[Example]) -> None:
    assert not [one for one in corpus if set("{}[]|_") & set(one.prompt + one.reply)]


def test_replies_are_short_enough_to_end_by_themselves(corpus: list[Example]) -> None:
    sizes = [length(one.reply) for one in corpus]
    assert max(sizes) <= WORD_LIMIT
    assert 30 <= median(sizes) <= 60


def test_the_same_seed_gives_the_same_corpus_and_another_seed_another() -> None:
    first, again, other = (list(examples(seed, 60)) for seed in (4, 4, 5))
    assert first == again
    assert first != other


def test_a_shorter_corpus_is_the_beginning_of_a_longer_one() -> None:
    assert list(examples(4, 20)) == list(examples(4, 60))[:20]


def test_families_are_balanced(corpus: list[Example]) -> None:
    counts = Counter(one.family for one in corpus)
    counts.pop("hello")
    assert set(counts) == set(FAMILIES)
    assert max(counts.values()) < 1.15 * min(counts.values())


def test_held_out_requests_never_reach_the_training_corpus(corpus: list[Example]) -> None:
    evaluation = list(requests(5, 210, evaluation=True))
    assert all(held_out(draft) for draft in evaluation)
    assert not {draft.prompt for draft in evaluation} & {one.prompt for one in corpus}


def test_replies_differ_even_to_one_prompt(corpus: list[Example]) -> None:
    assert len({one.reply for one in corpus}) > 0.999 * len(corpus)


def test_fewer_than_half_of_fresh_sentences_stand_in_the_corpus(corpus: list[Example]) -> None:
    known = {part for one in corpus for part in sentences(one.reply)}
    fresh = [part for one in examples(22, 700) for part in sentences(one.reply)]
    assert sum(part in known for part in fresh) < 0.4 * len(fresh)


def test_most_replies_name_the_person_and_the_thing(corpus: list[Example]) -> None:
    named = [one for one in corpus if one.person]
    assert sum(str(one.person) in one.reply for one in named) > 0.9 * len(named)
    asked = [one for one in corpus if subjects(one.prompt) and one.family != "hello"]
    assert sum(mentions(one.prompt, one.reply) > 0 for one in asked) > 0.97 * len(asked)


@pytest.mark.parametrize("pair", list(combinations(AXES, 2)), ids="-".join)
def test_axes_vary_independently(scores: dict[str, list[float]], pair: tuple[str, str]) -> None:
    # A vague reply sometimes says so in a sentence of its own, hence a little more for concrete and short.
    limit = 0.25 if pair == ("concrete", "short") else 0.15
    assert abs(correlation(scores[pair[0]], scores[pair[1]])) < limit


@pytest.mark.parametrize("name", AXES)
def test_each_axis_has_room_both_ways_and_few_ties(
    scores: dict[str, list[float]], name: str, corpus: list[Example]
) -> None:
    shown = sum(AXES[name].shows(one.prompt, one.reply) for one in corpus) / len(corpus)
    counts = Counter(scores[name])
    tied = sum((n / len(corpus)) ** 2 for n in counts.values())
    assert 0.2 <= shown <= 0.8
    assert tied < 0.3
    assert counts[max(counts)] < 0.4 * len(corpus)


def test_detectors_agree_with_the_author() -> None:
    for name, figures in detectors(2100).items():
        assert figures["precision"] > 0.93, (name, figures)
        assert figures["recall"] > 0.8, (name, figures)


def test_reserved_phrases_are_in_neither_corpus_nor_detectors(corpus: list[Example]) -> None:
    everything = " ".join(one.reply for one in corpus)
    for group in phrases.RESERVED.values():
        for phrase in group:
            assert phrase.rstrip(".") not in everything
            assert all(AXES[name].score("Hello.", phrase) == 0 for name in ("warm", "happy"))
