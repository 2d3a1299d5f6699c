"""Text from templates: expansion, articles, sentence case, and the flaws a reply must not have.

A template is plain text with two marks. ``[a|b|c]`` takes one alternative (they nest, and may be
empty); ``{key}`` looks the key up in a context whose value is a text, a list to choose from, or a
function of the generator. Articles are repaired afterwards, so templates always write "a".
"""

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random

Value = str | Sequence[str] | Callable[[Random], str]
Context = Mapping[str, Value]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([A-Za-z_]+)\}")
_ARTICLE = re.compile(r"\b([Aa])n?\s+([A-Za-z][A-Za-z'-]*)")
_VOWEL_BY_EYE_ONLY = ("uni", "use", "usu", "eu", "one", "once", "ukulele", "ute")
_SILENT_H = ("hour", "honest", "honour", "heir")


def expand(template: str, context: Context, rng: Random) -> str:
    """Turn a template into text; choices first, so that slots in untaken branches stay unused."""
    text = template
    while "[" in text:
        text = _CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), text, count=1)
    while True:
        found = _SLOT.search(text)
        if not found:
            return fix_articles(re.sub(r"\s+", " ", text).replace(" ,", ",").strip())
        value = _lookup(context[found.group(1)], rng)
        if "[" in value:
            value = expand(value, context, rng)
        text = text[: found.start()] + value + text[found.end() :]


def _lookup(value: Value, rng: Random) -> str:
    if isinstance(value, str):
        return value
    if callable(value):
        return value(rng)
    return rng.choice(value)


def article(word: str) -> str:
    """The indefinite article that a word takes, by sound rather than by letter."""
    low = word.lower()
    if low.startswith(_SILENT_H):
        return "an"
    return "an" if low[0] in "aeiou" and not low.startswith(_VOWEL_BY_EYE_ONLY) else "a"


def fix_articles(text: str) -> str:
    """Write "an" wherever the next word sounds like a vowel, and "a" elsewhere."""

    def repair(match: re.Match[str]) -> str:
        right = article(match.group(2))
        return f"{right.capitalize() if match.group(1) == 'A' else right} {match.group(2)}"

    return _ARTICLE.sub(repair, text)


def sentence_case(text: str) -> str:
    """Capitalise the first letter, past an opening quotation mark."""
    for index, char in enumerate(text):
        if char.isalpha():
            return text[:index] + char.upper() + text[index + 1 :]
    return text


def lower_first(text: str) -> str:
    """Lower the first letter of a sentence that now follows a lead-in; names and "I" stay."""
    first = text.split(" ", 1)[0].rstrip(",:'")
    keeps = first == "I" or first.startswith("I'")
    return text if keeps else text[0].lower() + text[1:]


def sentences(text: str) -> list[str]:
    """Split a reply after each ``.``, ``!`` or ``?``, closing quotation mark included."""
    return [part for part in re.split(r"(?<=[.!?])\s+|(?<=[.!?]\")\s+", text.strip()) if part]


_FLAWS: tuple[tuple[str, str], ...] = (
    (r"(?i)\b(\w+) \1\b", "a doubled word"),
    (r"[\[\]{}|]", "a template mark"),
    (r" ,| \.|,,|\.\.|,\.|:\.|,!|:!|\.!| {2}|^ | $", "stray punctuation"),
    (r"(?:^|[.!?] )[a-z]", "a sentence without a capital"),
    (r"(?i)\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve) (?:\w+ )?(?:is|was|has)\b",
     "a plural with a singular verb"),
    (r"(?:^|[.!?,;:] |\b(?:that|and|but|when|if|so|while|because|until) )(?:[Ii]t|[Hh]e|[Ss]he) (?:are|were|have|do|make|keep|take|give|need|say|go)\b",
     "a singular with a plural verb"),
    (r"\b(?:[Ww]e|[Yy]ou|[Tt]hey|I) (?:is|has|does|makes|keeps|takes|gives|needs|goes)\b",
     "a plural with a singular verb"),
    (r"\b[Aa]n? (?:two|three|four|five|six|seven|eight|nine|ten|twelve)\b(?!-)", "a before a number"),
    (r"\b(?:the|a|an|its) (?:the|a|an|my|your|our|her|his|its)\b", "two determiners"),
    (r"(?i)\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve) out of"
     r" (?:one|two|three|four|five|six|seven|eight|nine|ten|twelve)\b", "a share in words"),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern), name) for pattern, name in _FLAWS)


def flaws(text: str) -> list[str]:
    """Name what is wrong with a reply's grammar; an empty list for a clean one."""
    found = [f"{name}: {m.group(0)!r}" for pattern, name in _COMPILED if (m := pattern.search(text))]
    if text and text[-1] not in '.!?"':
        found.append(f"no end mark: {text[-12:]!r}")
    if fix_articles(text) != text:
        found.append("a wrong article")
    if text.count('"') % 2:
        found.append("an odd quotation mark")
    return found
