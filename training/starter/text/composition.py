"""From a draft answer and a draw of styles to the sentences of one reply.

A family supplies a ``Draft``: what was asked, and the sentences that could answer it. A ``Style``
says how much of each axis this reply should have. ``compose`` plans how many sentences there are,
which of them carry a mood or a detail, and how often the subject is named instead of "it",
then writes them out. It returns the levels it *reached*, which are the corpus's own labels:
a very short reply has no room for two of everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from training.starter.text import phrases
from training.starter.text.grammar import Value, expand, sentence_case
from training.starter.text.phrases import Pool

UNLISTED_SHARE = 0.08


@dataclass(frozen=True)
class Draft:
    """One request and the sentences that may answer it.

    Sentences are templates without an end mark, in lower case where they may follow a lead-in.
    ``{S}``, ``{O}`` and ``{P}`` stand for the subject as subject, object and possessive. A leading
    ``!`` marks an imperative, which takes no vague tail.
    """

    family: str
    topic: str
    phrasing: str
    prompt: str
    subject: tuple[str, ...]
    pronoun: str
    about: tuple[str, ...]
    first: Sequence[str]
    middle: Sequence[str]
    happy: Sequence[str]
    sad: Sequence[str]
    plain_end: Sequence[str]
    concrete: Sequence[str]
    vague: Sequence[str]
    links: Sequence[str]
    facts: Sequence[str] = ()
    context: dict[str, Value] = field(default_factory=dict)
    person: str | None = None


@dataclass(frozen=True)
class Style:
    """The levels one reply should reach; signed where an axis has an opposite."""

    warm: int
    happy: int
    concrete: int
    lively: float
    body: int
    mentions: int
    drift: bool


def draw_style(rng: Random) -> Style:
    """Draw every level on its own, so that no axis tells anything about another."""
    signed = (-2, -1, 0, 1, 2)
    return Style(
        warm=rng.choices(signed, (20, 21, 18, 21, 20))[0],
        happy=rng.choices(signed, (22, 24, 6, 25, 23))[0],
        concrete=rng.choices(signed, (10, 22, 18, 28, 22))[0],
        lively=rng.choices((0.0, 0.25, 0.5, 0.75, 1.0), (18, 21, 22, 21, 18))[0],
        body=rng.choices((1, 2, 3, 4), (20, 34, 28, 18))[0],
        mentions=rng.choices((1, 2, 3, 4), (30, 30, 22, 18))[0],
        drift=rng.random() < 0.19,
    )


PRONOUNS = {"it": ("it", "it", "its"), "she": ("she", "her", "her"), "he": ("he", "him", "his"),
            "you": ("you", "you", "your"), "this": ("this", "this", "its")}  # fmt: skip


class Reference:
    """Names the subject in full while the budget of mentions lasts, then by pronoun."""

    def __init__(self, draft: Draft, budget: int) -> None:
        self._draft = draft
        self._left = budget
        self._named = False

    def about(self, rng: Random) -> str:
        if rng.random() < (0.8 if self._left > 1 else 0.4):
            self._left -= 1
            return rng.choice(self._draft.about)
        return rng.choice(("this", "that"))

    def _refer(self, form: int, rng: Random) -> str:
        must = not self._named
        if must or (self._left > 0 and rng.random() < 0.8):
            self._named = True
            self._left -= 1
            name = rng.choice(self._draft.subject)
            if must and self._draft.person and rng.random() < 0.75:
                name = self._draft.subject[0]
            return name + "'s" if form == 2 else name
        return PRONOUNS[self._draft.pronoun][form]

    def context(self) -> dict[str, Value]:
        return {
            "S": lambda rng: self._refer(0, rng),
            "O": lambda rng: self._refer(1, rng),
            "P": lambda rng: self._refer(2, rng),
            "about": self.about,
        }


class Introduced:
    """Somebody or something that a reply brings in itself: "a map" at first, "the map" from then on."""

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._known = False

    def __call__(self, _rng: Random) -> str:
        article, self._known = ("the" if self._known else "a"), True
        return f"{article} {self._noun}"


@dataclass
class _Line:
    """One sentence in the making; one tail at most, or it becomes a mouthful."""

    core: str
    lead: str = ""
    tail: str = ""
    body: bool = True
    ending: bool = False

    @property
    def imperative(self) -> bool:
        return self.core.startswith("!")

    def template(self) -> str:
        lead = f"{self.lead}, " if self.lead else ""
        core = self.core.removeprefix("!")
        # A name called at the end stays at the end: the tail goes before it.
        called = next((end for end in (", {who}", ", {kid}") if core.endswith(end)), "")
        return f"{lead}{core.removesuffix(called)}{self.tail}{called}"


_FURNISHING: dict[str, Value] = {
    "number": phrases.NUMBERS,
    "colour": phrases.COLOURS,
    "odd": phrases.ODD_THINGS,
    "odd_fact": phrases.ODD_FACTS,
}


def _pick(pool: Pool, rng: Random) -> tuple[str, bool]:
    """One phrase, and whether the detectors know it."""
    if pool.unlisted and rng.random() < UNLISTED_SHARE:
        return rng.choice(pool.unlisted), False
    return rng.choice(pool.listed), True


def compose(draft: Draft, style: Style, rng: Random) -> tuple[str, dict[str, float]]:
    """Write one reply; return it with the level it reached on every axis."""
    plan = _Plan(draft, style, rng)
    plan.body()
    plan.details()
    plan.links()
    plan.stray()
    plan.ends()
    return plan.write()


class _Plan:
    """The sentences of one reply, filled axis by axis."""

    def __init__(self, draft: Draft, style: Style, rng: Random) -> None:
        self.draft, self.style, self.rng = draft, style, rng
        self.levels: dict[str, float] = {}
        self.lines: list[_Line] = []

    def body(self) -> None:
        """A first sentence, middles without repeats, and endings in the reply's mood."""
        rng, draft, level = self.rng, self.draft, self.style.happy
        size = max(self.style.body - self.style.drift, 1)
        if level and size == 1 and rng.random() < 0.6:
            size = 2
        if abs(level) == 2 and size == 2 and rng.random() < 0.6:
            size = 3
        endings = self._endings(min(abs(level), size - 1))
        middles = self._middles(size - 1 - len(endings))
        if not endings and middles and rng.random() < 0.6:
            middles[-1] = rng.choice(draft.plain_end)
        self.lines = [_Line(core) for core in (rng.choice(draft.first), *middles)]
        self.lines += [_Line(core, ending=True) for core in endings]
        self.levels["happy"] = len(endings) * (1 if level > 0 else -1)

    def _endings(self, count: int) -> list[str]:
        pool = self.draft.happy if self.style.happy > 0 else self.draft.sad
        return self.rng.sample(list(pool), count)

    def _middles(self, count: int) -> list[str]:
        """Middle sentences without repeats; more than half know the topic where facts exist."""
        facts, general = list(self.draft.facts), list(self.draft.middle)
        self.rng.shuffle(facts)
        self.rng.shuffle(general)
        wanted = min(sum(self.rng.random() < 0.7 for _ in range(count)), len(facts))
        return facts[:wanted] + general[: count - wanted]

    def _free(self) -> list[_Line]:
        """Sentences that can still take a tail, in random order; an ending says enough as it is."""
        free = [line for line in self.lines if line.body and not line.tail and not line.ending]
        self.rng.shuffle(free)
        return free

    def details(self) -> None:
        """Add concrete details, or vague wording: a tail at most, then a sentence of its own."""
        level, rng = self.style.concrete, self.rng
        if level > 0:
            chosen = self._free()[:level]
            tails = rng.sample(list(self.draft.concrete), len(chosen))
            for line, tail in zip(chosen, tails, strict=True):
                line.tail = tail
            self.levels["concrete"] = len(chosen)
            return
        calm = [line for line in self._free() if not line.imperative]
        whole = level == -2 or (level == -1 and (not calm or rng.random() < 0.3))
        vague = bool(calm) and (level == -2 or (level == -1 and not whole))
        if vague:
            calm[0].tail = rng.choice(self.draft.vague)
        if whole:
            # After all that answers: a remark that details are missing reads oddly before them.
            self.lines.append(_Line(rng.choice(phrases.VAGUE_SENTENCES), body=False))
        self.levels["concrete"] = -float(vague + whole)

    def _insert(self, core: str) -> None:
        """Put a remark somewhere after the first sentence."""
        spot = self.rng.randrange(1, len(self.lines) + 1)
        self.lines.insert(spot, _Line(core, body=False))

    def links(self) -> None:
        """Give some middle sentences a neutral lead-in."""
        for line in self.lines[1:]:
            if line.body and self.rng.random() < 0.25:
                line.lead = self.rng.choice(self.draft.links)

    def stray(self) -> None:
        """Let the reply drift off once, after it has begun."""
        if self.style.drift:
            self._insert(_pick(phrases.DRIFT_LEADS, self.rng)[0])
        self.levels["topical"] = -float(self.style.drift)

    def ends(self) -> None:
        """Open, close, or both, with a warm or a curt sentence."""
        level, rng = self.style.warm, self.rng
        warm = level > 0
        ends = ("opener", "closer") if abs(level) == 2 else (rng.choice(("opener", "closer")),)
        if level and "opener" in ends:
            pool = phrases.WARM_OPENERS if warm else phrases.CURT_OPENERS
            self.lines.insert(0, _Line(_pick(pool, rng)[0], body=False))
        if level and "closer" in ends:
            pool = phrases.WARM_CLOSERS if warm else phrases.CURT_CLOSERS
            self.lines.append(_Line(_pick(pool, rng)[0], body=False))
        self.levels["warm"] = level

    def write(self) -> tuple[str, dict[str, float]]:
        """Expand the lines in reading order, then set the end marks."""
        reference = Reference(self.draft, self.style.mentions)
        context = {**_FURNISHING, **self.draft.context, **reference.context()}
        texts = [expand(line.template(), context, self.rng) for line in self.lines]
        loud = round(self.style.lively * len(texts) + self.rng.uniform(-0.3, 0.3))
        loud = min(max(loud, 0), len(texts))
        marked = set(self.rng.sample(range(len(texts)), loud))
        self.levels["lively"] = round(4 * loud / len(texts)) / 4
        self.levels["short"] = -len(texts)
        ends = ["!" if index in marked else "." for index in range(len(texts))]
        return " ".join(_end(t, e) for t, e in zip(texts, ends, strict=True)), self.levels


def _end(text: str, mark: str) -> str:
    text = sentence_case(text)
    return text[:-1] + mark + '"' if text.endswith('"') else text + mark
