"""Explanations for a child: what a thing is, how it comes about, what to look for."""

from random import Random

from training.starter.text.composition import Draft
from training.starter.text.grammar import fix_articles
from training.starter.text.topics import VAGUE_TAILS, person

# Each subject with its question, and facts in which {S} is the subject.
SUBJECTS: dict[str, tuple[str, ...]] = {
    "rainbow": ("{S} [appears|forms] when sunlight [meets|passes through|bends inside] [raindrops|drops of rain]", "water splits the light of {O} into [bands|stripes|many shades]", "you see {O} with the sun [behind you|at your back]", "{S} fades when the [rain stops|clouds close|sun goes in]"),
    "thunder": ("{S} is the [sound|noise|boom] that lightning makes", "lightning heats the air so fast that it [bursts|jumps apart] and makes {O}", "{S} comes after the flash because sound is [slow|slower than light]", "!count after the flash and you will know how far {S} is"),
    "moon": ("{S} has no light of its own, it [mirrors|throws back] sunlight", "{S} goes round the earth about once a month", "{S} seems to change shape because the sun lights [only one side|different parts]", "people have [walked|jumped|left footprints] on {O}"),
    "snow": ("{S} forms when water in a cloud [freezes|turns to ice crystals]", "each flake of {O} is a [star|pattern] of ice", "{S} looks pale because it scatters [light|every ray]", "{S} melts when the air [warms up|is not freezing]"),
    "magnet": ("{S} pulls on [iron|steel|nails and pins] without touching", "each end of {O} is called a pole", "equal poles of {O} push apart", "the earth itself works the way {S} does, so a compass can point north"),
    "wind": ("{S} is [air that moves|moving air]", "warm air rises, cool air flows in, and that makes {O}", "{S} can [carry seeds|turn a mill|push a ship]", "you cannot see {O}, but you can see [leaves|flags|waves] move"),
    "volcano": ("{S} is a mountain with an opening to the hot rock below", "deep under {O} rock is so hot that it [melts|flows]", "melted rock that leaves {O} is called lava", "the soil around {O} is good for [plants|farming|vines]"),
    "shadow": ("{S} is the place where light [cannot reach|is blocked]", "{S} is long [in the evening|when the sun is low]", "{S} moves because you [move|stand in the light]", "no light means no {O}, so look for it [at noon|near a lamp]"),
    "echo": ("{S} is a sound that comes back from a [wall|cliff|hill]", "sound bounces the way a ball does, and that is {O}", "you hear {O} well in a [tunnel|canyon|empty hall]", "soft things such as curtains swallow {O}"),
    "soap": ("{S} grabs fat with one end and water with the other", "dirt sticks to {O} and then [rinses off|flows away]", "{S} breaks the coat of many germs", "bubbles of {O} are a thin skin of water around air"),
    "bee": ("{S} collects nectar from [flowers|blossoms] and carries it home", "{S} tells others where food is by [a dance|wagging]", "without {O} there would be fewer [apples|cherries|fruits]", "{S} lives in a hive with a queen and many sisters"),
    "battery": ("{S} stores energy in [chemicals|special metals]", "when you close the circuit, {S} pushes current through the wire", "{S} is empty when its chemicals are used up", "a phone fills {O} again with current from the wall"),
    "mirror": ("{S} throws light back the way it came", "{S} is a smooth sheet with thin metal behind it", "{S} swaps [near and far|front and back], which looks like left and right", "a calm lake can act the way {S} does"),
    "money": ("{S} lets people trade without swapping [cows|bread|shoes]", "{S} has value because [everyone|each shop] accepts it", "people earn {O} by [working|selling things|helping others]", "when you save {O}, you can buy something bigger later"),
    "bridge": ("{S} carries [people|cars|trains] over water or a valley", "{S} must hold its own weight and the weight of traffic", "an arch lets {O} push its load to the sides", "engineers test {O} before anyone may cross"),
    "ice": ("{S} is water that has become [cold and hard|solid]", "{S} floats because it is lighter than water", "salt melts {O} [on a road|in winter]", "when {S} warms up, it turns back to water"),
    "tide": ("{S} is the sea going up and down", "the moon pulls the water and makes {O}", "{S} comes in, stops, and goes out again", "[crabs|sailors|fishers] have to know when {S} turns"),
    "star": ("{S} is a huge ball of glowing gas, far away", "the sun is {O} too, only much closer", "{S} twinkles because the air in between [moves|shakes]", "the light of {O} travels for years before you see it"),
    "cloud": ("{S} is made of tiny drops of water", "warm air lifts water up, it cools, and {S} forms", "when the drops in {O} get heavy, it rains", "fog is {O} that touches the ground"),
    "compass": ("the needle of {O} is a small magnet", "{S} points north because the earth is magnetic", "!keep {O} away from [iron|phones|magnets]", "sailors used {O} when they could not see land"),
    "aeroplane": ("the wings of {O} push air down, and the air lifts it up", "{S} needs speed before it can leave the ground", "engines push {O} forward", "the pilot tilts flaps to turn {O}"),
    "clock": ("{S} counts equal steps of time", "inside {O} a spring or a battery drives wheels", "the short hand of {O} shows the hour", "before {O}, people used the sun and shadows"),
    "candle": ("the heat of the flame melts wax, and the wick of {O} drinks it up", "{S} needs air to burn", "the flame of {O} is hottest near the top", "!put a jar over {O} and it goes out"),
    "heart": ("{S} pumps blood around your body", "{S} beats faster when you run", "{S} is a muscle about as big as your fist", "you can feel {O} in your wrist"),
    "gravity": ("{S} pulls everything towards the ground", "{S} is weaker on the moon, so you could jump higher there", "{S} keeps the moon near the earth", "a ball comes down again because of {O}"),
    "bread": ("yeast eats sugar and makes gas, and so {S} rises", "the holes in {O} are old gas bubbles", "heat makes {O} firm and gives it a crust", "{S} needs flour, water, salt and time"),
    "spider web": ("{S} is made of silk from the body of a spider", "{S} is sticky and catches flies", "silk of {O} is very strong for its weight", "the spider feels when {S} shakes"),
    "telescope": ("{S} collects more light than your eye can", "lenses in {O} bend light to a point", "with {O} you can see craters on the moon", "the bigger {S} is, the fainter the stars it shows"),
    "sleep": ("during {O} your brain sorts what you learned", "your body grows and mends itself during {O}", "without enough {O} you get grumpy", "dreams come in a special part of {O}"),
    "fever": ("{S} is your body turning up its heat", "germs do not like {O}", "with {O} you should rest and drink water", "{S} goes down when the body has won"),
    "hiccup": ("{S} starts when the muscle under your lungs jumps", "air rushes in, your throat snaps shut, and that is {O}", "{S} can come from eating too fast", "holding your breath may stop {O}"),
    "seed": ("{S} holds a baby plant and its first meal", "{S} waits for water and warmth", "a root grows out of {O} first", "birds and wind carry {O} to new places"),
    "recycling": ("{S} turns old paper and cans into new ones", "{S} saves trees and energy", "sorting your rubbish is the start of {O}", "without {O} we would bury more waste"),
    "vaccine": ("{S} shows your body what a germ looks like", "after {O} your body knows how to fight the germ", "{S} can make your arm sore for a while", "{S} protects people around you too"),
    "internet": ("{S} is a net of computers that talk to each other", "messages on {O} travel in little packets", "cables under the sea carry {O} between lands", "not all you read on {O} is true"),
    "kite": ("{S} flies because wind pushes it up", "the string keeps {O} tilted into the wind", "a tail keeps {O} steady", "!let out more string and {S} climbs"),
}  # fmt: skip
_NO_ARTICLE = frozenset({"thunder", "snow", "wind", "soap", "money", "ice", "gravity", "bread", "sleep", "recycling"})
_THE = frozenset({"moon", "tide", "internet", "heart"})

