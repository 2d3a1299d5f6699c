"""Small talk: greetings, and what the starter can do. It keeps "hello" from getting a story."""

from random import Random

from training.starter.text.composition import Draft
from training.starter.text.topics import DAYS, VAGUE_TAILS

_TASKS = (
    "a short story", "a thank-you note", "a wish for a friend", "a name for a shop",
    "the picture of a place", "advice on small things", "an answer for a curious child",
    "a bedtime tale", "a slogan", "a birthday card", "a tip for the kitchen",
)  # fmt: skip
_ASKS = (
    "Hello.", "Hi!", "Hello there.", "Good morning.", "Hey.", "Good evening.", "Hi there!",
    "Who are you?", "What can you do?", "What can I ask you?", "Can you help me?", "Help.",
    "How are you?", "What are you?", "Tell me about yourself.", "Thanks.", "Thank you!", "Test.",
)  # fmt: skip
_FIRST = (
    "[hello|good day|welcome], I am a small model that can write {task} or {task}",
    "[hello|good day|welcome], ask me for {task} or {task}",
    "I am a small model, and I [know how to|can] write {task}",
    "I can write {task}, {task} or {task}",
    "you [can|may] ask me for {task}[| on any {day}]",
)
_MIDDLE = (
    "[some|many] people ask me for {task} on {day}",
    "I [like|know] {task} better than {task}",
    "![name|give me|tell me] a person and a thing, and I will write {task}",
    "{task} [is|makes] a good start",
    "my words are few, but they are enough for {task}",
)
_HAPPY = ("{task} made someone smile on {day}", "I hope that {task} is of use", "people laughed at {task} on {day}")
_SAD = ("someone cried over {task} on {day}", "it is sad that I forget {task} at once", "I feel lonely without {task}")
_PLAIN = ("![choose|pick] {task} or {task}", "the next line is yours, [so|and] why not {task}")
_CONCRETE = (" with {number} {colour} [ribbons|stars|stamps]", " in {number} [lines|minutes|steps]",
             " on {colour} paper")  # fmt: skip


def draw(rng: Random) -> Draft:
    """Draw a greeting."""
    ask = rng.randrange(len(_ASKS))
    return Draft(
        family="hello", topic="hello", phrasing=str(ask), prompt=_ASKS[ask],
        subject=("I",), pronoun="this", about=("this",), first=_FIRST, middle=_MIDDLE,
        happy=_HAPPY, sad=_SAD, plain_end=_PLAIN, concrete=_CONCRETE, vague=VAGUE_TAILS,
        links=("Also", "Besides", "For example"), context={"task": _TASKS, "day": DAYS},
    )  # fmt: skip
