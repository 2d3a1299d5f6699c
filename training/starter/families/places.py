"""Descriptions of places, at some time of day or year."""

from random import Random

from training.starter.text.composition import Draft
from training.starter.text.grammar import fix_articles
from training.starter.text.topics import VAGUE_TAILS, person

# Each place with what moves there, what stands there, and what one hears.
PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "harbour": (("gulls", "fishing boats", "sailors"), ("the pier", "a stack of nets", "the crane"), ("ropes creak", "a horn calls", "waves slap the wall")),
    "forest": (("deer", "beetles", "falling leaves"), ("an oak", "a mossy rock", "the trail"), ("twigs crack", "a cuckoo calls", "the wind hums")),
    "market": (("traders", "shoppers", "pigeons"), ("the fruit stand", "a row of crates", "a big scale"), ("prices are shouted", "coins ring", "a cart rattles")),
    "beach": (("children", "crabs", "kites"), ("the pier", "a row of huts", "a tall dune"), ("waves roll up", "gulls cry out", "a radio plays")),
    "library": (("readers", "students", "old scholars"), ("the long table", "a ladder", "the top shelf"), ("pages turn", "a chair scrapes", "someone whispers")),
    "railway station": (("travellers", "porters", "trains"), ("the clock", "a kiosk", "the platform"), ("a whistle blows", "doors slam", "a voice reads out names")),
    "castle": (("bats", "guides", "ravens"), ("the gate", "a tower", "the moat"), ("steps echo", "a flag flaps", "chains rattle")),
    "kitchen": (("cooks", "children", "flies", "aunts and uncles"), ("the stove", "a bowl", "the sink"), ("a pan hisses", "the kettle sings", "water drips")),
    "village": (("hens", "farmers", "cyclists"), ("the well", "a church", "the bakery"), ("a bell rings", "a dog barks", "a tractor hums")),
    "desert": (("lizards", "camels", "clouds of sand"), ("a dune", "the dry well", "a tent"), ("the wind hisses", "stones crack", "nothing stirs")),
    "mountain lake": (("trout", "hikers", "dragonflies"), ("a hut", "the shore", "a rowing boat"), ("water laps", "a marmot whistles", "an oar dips")),
    "school yard": (("pupils", "sparrows", "teachers"), ("the fence", "a climbing frame", "the bench"), ("a bell rings", "balls bounce", "someone counts aloud")),
    "airport": (("pilots", "families", "carts"), ("the gate", "a long window", "the belt"), ("engines roar", "wheels rumble", "a voice calls a flight")),
    "farm": (("hens", "farm hands", "calves"), ("the barn", "a gate", "the haystack"), ("a rooster crows", "a bucket clanks", "cows low")),
    "theatre": (("actors", "guests", "ushers"), ("the stage", "a curtain", "the balcony"), ("seats fold", "a violin tunes", "the crowd murmurs")),
    "garden": (("bees", "gardeners", "butterflies"), ("the hedge", "a bench", "the pond"), ("a rake scratches", "water trickles", "a thrush sings")),
    "night train": (("sleepers", "conductors", "shadows"), ("the corridor", "a bunk", "the window"), ("rails click", "a door slides", "someone snores")),
    "old bridge": (("walkers", "ducks", "cyclists"), ("the arch", "a lamp", "the railing"), ("water rushes", "steps ring", "a bicycle rattles")),
    "bookshop": (("readers", "tourists", "poets"), ("the window", "a ladder", "the till"), ("pages turn", "the door squeaks", "rain taps the glass")),
    "lighthouse": (("gulls", "moths", "painters"), ("the lamp", "a spiral stair", "a flat rock"), ("waves crash", "the wind howls", "the lens hums")),
    "vineyard": (("pickers", "starlings", "wasps"), ("the press", "a stone wall", "the cellar door"), ("shears click", "baskets drop", "a cart creaks")),
    "city park": (("joggers", "squirrels", "chess players"), ("the fountain", "a bench", "the lawn"), ("leaves rustle", "a skateboard rolls", "children call")),
    "cave": (("bats", "climbers", "spiders"), ("the entrance", "a pool", "the ledge"), ("water drips", "a stone falls", "voices echo")),
    "workshop": (("carpenters", "apprentices", "sparks"), ("the bench", "a saw", "the vice"), ("a hammer taps", "a plane scrapes", "a drill whines")),
    "hospital": (("nurses", "visitors", "doctors"), ("the front desk", "a bed", "the lift"), ("shoes squeak", "a pager beeps", "a trolley rolls")),
    "fair": (("children", "jugglers", "couples"), ("the carousel", "a tent", "the shooting stand"), ("an organ plays", "a bell rings", "people scream on the big wheel")),
    "swamp": (("herons", "frogs", "midges"), ("a dead tree", "the boardwalk", "the reed bed"), ("mud gurgles", "a frog croaks", "wings beat")),
    "rooftop": (("pigeons", "neighbours", "stray cats"), ("the chimney", "an aerial", "the edge"), ("traffic hums", "a sheet flaps", "a phone rings")),
    "bus stop": (("commuters", "students", "sparrows"), ("the timetable", "a bench", "the kerb"), ("brakes squeal", "a door sighs", "rain taps the roof")),
    "greenhouse": (("gardeners", "bees", "snails"), ("a row of pots", "a tap", "the glazed roof"), ("a hose drips", "a fan hums", "soil crumbles")),
}  # fmt: skip
TIMES = (
    "at dawn", "at noon", "at dusk", "at midnight", "in winter", "in spring", "in autumn",
    "in high summer", "after rain", "in the fog", "on a Sunday", "before a storm",
)  # fmt: skip
_FIRST = (
    "{time}, {S} [lies|seems|waits|rests] [half asleep|wide open|still] behind {stand}",
    "{S} [wakes|changes|slows down] {time}, when {mover} [come|pass by|gather] near {stand}",
    "in {O} {time}, you [notice|meet|see] {mover} [near|behind|beside] {stand}",
    "![step|walk|come] into {O} {time} and [hear how|notice that] {sound}",
    "{stand} is the first thing one sees in {O} {time}",
    "{time}, {mover} fill {O} and {sound}",
)
_MIDDLE = (
    "{sound} [near|behind|beside|beyond] {stand}, [and|while] {mover} [rest|move on|gather|wait]",
    "{mover} [cross|circle|pass|leave] {O} [slowly|in a hurry|without a word] while {sound}",
    "from {stand} you can [watch|follow|count] {mover} [as they come|until they leave|and listen]",
    "[light|mist|dust|shade] [lies on|creeps over|covers] {stand} while {sound}",
    "the air [in|of] {O} is [cool|heavy|mild|sharp] near {stand}",
    "[somewhere|far off|close by] {sound}, and {mover} [look up|take no notice|stop]",
    "[an old man|a girl|a stranger] [leans on|sits near|sketches|sleeps by] {stand} and [watches|ignores] {mover}",
    "{P} [walls|corners|paths] [lead|point] to {stand}, where {mover} [rest|wait|gather]",
    "you can [stay|sit|wait] by {stand} until {sound}",
)
_HAPPY = (
    "people leave {O} with a smile [while {sound}|and pass {stand}]",
    "[a family|an old pair|a group of friends] [laughed|danced|celebrated] by {stand} as {sound}",
    "everyone near {stand} is happy when {sound}",
    "{S} gives hope to [all who come|those at {stand}]",
    "{S} is a blessing [to all who live here|when {sound}]",
    "since {stand} was mended, {S} has changed for the better",
)
_SAD = (
    "[a child|an old man|a woman] cried by {stand} while {sound}",
    "{S} is a lonely place when {sound}",
    "the old days of {O} are [gone for good|lost for ever], and {sound}",
    "there is [grief|sorrow|heartache] in {O} when {sound}",
    "{stand} looks [sad|gloomy] [when {sound}|while {mover} move on]",
    "since {mover} left, {S} has changed for the worse",
)
_PLAIN = (
    "then {sound}, and {S} [goes on as before|is left to {mover}|closes for the day]",
    "[in the end|at last] only {stand} and {mover} are left in {O}",
    "so {S} is [as it was|itself] again, and {sound}",
)
_CONCRETE = (
    " beside {number} {colour} [boxes|lamps|chairs|flags|barrels]",
    " under a {colour} [sky|roof|sign|sail]", ", {number} steps from a [wooden|copper|marble|glass] [door|bench|post]",
    " in the smell of [salt|smoke|wet wool|hay|oil]", " at {number} in the [morning|evening]",
    " with {number} {colour} [stones|bottles|birds|ribbons]", ", with the taste of [salt|dust|honey|iron] in the air",
)  # fmt: skip
_LINKS = ("Further on", "A little later", "All the while", "Now and then", "At times", "Then", "Here")
_ASKS = (
    "Describe {place} {time}.", "What is {place} like {time}?", "Paint a picture of {place} {time}.",
    "Write a short description of {place} {time}.", "I need a scene in {place} {time}.",
    "Please describe {place} {time} for my book.", "Can you describe {place} {time}?",
    "How does {place} feel {time}?", "Take me to {place} {time}.", "Set the scene: {place} {time}.",
    "What would one see in {place} {time}?", "Describe {place} {time} to my friend {name}.",
)  # fmt: skip


def draw(rng: Random) -> Draft:
    """Draw a request for the description of a place."""
    place, time = rng.choice(tuple(PLACES)), rng.choice(TIMES)
    movers, stands, sounds = PLACES[place]
    ask = rng.randrange(len(_ASKS))
    named = "{name}" in _ASKS[ask]
    name = person(rng)[0]
    prompt = fix_articles(_ASKS[ask].replace("{place}", f"a {place}"))
    prompt = prompt.replace("{time}", time).replace("{name}", name)
    first = [f"{name}, {text}" for text in _FIRST] if named else _FIRST
    return Draft(
        family="places", topic=f"{place}/{time}", phrasing=str(ask), prompt=prompt,
        subject=(f"the {place}",), pronoun="it", about=(f"the {place}", f"the {place} {time}"),
        first=first, middle=_MIDDLE, happy=_HAPPY, sad=_SAD, plain_end=_PLAIN,
        concrete=_CONCRETE, vague=VAGUE_TAILS, links=_LINKS,
        context={"time": time, "mover": movers,
                 "stand": stands, "sound": sounds},
        person=name if named else None,
    )  # fmt: skip
