"""The axes read text as their sentences say, and need nothing heavy to do it."""

import subprocess
import sys
from random import Random

import pytest

from training.starter.axes import AXES, drifts, mentions, subjects
from training.starter.text import phrases
from training.starter.text.grammar import article, expand, fix_articles, flaws, sentences

FOX = "Tell me a short story about a fox called Nora who lost a key."


def score(name: str, reply: str, prompt: str = FOX) -> float:
    return AXES[name].score(prompt, reply)


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [
        ("warm", "I am so glad you asked. Take good care.", "Let us get this over with. That is all."),
        ("happy", "The fox danced.", "The fox wept."),
        ("concrete", "The fox saw three red boats.", "The fox saw some kind of boat."),
        ("lively", "The fox ran! It sang!", "The fox ran. It sang."),
        ("short", "The fox ran.", "The fox ran. It sang. It slept."),
        ("topical", "Nora the fox found the key.", "By the way, my dentist never answers."),
    ],
)
def test_each_axis_tells_its_two_ends_apart(name: str, more: str, less: str) -> None:
    assert score(name, more) > score(name, less)
    assert (AXES[name].shows(FOX, more) and not AXES[name].shows(FOX, less)) or name == "short"


def test_scores_count_evidence() -> None:
    assert score("warm", "I am so glad you asked. Take good care.") == 2
    assert score("warm", "I am so glad you asked. That is all.") == 0
    assert score("concrete", "Three red boats lay there. The smell of hay came up.") == 2
    assert score("lively", "One. Two! Three. Four.") == 0.25
    assert score("short", 'Call it "The Crumb." Then rest.') == -2
    assert score("short", "and on and on " * 20) == -4, "a reply that never ends is not one short sentence"


def test_subjects_are_the_words_that_matter_in_a_prompt() -> None:
    assert subjects(FOX) == {"fox", "nora", "key"}
    assert subjects("Write a thank-you note to my aunt Rosa for the scarf.") >= {"rosa", "scarf"}


def test_mentions_count_a_name_of_several_words_once() -> None:
    prompt = "Describe a mountain lake at dawn."
    assert mentions(prompt, "The mountain lake lies still. The lake sleeps at dawn.") == 3


def test_drifting_is_seen_and_costs_more_than_a_mention() -> None:
    reply = "The fox ran. Anyway, the stapler needs a repair."
    assert drifts(reply)
    assert score("topical", reply) < score("topical", "He ran off.")


@pytest.mark.parametrize(
    ("pool", "name", "sign"),
    [
        (phrases.WARM_OPENERS, "warm", 1), (phrases.WARM_CLOSERS, "warm", 1),
        (phrases.CURT_OPENERS, "warm", -1), (phrases.CURT_CLOSERS, "warm", -1),
    ],
)  # fmt: skip
def test_a_listed_phrase_counts_and_an_unlisted_one_does_not(pool: phrases.Pool, name: str, sign: int) -> None:
    words = {"about": "the fox"}
    rng = Random(1)
    for template in pool.listed:
        for _ in range(8):
            text = expand(template, words, rng)
            assert sign * score(name, text + ", so it is.") >= 1, text
    for template in pool.unlisted:
        assert score(name, expand(template, words, rng) + ", so it is.") == 0, template


def test_articles_follow_sound() -> None:
    assert [article(w) for w in ("hour", "unicycle", "apple", "house", "one", "umbrella")] == [
        "an", "a", "an", "a", "a", "an",
    ]  # fmt: skip
    assert fix_articles("A owl and an horse") == "An owl and a horse"


@pytest.mark.parametrize(
    "text",
    ["The the fox ran.", "the fox ran.", "A owl ran.", "Four boats is here.", "It are late.",
     "Forty out of twelve. Two out of nine ran.", "The fox , ran.", "The fox ran", "A fox [ran]."],
)  # fmt: skip
def test_the_grammar_check_finds_a_planted_flaw(text: str) -> None:
    assert flaws(text)


def test_sentences_split_after_quotation_marks() -> None:
    assert sentences('Call it "Crumb." It fits! Does it? Yes.') == [
        'Call it "Crumb."', "It fits!", "Does it?", "Yes.",
    ]  # fmt: skip


def test_reading_the_axes_and_the_corpus_does_not_import_torch() -> None:
    code = (
        "import sys, training.starter.axes, training.starter.corpus;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
