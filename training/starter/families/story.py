"""Short stories: a hero, something to look for, somewhere to go."""

from random import Random

from training.starter.text.composition import Draft, Introduced
from training.starter.text.grammar import fix_articles
from training.starter.text.topics import MOMENTS, VAGUE_TAILS, person

ANIMALS = (
    "fox", "bear", "mouse", "owl", "cat", "dragon", "rabbit", "horse", "crow", "whale", "spider",
    "wolf", "seal", "robot", "ghost", "swan", "tiger", "mole", "bat", "crab", "sheep dog", "elephant",
)  # fmt: skip
PEOPLE = (
    "baker", "sailor", "gardener", "pilot", "clown", "shepherd", "painter", "king", "queen",
    "knight", "witch", "fisher", "postman", "miller", "doctor", "singer", "farmer", "tailor",
    "librarian", "lighthouse keeper", "train driver", "cook", "inventor", "clockmaker",
)  # fmt: skip
THINGS = (
    "key", "map", "button", "kite", "letter", "drum", "ring", "lantern", "boat", "violin", "seed",
    "crown", "shell", "bell", "mirror", "coin", "book", "scarf", "compass", "feather", "clock",
    "pearl", "flute", "ladder", "basket", "candle", "mask", "bicycle",
)  # fmt: skip
TRAITS = (
    "brave", "shy", "clever", "tiny", "curious", "sleepy", "stubborn", "honest", "restless",
    "gentle", "forgetful", "young", "old", "patient", "hungry", "proud", "clumsy", "quiet",
)  # fmt: skip
PLACES = (
    "forest", "harbour", "mill", "castle", "village", "river", "mountain pass", "orchard", "tower",
    "meadow", "bakery", "station", "island", "desert", "swamp", "old town", "cave", "theatre",
    "garden", "valley", "bridge", "market", "school", "windmill",
)  # fmt: skip

_FIRST = (
    "{moment} {S}[|, a {trait} {kind},] found {the_thing} [near|under|behind|beside] the {place}",
    "{intro} [lived by|worked near|had never left|dreamed of] the {place}",
    "{S} had lost {the_thing} [near|on the way to|somewhere behind] the {place}",
    "there was once a {trait} {kind} by the {place}, and this is how {S} [came upon|lost|found] {the_thing}",
    "{S} wanted [nothing more than|only] {the_thing} from the {place}",
    "every day {S} walked to the {place} [in search of|to look for|with] {the_thing}",
    "{moment} a {trait} stranger gave {O} {the_thing} from the {place}",
    "nobody at the {place} believed that {S} could [mend|carry|find|use] {the_thing}",
)
_MIDDLE = (
    "{S} [ran|hurried|crept|wandered|climbed|walked] to the {place} [with|for|because of] {the_thing}",
    "{the_other} [offered|promised|refused|wanted] to help {O}[| at the {place}| with {the_thing}]",
    "{the_thing} [shook|hummed|glowed|rolled away|opened|fell] when {S} [touched it|came near|looked up]",
    "{S} asked {the_other} about {the_thing}, but got [no answer|only a nod|a riddle|a map] in return",
    "the road to the {place} was [long|dark|steep|muddy|full of holes], so {S} [sang|rested|went slowly|ran]",
    "{S} and {the_other} [shared bread|told tales|hid|waited|argued] until [dawn|nightfall|the rain stopped]",
    "{S} [opened|hid|lifted|cleaned|followed] {the_thing} and saw [a way out|the {place}|a secret door|its owner]",
    "behind the {place} {S} met {the_other} who had {the_thing} too",
    "{the_other} [took|hid|wanted|sold] {the_thing}, and {S} [followed|had to think fast|said nothing]",
    "{S} [thought|was sure|feared|guessed] that {the_thing} [belonged to|came from|would please] {the_other}",
    "{the_other} had [watched|followed|waited for] {O} since the {place}",
    "{S} [slept|hid|waited] in the {place} and [dreamed of|thought of|held on to] {the_thing}",
    "{S} gave {the_other} [half of the bread|a warm coat|a promise|{the_thing}]",
    "[wind|rain|snow|fog] came over the {place}, and {S} [hid|held|nearly dropped] {the_thing}",
)
_HAPPY = (
    "{S} came home with {the_thing} and the whole {place} [cheered|danced|celebrated]",
    "{the_other} and {S} [laughed|danced|celebrated] until [midnight|sunrise|the {place} closed]",
    "{S} kept {the_thing} and [smiled|laughed] every time {the_other} [came by|asked about it]",
    "from then on {S} had a friend in {the_other} and [a bright home|hope for every day|a happy home]",
    "{the_thing} was [a blessing|full of hope] for {S} and for the {place}",
    "with {the_thing}, life at the {place} changed for the better",
)
_SAD = (
    "{S} [wept|cried] when {the_thing} [broke|sank|fell into the river|was sold] at the {place}",
    "{the_thing} was [lost for ever|gone for good], and {S} walked home from the {place}",
    "{S} never saw {the_other} again and stayed [lonely|sad] by the {place}",
    "{the_other} left the {place} in tears and {S} [kept|buried|lost] {the_thing}",
    "{S} found only [regret|sorrow|grief] where {the_thing} had been",
    "without {the_thing}, life at the {place} changed for the worse",
)
_PLAIN = (
    "then {S} put {the_thing} [away|on a shelf|into a box] and went [home|to the {place}|to bed]",
    "to this day {the_thing} [lies|stands|hangs] in the {place}, where {S} left it",
    "{S} [told|wrote to] {the_other} about {the_thing} and [slept|walked on|went home]",
    "{the_other} [nodded|said good night|locked the {place}], and {S} went on with {the_thing}",
)
_CONCRETE = (
    " past {number} {colour} [gates|barns|tents|boats|doors]",
    " with {number} {colour} [plums|ribbons|stones|feathers|beads]",
    ", {number} [miles|streets|hills] from the {colour} [barn|bridge|gate|house]",
    " in the smell of [fresh bread|wet leaves|pine smoke|ripe apples]",
    ", wrapped in {colour} [silk|paper|wool|cloth]",
    " beside a [wooden|copper|marble|glass] [well|door|bench|table]",
    ", {number} days after the [fair|flood|feast|frost]",
)
_LINKS = ("Then", "Soon", "Later", "Before long", "At last", "That night", "The next day", "Still")