_FIRST = (
    "{S} is [easy|not so hard|simple] to [explain|understand|grasp], {kid}",
    "{kid}, [here is|let me show you|this is] how {S} works",
    "{kid}, [imagine|picture|think of] {O} [in|on the way to|somewhere near] {spot}",
    "[people|children|teachers|scientists] have [asked|wondered|talked] about {O} [for ages|since long ago|for a long time]",
    "{kid}, when you [see|meet|hear of] {O}, [stop|wait|think] and [look|ask why|watch]",
    "to [understand|explain] {O}, [start|begin] with what {who} [sees|asks|knows] in {spot}",
    "{who} once asked me about {O} [in|on the way to] {spot}",
)
_MIDDLE = (
    "you can [test|try|look for|draw] {O} in {spot} with {who}",
    "![ask|tell|show] {who} [what|how much] you know about {O}",
    "![draw|find|write down|look up] {O} [in a book|on paper|this week] and show {who}",
    "{who} [explained|showed|drew] {O} [to me|for the class] in {spot}",
    "[some|many|most] people [learn|hear|read] about {O} [in|on the way to] {spot}",
    "{who} in {spot} [knows|asks|reads] [a lot|much] about {O}",
)
_HAPPY = (
    "{who} smiled when I [explained|described|drew] {O} [in|on the way to] {spot}",
    "{who} [laughed|cheered] at [my drawing of|a song about|my story of] {O} in {spot}",
    "to understand {O} is a blessing [for {who}|in {spot}]",
    "{who} was happy [to learn about|to hear of] {O} in {spot}",
    "{who} drew {O} with a smile in {spot}",
    "there is hope that {who} will [understand|explain] {O} [too|in {spot}]",
)
_SAD = (
    "{who} [cried|wept] because nobody in {spot} could explain {O}",
    "the [oldest|best|first] [tales|songs|books] about {O} are [lost for ever|gone for good]",
    "{who} felt lonely in {spot} and thought about {O}",
    "it is sad that {who} [never learned|never heard|forgot] about {O}",
    "{who} wept in {spot} for want of a good answer about {O}",
    "there were tears in {spot} when {who} [failed to explain|forgot] {O}",
)
_PLAIN = (
    "so now you know [why|how] {S} [matters|works], {kid}",
    "[next time|tomorrow|this week] you can explain {O} to {who}",
    "{kid}, [keep asking|think again|read more] about {O} when you are in {spot}",
)
_SPOTS = (
    "the kitchen", "the school yard", "the park", "the museum", "the street", "the village",
    "the playground", "the old barn", "the city", "the station", "the garden", "the library",
    "the classroom", "the workshop", "the theatre", "the cellar", "the attic",
)  # fmt: skip
_WHO = (
    "a teacher", "my grandmother", "a girl next door", "a sailor", "my uncle", "a boy in my class",
    "a friend", "the baker", "your mother", "your father", "my neighbour", "a farmer", "my cousin",
    "the doctor", "an old man", "a young woman", "my brother", "the librarian", "a student",
)  # fmt: skip
_CONCRETE = (
    ", about {number} times a [day|week|month|year]", ", even from {number} [miles|steps|houses] away",
    " beside a {colour} [bucket|ball|balloon|boat]", " with {number} {colour} [marbles|blocks|pencils|buttons]",
    " next to a [wooden|copper|glass|tin] [box|spoon|cup|bowl]", " with the smell of [rain|chalk|hot metal|wet grass]",
    " in {number} [small|quick|easy] steps",
)  # fmt: skip
_LINKS = ("You see", "First of all", "So", "Also", "In short", "Then again", "Remember", "Often")
_ASKS = (
    "Explain {it} to a child.", "Explain {it} to a six-year-old.", "How does {it} work?",
    "What is {it}? Please explain it simply.", "My daughter asks about {it}. What do I say?",
    "Can you explain {it} in simple words?", "Tell a child about {it}.",
    "How would you explain {it} to kids?", "What should a child know about {it}?",
    "My son wants to understand {it}.", "Please explain {it} for kids.",
    "Explain {it} to {kid}, who is seven.", "{kid} is six and asks about {it}.",
    "Teach {kid} about {it} in a few sentences.",
)  # fmt: skip


def draw(rng: Random) -> Draft:
    """Draw a request for an explanation."""
    topic = rng.choice(tuple(SUBJECTS))
    the = topic if topic in _NO_ARTICLE else f"the {topic}" if topic in _THE else fix_articles(f"a {topic}")
    ask = rng.randrange(len(_ASKS))
    named = "{kid}" in _ASKS[ask]
    name = person(rng)[0]
    kid = (name,) if named else ("dear child", "little one", "young friend", "my young reader")
    return Draft(
        family="explain", topic=topic, phrasing=str(ask),
        prompt=_ASKS[ask].replace("{it}", the).replace("{kid}", name),
        subject=(the,), pronoun="it", about=(the,),
        first=[f if not named or "{kid}" in f else f"{{kid}}, {f}" for f in _FIRST], facts=SUBJECTS[topic], middle=_MIDDLE,
        happy=_HAPPY, sad=_SAD, plain_end=_PLAIN, concrete=_CONCRETE, vague=VAGUE_TAILS,
        links=_LINKS, context={"kid": kid[1:] or kid, "spot": _SPOTS, "who": _WHO},
        person=name if named else None,
    )  # fmt: skip
