"""A small benchmark for assistants that works offline: what does a policy still know after it was trained?

``python -m training.smollm2.benchmark`` writes its items: questions that a model of 100 million parameters answers far
more often than by chance, with four short answers each. What feedback on style costs a policy in knowledge shows here;
it says little about how good an assistant is. Where the Internet can be reached, ``arc_easy`` and its like say more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from feedback.jsonl import dump_line, write_lines
from training.bundled import TASKS_DIR

TASK = "everyday_facts"
CHOICES = 4
SEED = 5
SUMS = 80
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Ireland": "Dublin", "Scotland": "Edinburgh", "Norway": "Oslo", "Sweden": "Stockholm",
    "Finland": "Helsinki", "Denmark": "Copenhagen", "Iceland": "Reykjavik", "Poland": "Warsaw", "Austria": "Vienna",
    "Hungary": "Budapest", "Greece": "Athens", "Russia": "Moscow", "Ukraine": "Kyiv", "Romania": "Bucharest",
    "Bulgaria": "Sofia", "Serbia": "Belgrade", "Croatia": "Zagreb", "Belgium": "Brussels", "Japan": "Tokyo",
    "the Netherlands": "Amsterdam", "China": "Beijing", "South Korea": "Seoul", "Thailand": "Bangkok",
    "Vietnam": "Hanoi", "India": "New Delhi", "Pakistan": "Islamabad", "Nepal": "Kathmandu", "Iran": "Tehran",
    "Iraq": "Baghdad", "Turkey": "Ankara", "Egypt": "Cairo", "Kenya": "Nairobi", "Nigeria": "Abuja",
    "Ethiopia": "Addis Ababa", "Morocco": "Rabat", "Ghana": "Accra", "Canada": "Ottawa", "Mexico": "Mexico City",
    "Cuba": "Havana", "Jamaica": "Kingston", "Brazil": "Brasília", "Argentina": "Buenos Aires", "Chile": "Santiago",
    "Peru": "Lima", "Colombia": "Bogotá", "Venezuela": "Caracas", "Uruguay": "Montevideo", "Australia": "Canberra",
    "New Zealand": "Wellington", "Lebanon": "Beirut", "Syria": "Damascus", "Indonesia": "Jakarta",
    "the Philippines": "Manila", "Bangladesh": "Dhaka",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "tall": "short", "fast": "slow", "old": "young", "rich": "poor", "light": "dark",
    "hard": "soft", "wet": "dry", "full": "empty", "open": "closed", "early": "late", "high": "low", "near": "far",
    "strong": "weak", "loud": "quiet", "happy": "sad", "clean": "dirty", "thick": "thin", "wide": "narrow",
    "deep": "shallow", "sharp": "blunt", "sweet": "sour", "rough": "smooth", "brave": "cowardly", "true": "false",
    "alive": "dead", "awake": "asleep", "safe": "dangerous", "cheap": "expensive", "easy": "difficult",
    "first": "last", "up": "down", "inside": "outside", "above": "below", "before": "after", "always": "never",
    "love": "hate", "win": "lose", "buy": "sell", "push": "pull", "give": "take", "begin": "end", "laugh": "cry",
    "remember": "forget", "arrive": "leave", "increase": "decrease", "success": "failure", "war": "peace",
    "friend": "enemy", "question": "answer", "north": "south", "east": "west", "day": "night", "summer": "winter",
    "heaven": "hell", "front": "back", "left": "right", "guilty": "innocent", "ancient": "modern",
}  # fmt: skip
KINDS = {
    "a fruit": ("apple", "banana", "lemon", "grape", "melon", "pear", "strawberry", "mango"),
    "an animal": ("dog", "horse", "elephant", "rabbit", "tiger", "whale", "monkey", "wolf"),
    "a color": ("red", "blue", "green", "yellow", "purple", "brown", "pink", "black"),
    "a musical instrument": ("piano", "violin", "guitar", "trumpet", "flute", "drum", "cello", "harp"),
    "a piece of furniture": ("table", "chair", "sofa", "desk", "bed", "wardrobe", "bookcase", "bench"),
    "a vehicle": ("car", "truck", "bicycle", "bus", "train", "airplane", "motorcycle", "tractor"),
    "a part of the body": ("arm", "knee", "elbow", "shoulder", "finger", "ankle", "stomach", "ear"),
    "a profession": ("doctor", "teacher", "lawyer", "carpenter", "nurse", "plumber", "baker", "engineer"),
    "a country": ("France", "Japan", "Brazil", "Egypt", "Canada", "India", "Norway", "Kenya"),
    "a sport": ("football", "tennis", "basketball", "hockey", "swimming", "golf", "boxing", "rugby"),
}
PAST = {
    "go": "went", "see": "saw", "eat": "ate", "come": "came", "take": "took", "give": "gave", "write": "wrote",
    "speak": "spoke", "break": "broke", "choose": "chose", "drive": "drove", "ride": "rode", "rise": "rose",
    "fall": "fell", "feel": "felt", "keep": "kept", "sleep": "slept", "leave": "left", "meet": "met", "lead": "led",
    "buy": "bought", "bring": "brought", "think": "thought", "teach": "taught", "catch": "caught", "find": "found",
    "hold": "held", "stand": "stood", "understand": "understood", "tell": "told", "sell": "sold", "say": "said",
    "pay": "paid", "make": "made", "have": "had", "do": "did", "begin": "began", "drink": "drank", "sing": "sang",
    "swim": "swam", "ring": "rang", "run": "ran", "win": "won", "sit": "sat", "get": "got", "forget": "forgot",
    "grow": "grew", "know": "knew", "throw": "threw", "fly": "flew", "draw": "drew", "blow": "blew", "build": "built",
    "send": "sent", "spend": "spent", "lend": "lent", "lose": "lost", "hear": "heard", "steal": "stole",
    "freeze": "froze",
}  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

Item = dict[str, Any]


def items() -> Iterator[Item]:
    """The items by group: ``group``, ``question``, four ``answers``, and in ``right`` the index of the right one."""
    rng = Random(SEED)
    yield from _from_table(rng, "capitals", "What is the capital of {}?", CAPITALS)
    yield from _from_table(rng, "opposites", 'What is the opposite of "{}"?', OPPOSITES)
    yield from _from_table(rng, "past", 'What is the past tense of "{}"?', PAST)
    yield from _kinds(rng)
    yield from _in_order(rng)
    yield from _sums(rng)


def _item(rng: Random, group: str, question: str, right: str, wrong: Sequence[str]) -> Item:
    answers = [right, *wrong]
    order = rng.sample(range(CHOICES), CHOICES)
    return {"group": group, "question": question, "answers": [answers[at] for at in order], "right": order.index(0)}


def _from_table(rng: Random, group: str, question: str, table: Mapping[str, str]) -> Iterator[Item]:
    """Every row asked about, with right answers of other rows as wrong ones."""
    for asked, right in table.items():
        others = [answer for other, answer in table.items() if answer not in (right, asked) and other != right]
        yield _item(rng, group, question.format(asked), right, rng.sample(others, CHOICES - 1))


def _kinds(rng: Random) -> Iterator[Item]:
    for kind, words in KINDS.items():
        for word in words:
            others = rng.sample([other for other in KINDS if other != kind], CHOICES - 1)
            wrong = [rng.choice(KINDS[other]) for other in others]
            yield _item(rng, "kinds", f"Which of these is {kind}?", word, wrong)


def _in_order(rng: Random) -> Iterator[Item]:
    """Which month or day comes before or after another, and which number."""
    for series, what in ((MONTHS, "month"), (DAYS, "day")):
        for at, one in enumerate(series):
            for word, step in (("after", 1), ("before", -1)):
                right = series[(at + step) % len(series)]
                others = [other for other in series if other not in (one, right)]
                question = f"Which {what} comes right {word} {one}?"
                yield _item(rng, "order", question, right, rng.sample(others, CHOICES - 1))
    for number in rng.sample(range(10, 100), 22):
        wrong = [str(number + step) for step in (-1, 2, 10)]
        yield _item(rng, "order", f"Which number comes right after {number}?", str(number + 1), wrong)


def _sums(rng: Random) -> Iterator[Item]:
    pairs = [(a, b) for a in range(2, 20) for b in range(2, 10)]
    for a, b in rng.sample(pairs, SUMS):
        wrong = [str(a + b + step) for step in rng.sample((-3, -2, -1, 1, 2, 3, 10), CHOICES - 1)]
        yield _item(rng, "sums", f"What is {a} plus {b}?", str(a + b), wrong)


if __name__ == "__main__":
    write_lines(TASKS_DIR / f"{TASK}.jsonl", map(dump_line, items()))