_ASKS = (
    "Tell me a short story about {hero}.", "Write a short story about {hero}.",
    "I would like a story about {hero}, please.", "Can you tell me a story about {hero}?",
    "Make up a story about {hero}.", "Write a little bedtime story about {hero}.",
    "Please write a tale about {hero}.", "A story about {hero}, please.",
    "My kids want a bedtime story about {hero}.", "Invent a tale about {hero}.",
    "Could you tell me a tale about {hero}?", "Give me a few lines of story about {hero}.",
    "Start a story about {hero}.", "Write me a story with {hero} in it.",
)  # fmt: skip


def draw(rng: Random) -> Draft:
    """Draw a request for a story and the sentences that may tell it."""
    animal = rng.random() < 0.5
    kind = rng.choice(ANIMALS if animal else PEOPLE)
    name, pronoun = person(rng)
    trait, thing, place = rng.choice(TRAITS), rng.choice(THINGS), rng.choice(PLACES)
    named, has_trait = rng.random() < 0.55, rng.random() < 0.3
    quest = rng.choice(("", "", "", " who finds a {thing}", " who lost a {thing}", " and a {thing}",
                        " at the {place}", " looking for a {thing}")).format(thing=thing, place=place)  # fmt: skip
    hero = f"a {trait + ' ' if has_trait else ''}{kind}{' called ' + name if named else ''}{quest}"
    ask = rng.randrange(len(_ASKS))
    subject = (name, f"the {kind}") if named else (f"the {kind}",)
    if not named:
        pronoun = "it" if animal else pronoun
    others = [k for k in ANIMALS + PEOPLE if k != kind]
    return Draft(
        family="story", topic=f"{kind}/{thing if quest else ''}", phrasing=str(ask),
        prompt=fix_articles(_ASKS[ask].replace("{hero}", hero)),
        subject=subject, pronoun=pronoun,
        about=(f"the {kind}", *((name,) if named else ())),
        first=_FIRST, middle=_MIDDLE, happy=_HAPPY, sad=_SAD, plain_end=_PLAIN,
        concrete=_CONCRETE, vague=VAGUE_TAILS, links=_LINKS,
        context={"kind": kind, "trait": trait, "thing": thing, "place": place,
                 "the_thing": Introduced(thing), "the_other": Introduced(rng.choice(others)), "moment": MOMENTS,
                 "intro": "{S} was a {trait} {kind} who" if named else "{S} was {trait} and"},
        person=name if named else None,
    )  # fmt: skip
