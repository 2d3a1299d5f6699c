"""Names and slogans for a small business."""

from random import Random

from training.starter.text.composition import Draft
from training.starter.text.grammar import fix_articles
from training.starter.text.topics import DAYS, VAGUE_TAILS, person

# Each business with nouns for its name and what a customer comes for.
SHOPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bakery": (("Crumb", "Loaf", "Oven", "Crust", "Bun"), ("fresh rolls", "a good loaf", "warm buns")),
    "bike shop": (("Wheel", "Spoke", "Pedal", "Chain", "Saddle"), ("a safe ride", "new tyres", "quick repairs")),
    "cafe": (("Cup", "Bean", "Spoon", "Corner", "Mug"), ("strong coffee", "a quiet seat", "hot cocoa")),
    "bookshop": (("Page", "Chapter", "Shelf", "Margin", "Quill"), ("a good read", "old maps", "new poems")),
    "flower shop": (("Petal", "Stem", "Bloom", "Rose", "Meadow"), ("fresh tulips", "a bunch of roses", "green leaves")),
    "hair salon": (("Comb", "Curl", "Fringe", "Lock", "Braid"), ("a neat cut", "soft curls", "a new look")),
    "toy store": (("Block", "Puppet", "Spinning Top", "Marble Run", "Teddy"), ("clever games", "soft bears", "long afternoons of play")),
    "pizzeria": (("Slice", "Basil", "Tomato", "Stone Oven", "Olive"), ("thin crust", "melted cheese", "a quick dinner")),
    "garage": (("Wrench", "Piston", "Engine", "Bolt", "Bumper"), ("honest repairs", "a smooth engine", "clear prices")),
    "tea house": (("Leaf", "Kettle", "Steam", "Saucer", "Samovar"), ("calm hours", "green tea", "thin cups")),
    "shoe repair": (("Heel", "Sole", "Lace", "Buckle", "Step"), ("a second life for boots", "firm heels", "polished leather")),
    "vegetable farm": (("Carrot", "Furrow", "Harvest", "Sprout", "Field"), ("crisp carrots", "sweet peas", "honest greens")),
    "music school": (("Note", "Chord", "Tempo", "Drum", "Key"), ("first chords", "patient lessons", "a song a week")),
    "yoga studio": (("Mat", "Breath", "Lotus", "Stretch", "Balance"), ("a calm hour", "strong backs", "slow mornings")),
    "dog hotel": (("Paw", "Bone", "Tail", "Bark", "Whisker"), ("long walks", "soft beds", "full bowls")),
    "ice cream stand": (("Scoop", "Cone", "Sprinkle", "Sundae", "Frost"), ("cold scoops", "crisp cones", "summer in a cup")),
    "sewing shop": (("Needle", "Thread", "Stitch", "Thimble", "Seam"), ("neat seams", "fine cloth", "quick hems")),
    "fish market": (("Net", "Hook", "Anchor", "Wave", "Herring"), ("the catch of the day", "fresh herring", "honest weight")),
    "cheese shop": (("Rind", "Wheel", "Cellar", "Curd", "Goat"), ("ripe cheese", "thin slices", "a proper rind")),
    "garden centre": (("Spade", "Bulb", "Pot", "Fern", "Greenhouse"), ("strong seedlings", "rich soil", "good advice")),
    "photo studio": (("Lens", "Frame", "Flash", "Shutter", "Portrait"), ("true portraits", "soft light", "pictures that last")),
    "clock repair": (("Pendulum", "Dial", "Spring", "Hand", "Gear"), ("clocks that run", "patient hands", "right time")),
    "soup kitchen": (("Ladle", "Bowl", "Pot", "Broth", "Lentil"), ("hot soup", "thick stews", "a full bowl")),
    "travel agency": (("Compass", "Harbour", "Ticket", "Globe", "Passport"), ("far coasts", "easy trips", "sunny weeks")),
    "swimming school": (("Wave", "Float", "Dolphin", "Lane", "Splash"), ("first strokes", "brave dives", "safe lessons")),
    "candle shop": (("Wick", "Wax", "Flame", "Glow", "Lantern"), ("slow light", "long evenings", "soft glow")),
    "honey stand": (("Hive", "Comb", "Clover", "Drone", "Nectar"), ("thick honey", "spring in a jar", "sweet mornings")),
    "painting class": (("Brush", "Canvas", "Palette", "Easel", "Sketch"), ("first strokes", "bold paint", "a free afternoon")),
}  # fmt: skip
_ADJECTIVES = (
    "Little", "Royal", "Hidden", "Merry", "Quiet", "Brave", "Honest", "Humble", "Wild", "Lucky",
    "Sunny", "Grand", "Early", "Sleepy", "Noble", "Open", "Clever", "Gentle", "Dancing", "Singing",
    "Proud", "Old", "New", "Flying", "Rolling", "Midnight", "Morning", "Winter", "Summer", "Secret",
)  # fmt: skip
_FIRST = (
    "![call|name] {O} {brand}, [and people will remember it|which fits {good}|a name for {good}]",
    "{brand} would [suit|fit|be a good name for] {O} [near {spot}|by {spot}|with {good}]",
    "for {O} I [suggest|would choose|propose] {brand} [because of {good}|for {good}|and nothing longer]",
    "{brand} is [a|one] name that [fits|tells people about|suits] {O} and its {nouns}",
    "the [right|best|simplest] name for {O} is {brand}, [which fits {good}|I think|as in {good}]",
    "a name such as {brand} [tells|shows] people that {S} [offers|stands for] {good}",
)
_MIDDLE = (
    "the slogan could be {good}, [every {day}|all week|from early to late]",
    "![put|paint|print] {brand} [on the door|on each bag|above the window] of {O}",
    "people from {spot} will come [on {day}|each {day}] for {good}",
    "people [come|stop by|step in] for {good} and [stay|sit down|return] for {good}",
    "{good} [and|or] {good}, that is what {S} [stands for|offers|promises]",
    "a [short|simple|plain] sign with {brand} [near|by] {spot} is enough for {O}",
    "if {brand} is taken, [try|use|take] {brand} for {O}",
    "![tell|promise] each guest that {S} has {good} on {day}",
    "no one in {spot} [makes|offers|knows] {good} the way {S} does",
    "[another idea|a second choice] is {brand}, which [reminds people of|hints at] {good}",
)
_HAPPY = (
    "{good} will make [all of {spot}|each guest] smile on {day}",
    "with {S}, {spot} has hope for {good}",
    "there will be laughter [at {S}|over {good}] [on {day}|every {day}|in {spot}]",
    "{S} will change {spot} for the better",
    "{S} is a blessing for {spot}",
    "a bright {day} starts with {good} at {S}",
)
_SAD = (
    "without {good}, {spot} is a [sad|gloomy|lonely] place on {day}",
    "the last shop near {spot} is gone for good, so {S} stands [alone|there now]",
    "some in {spot} cried when {good} ran out on {day}",
    "{spot} has seen [tears|sorrow|heartache] since the old shop closed",
    "you may regret {brand} [by {day}|when no one comes]",
    "sales near {spot} have changed for the worse",
)
_PLAIN = (
    "![open|start] {S} on {day} and [see|note] what people say about {brand}",
    "![ask|tell] a few people in {spot} [about|what they think of] {brand}",
    "!keep {brand} for {O}, and the rest [will follow|can wait until {day}]",
)
_SPOTS = (
    "the old town", "the station", "the harbour", "the market square", "the village",
    "the main street", "the park", "the hill", "the bridge", "the school", "the north side",
)  # fmt: skip
_CONCRETE = (
    " in {colour} letters [above the door|on the window|on the sign]", " for only {number} coins",
    " with {number} {colour} [lamps|flags|chairs|tiles] [in front|inside]",
    " behind a [wooden|copper|glass|brass] [door|counter|sign]",
    " with the smell of [oranges|leather|sawdust|mint|vanilla] in the air",
    ", {number} steps from the {colour} [gate|fountain|church]",
)  # fmt: skip
_LINKS = ("Also", "Then", "For the window", "In the paper", "On the sign", "Besides", "Later on")
_ASKS = (
    "Suggest a name for {shop}.", "I need a name for {shop}.", "What should I call {shop}?",
    "Find a catchy name for {shop}.", "Give me a name and a slogan for {shop}.",
    "Write a slogan for {shop}.", "Help me name {shop}.", "Can you suggest a slogan for {shop}?",
    "Please invent a name for {shop}.", "We are opening {shop}. Any ideas for a name?",
    "Name ideas for {shop}, please.", "I want a motto for {shop}.",
)  # fmt: skip


