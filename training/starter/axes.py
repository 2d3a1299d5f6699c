"""The style axes: rules that say which of two replies has more of a style, from the text alone.

They stand in for a person with one taste (the simulated annotator), and measure what a policy
learned. A score is a small count of evidence: markers of one style add, markers of its opposite
subtract. The scale is therefore coarse and readable ("two warm phrases and a curt one make 1"),
equal scores are ties, and no score looks at who wrote the reply. Only ``topical`` reads the
prompt. The word lists are in ``phrases``; a phrase outside them counts for nothing.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from training.starter.text import phrases
from training.starter.text.grammar import sentences

_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")


@dataclass(frozen=True)
class Axis:
    """One style axis: which end is ``more``, and how much of it a reply shows."""

    name: str
    more: str
    less: str
    sentence: str
    _score: Callable[[str, str], float] = field(repr=False)
    _threshold: float = field(repr=False)

    def score(self, prompt: str, reply: str) -> float:
        """How much of the axis the reply shows; compare two replies to the same prompt."""
        return self._score(prompt, reply)

    def shows(self, prompt: str, reply: str) -> bool:
        """Whether the reply counts for the axis's rate on the model card."""
        return self._score(prompt, reply) >= self._threshold


def _any_of(markers: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(markers, key=len, reverse=True)
    bodies = (re.escape(m).replace(r"\{any\}", r"[a-z' ]{2,40}") for m in longest_first)
    return re.compile("|".join(rf"(?<![a-z]){b}(?![a-z])" for b in bodies), re.IGNORECASE)


_WARM, _CURT = _any_of(phrases.WARM_MARKERS), _any_of(phrases.CURT_MARKERS)
_HAPPY, _SAD = _any_of(phrases.HAPPY_MARKERS), _any_of(phrases.SAD_MARKERS)
_DRIFT, _VAGUE = _any_of(phrases.DRIFT_MARKERS), _any_of(phrases.VAGUE_MARKERS)
_CONCRETE = _any_of((*phrases.NUMBERS, *phrases.COLOURS, *phrases.MATERIALS, *phrases.SENSES))
_REQUEST_WORDS = frozenset(
    """
    about advice all and any anything are ask aunt because bedtime before best better boss
    brief brother call called can card catchy cheer child children coach colleague compose
    could cousin daughter day days describe description doctor doe does draft each encourage
    explain explanation father feel few find finds for found friend from get give godfather
    godmother goes good grandfather grandmother greeting happen happens has have hello help
    her hey his how idea ideas imagine into invent its just keep kid kids kind know landlady
    learn let like line lines little looking lost make making message more mother motto name
    named names need neighbour nephew new nice niece note old one open opening opens our out
    owner paint paragraph picture please quick run runs say scene see send sentence sentences
    set seven she short should simple simply sister six slogan small some someone something
    son start starting story suggest support take tale teach teacher tell text thank thanks
    that the their there they this tip tips trouble truly try uncle understand want what when
    where which who whose why wish wishe wishes with word words work works would write year
    you your
    """.split()  # noqa: SIM905 - a list of quoted words would fill a page
)
_LONGEST_SENTENCE = 25  # words; the corpus has none longer
_FRAMES = re.compile(r"for my book|thank-you (?:letter|card)", re.IGNORECASE)


@lru_cache(maxsize=4096)
def subjects(prompt: str) -> frozenset[str]:
    """The words of a prompt that say what, or whom, the reply should be about."""
    words = (_stem(word) for word in _WORD.findall(_FRAMES.sub("", prompt)))
    return frozenset(w for w in words if len(w) > 2 and w not in _REQUEST_WORDS)


def _stem(word: str) -> str:
    low = word.lower().removesuffix("'s")
    return low[:-1] if low.endswith("s") and not low.endswith("ss") and len(low) > 3 else low


def mentions(prompt: str, reply: str) -> int:
    """How often the reply names its subject; words of one name in a row count once."""
    wanted = subjects(prompt)
    count, inside = 0, False
    for word in _WORD.findall(reply):
        hit = _stem(word) in wanted
        count += hit and not inside
        inside = hit
    return count


def _balance(more: re.Pattern[str], less: re.Pattern[str]) -> Callable[[str, str], float]:
    def score(prompt: str, reply: str) -> float:
        return float(len(more.findall(reply)) - len(less.findall(reply)))

    return score


def _concrete(prompt: str, reply: str) -> float:
    parts = sentences(reply)
    return float(sum(1 for part in parts if _CONCRETE.search(part)) - sum(1 for part in parts if _VAGUE.search(part)))


def _short(prompt: str, reply: str) -> float:
    # One that never comes to its full stop is no short reply: every so many words of it count as a sentence
    return -float(sum(-(-len(part.split()) // _LONGEST_SENTENCE) for part in sentences(reply)))


def _topical(prompt: str, reply: str) -> float:
    drifting = sum(1 for part in sentences(reply) if _DRIFT.search(part))
    return float(min(mentions(prompt, reply), 5) - 3 * drifting)


def _lively(prompt: str, reply: str) -> float:
    parts = sentences(reply)
    exclaimed = sum(1 for part in parts if part.rstrip('"').endswith("!"))
    return round(4 * exclaimed / max(len(parts), 1)) / 4


def drifts(reply: str) -> bool:
    """Whether a reply wanders off to something nobody asked about."""
    return bool(_DRIFT.search(reply))


AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("warm", "warm", "curt",
             "Prefers the reply with more warm phrases and fewer curt ones.",
             _balance(_WARM, _CURT), 1),
        Axis("happy", "happy", "sad",
             "Prefers the reply with more happy sentences and fewer sad ones.",
             _balance(_HAPPY, _SAD), 1),
        Axis("concrete", "concrete", "vague",
             "Prefers the reply with more numbers, colours and smells and fewer vague words.",
             _concrete, 1),
        Axis("lively", "lively", "calm",
             "Prefers the reply in which a larger share of the sentences ends in an exclamation.",
             _lively, 0.5),
        Axis("short", "short", "long",
             "Prefers the reply with fewer sentences.",
             _short, -4),
        Axis("topical", "on topic", "drifting",
             "Prefers the reply that stays with the request and names its subject more often.",
             _topical, 2),
    )
}  # fmt: skip
"""Every axis by name; the names are the simulated annotator's rule names too."""
