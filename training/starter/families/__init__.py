"""The seven kinds of request the starter understands, one module each, and small talk.

A family offers ``draw(rng) -> Draft``: a request in one of its phrasings, and the sentences that
may answer it.
"""

from collections.abc import Callable
from random import Random

from training.starter.families import advice, explain, hello, naming, places, story, thanks, wishes
from training.starter.text.composition import Draft

FAMILIES: dict[str, Callable[[Random], Draft]] = {
    "story": story.draw,
    "thanks": thanks.draw,
    "explain": explain.draw,
    "advice": advice.draw,
    "naming": naming.draw,
    "places": places.draw,
    "wishes": wishes.draw,
}

SMALL_TALK = hello.draw
"""Not a task: mixed into the corpus, never offered as a prompt."""