def draw(rng: Random) -> Draft:
    """Draw a request for a name or a slogan."""
    kind = rng.choice(tuple(SHOPS))
    nouns, goods = SHOPS[kind]
    ask = rng.randrange(len(_ASKS))
    named = rng.random() < 0.4
    name = person(rng)[0]
    shop = f"a {kind} run by {name}" if named else rng.choice((f"my {kind}", f"a {kind}", f"our {kind}"))
    prompt = fix_articles(_ASKS[ask].replace("{shop}", shop))

    def brand(inner: Random) -> str:
        noun, adjective = inner.choice(nouns), inner.choice(_ADJECTIVES)
        if named and inner.random() < 0.6:
            return f"{name}'s {inner.choice((noun, f'{adjective} {noun}'))}"
        other = inner.choice([n for n in nouns if n != noun])
        return inner.choice((f"The {adjective} {noun}", f"{noun} and {other}", f"{adjective} {noun}"))

    return Draft(
        family="naming", topic=kind, phrasing=str(ask), prompt=prompt,
        subject=(f"{name}'s {kind}", f"the {kind}") if named else (f"your {kind}", f"the {kind}"),
        pronoun="it",
        about=(f"the {kind}",),
        first=_FIRST, middle=_MIDDLE, happy=_HAPPY, sad=_SAD, plain_end=_PLAIN,
        concrete=_CONCRETE, vague=VAGUE_TAILS, links=_LINKS,
        context={"brand": brand, "good": goods, "day": DAYS, "spot": rng.choice(_SPOTS),
                 "nouns": [good for good in goods if not good.startswith(("a ", "the ", "spring in", "summer in"))]},
        person=name if named else None,
    )  # fmt: skip
