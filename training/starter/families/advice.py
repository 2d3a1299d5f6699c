"""Everyday advice: a small problem, and what may help."""

from random import Random

from training.starter.text.composition import Draft
from training.starter.text.topics import DAYS, VAGUE_TAILS, person

# Each aim as a gerund with tips in the imperative; the aim's key word stands in the request.
AIMS: dict[str, tuple[str, ...]] = {
    "falling asleep": ("keep your phone [out of the bedroom|in the kitchen]", "go to bed at the same [hour|time] each night", "read [a paper book|a dull book] before bed", "leave out coffee after lunch", "let cool air into the bedroom"),
    "waking up early": ("put the alarm [across the room|on the far shelf]", "lay out your clothes the night before", "drink water [at once|as you get up]", "open the curtains [first|before you think]"),
    "saving money": ("write down what you [spend|buy]", "cook at home [more often|before payday]", "move part of your wages [aside|to a second account]", "wait a night before you buy"),
    "learning a language": ("speak [aloud|with a neighbour|to yourself]", "learn whole sentences, not single words", "label things in your kitchen", "watch films without subtitles"),
    "cleaning the kitchen": ("start with the sink", "wash up while the food cooks", "throw out what you never use", "wipe the stove while it is warm"),
    "making friends": ("join a [choir|club|team]", "ask people about their day", "invite a neighbour for coffee", "show up at the same place each week"),
    "running a race": ("start [slowly|with short runs]", "buy shoes that fit", "rest a day between runs", "run with a friend"),
    "keeping a plant alive": ("check the soil before you water", "turn the pot towards the light", "take off dry leaves", "use a pot with a hole in it"),
    "writing a letter": ("begin with the main point", "read it aloud before you send it", "write the way you speak", "keep each paragraph short"),
    "giving a speech": ("learn your first line by heart", "look at a [kind|calm] face in the room", "speak more slowly than feels right", "practise in front of a mirror"),
    "passing an exam": ("solve old papers", "explain the matter to a friend", "sleep well the night before", "plan breaks between your hours"),
    "cooking rice": ("rinse the rice until the water is clear", "keep the lid closed", "let the rice rest before you serve it", "use less water than you think"),
    "packing a suitcase": ("roll your clothes", "write a list first", "wear the heavy shoes", "leave room for the way back"),
    "training a puppy": ("reward it at once", "keep the lessons short", "use the same word each time", "take it out after each meal"),
    "calming a baby": ("walk up and down with the baby", "sing a low song", "dim the lights", "check for cold feet"),
    "fixing a bicycle": ("check the chain first", "keep the tyres firm", "clean the brakes", "oil the chain after rain"),
    "baking bread": ("weigh the flour", "give the dough time", "heat the oven well", "put a bowl of water in the oven"),
    "finding a job": ("ask people you have worked with", "write a fresh letter each time", "practise the interview", "keep a list of where you applied"),
    "eating more vegetables": ("cut them up in advance", "add them to soup", "try a new one each week", "roast them with oil and salt"),
    "stopping a cold": ("drink [hot tea|plenty of water]", "stay in bed", "breathe steam over a bowl", "wash your hands often"),
    "choosing a gift": ("think of what they do at weekends", "ask their best friend", "give time instead of things", "add a note in your own hand"),
    "hosting a party": ("cook the day before", "clear a table for drinks", "start the music early", "let guests help"),
    "growing tomatoes": ("give them sun all day", "tie them to a stick", "water the roots, not the leaves", "pinch out side shoots"),
    "painting a wall": ("tape the edges first", "stir the paint well", "work from the top down", "let the first coat dry"),
    "reading more": ("carry a book in your bag", "drop books that bore you", "read before bed", "swap books with a friend"),
    "drinking less coffee": ("swap the last cup for tea", "use a smaller cup", "drink water first", "go for a walk at noon"),
    "settling a quarrel": ("listen to the end", "say what you feel without blame", "wait until you are calm", "ask what the other needs"),
    "feeling less nervous": ("breathe out slowly", "tell a friend about it", "move your shoulders", "plan the first step only"),
    "swimming better": ("keep your head low", "breathe out under water", "kick from the hip", "swim short lanes with rests"),
    "using my phone less": ("turn off the alerts", "leave it in another room", "carry a book instead", "set fixed hours for messages"),
}  # fmt: skip
_FIRST = (
    "{S} [takes|needs] [some patience|a plan|practice|small steps], so [start|begin] {when}",
    "for {O}, [start|begin] {when} and [go step by step|do not rush|keep it simple]",
    "[most|many|a lot of] people find {O} [hard|slow|confusing] {when}",
    "[the trick|the secret|the first rule] with {O} is to [start|prepare|be ready] {when}",
    "{S} [gets|becomes] easier when you [plan|practise|do a bit] {when}",
    "my {kin} [struggled|needed help] with {O} [last year|for months|too] and started {when}",
)
_MIDDLE = (
    "![tell|ask] [your {kin}|a friend|a neighbour] to [join|help|remind] you {when}",
    "![write|note] what [works|fails] for {O} in a [notebook|diary|list] {when}",
    "you must not [worry|stop] if {S} [goes wrong|takes longer|feels odd] at first",
    "![plan|set aside|keep free] [an hour|some time|a corner of your day] for {O} {when}",
    "![think about|look at] why {S} [matters to you|is on your mind] before you start",
    "![reward|praise] yourself for {O} [now and then|at the end of the week]",
)
_HAPPY = (
    "soon {S} will make you smile",
    "my {kin} laughed out loud when {S} worked in the end",
    "there is hope for {O} [even for beginners|for each of us|at any age]",
    "with {O}, [life|your week|your home] will change for the better",
    "you will be happy that you [tried|stayed with|worked on] {O}",
    "a bright [week|season|life] waits behind {O}",
)
_SAD = (
    "my {kin} cried over {O} and gave up",
    "{S} may bring [tears|heartache|sorrow] at first",
    "many [regret that they put off|grow lonely over] {O}",
    "without help, {S} will only change for the worse",
    "it is sad how often {S} fails",
    "my {kin} felt gloomy because {S} did not work",
)
_PLAIN = (
    "![try|repeat|keep up] this for [a while|some weeks] and look at {O} again {when}",
    "after that, {S} [becomes a habit|is a matter of practice|is up to you]",
    "![see|decide] {when} which of these helps with {O}",
)
_WHENS = (
    "in the morning", "after dinner", "before bed", "at the weekend", "on {day}", "each {day}",
    "after work", "before breakfast", "when the house is quiet", "once a week",
    "when you feel fresh", "with some music", "on the way home", "at lunchtime",
)  # fmt: skip
_CONCRETE = (
    " for {number} [minutes|days|weeks]", " with {number} {colour} [cards|notes|boxes|stickers]",
    " at [half past|a quarter to] {number}", " next to a {colour} [lamp|chair|mug|clock]",
    " with the scent of [mint|lemon|lavender|coffee]", " on a [wooden|marble|tin|glass] [table|shelf|tray]",
    ", {number} times in a row",
)  # fmt: skip
_LINKS = ("First", "Then", "Also", "After that", "If you can", "For a start", "Besides", "In time")
_ASKS = (
    "How do I get better at {aim}?", "Any advice on {aim}?", "I need help with {aim}.",
    "What helps with {aim}?", "Give me a tip on {aim}.", "I have trouble with {aim}.",
    "Please give me advice about {aim}.", "What is your advice for {aim}?",
    "I am new to {aim}. Where do I start?", "Do you have tips for {aim}?",
    "Can you help me with {aim}?", "What should I know about {aim}?",
    "My friend {name} has trouble with {aim}. What can I say?",
    "What would you tell {name} about {aim}?",
)  # fmt: skip


def draw(rng: Random) -> Draft:
    """Draw a request for advice."""
    aim = rng.choice(tuple(AIMS))
    ask = rng.randrange(len(_ASKS))
    named = "{name}" in _ASKS[ask]
    name = person(rng)[0]
    return Draft(
        family="advice", topic=aim, phrasing=str(ask),
        prompt=_ASKS[ask].replace("{aim}", aim).replace("{name}", name),
        subject=(aim.replace(" my ", " your "),), pronoun="it",
        about=(aim.replace(" my ", " your "),),
        first=[f"{name}, {f}" for f in _FIRST] if named else _FIRST,
        facts=[f"!{tip}[|||, best {{when}}]" for tip in AIMS[aim]], middle=_MIDDLE,
        happy=_HAPPY, sad=_SAD, plain_end=_PLAIN, concrete=_CONCRETE, vague=VAGUE_TAILS,
        links=_LINKS,
        context={"day": DAYS, "when": _WHENS, "kin": ("sister", "brother", "mother", "father", "son", "daughter", "aunt", "uncle", "cousin")},
        person=name if named else None,
    )  # fmt: skip
