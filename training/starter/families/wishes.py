"""Wishes and encouragement: a person, and the day that matters to them."""

from random import Random

from training.starter.text.composition import Draft
from training.starter.text.topics import DAYS, VAGUE_TAILS, person

# Each occasion with how the request names it and sentences that belong to it.
OCCASIONS: dict[str, tuple[str, ...]] = {
    "birthday": ("{who}, [another|one more] year has made you [wiser|stronger|braver]", "there will be [cake|music|old songs] for {O}", "!blow out the candles [slowly|at once|with care], {who}"),
    "wedding": ("{who}, may the [rings|shoes|speeches] fit on the day of {O}", "![dance|eat|talk] until late at {O}, {who}", "the two of you will [grow old|travel far|build a home] after {O}"),
    "exam": ("{who}, you have [read|learned|practised] enough for {O}", "![breathe|eat breakfast|sleep] before {O}, {who}", "!read each question of {O} to the end"),
    "new job": ("{who}, you [bring|know|have] what {O} [needs|asks for]", "![ask|listen|take notes] a lot in {O}", "the first week of {O} is [long|loud|odd], then it settles"),
    "driving test": ("{who}, look over your shoulder in {O}", "the streets of {O} are streets you know", "![breathe|slow down|wait] at each crossing in {O}, {who}"),
    "marathon": ("{who}, start {O} slowly", "!drink [early|often] in {O}, {who}", "the last part of {O} is in your head"),
    "operation": ("{who}, the doctors have done {O} many times", "!rest [well|for long] after {O}, {who}", "we will [visit|call|cook for] you after {O}"),
    "retirement": ("{who}, [sleep late|travel|garden] after {O}", "your desk will look empty after {O}", "we will [call|need|miss] you after {O}, {who}"),
    "concert": ("{who}, your hands know each piece of {O}", "![smooth your coat|tune up|breathe] before {O}, {who}", "the hall is [built|open|waiting] for {O}"),
    "job interview": ("{who}, tell them [what you built|your story] in {O}", "!ask them a question in {O}, {who}", "{S} is a talk between [equals|people], no more"),
    "first day of school": ("{who}, your bag is packed for {O}", "you will meet [a friend|your class] on {O}, {who}", "![sing|wave|look up] on the way to {O}"),
    "moving day": ("{who}, label the boxes before {O}", "[friends|strong arms|neighbours] will help on {O}, {who}", "new keys wait at the end of {O}"),
    "chess match": ("{who}, guard your queen in {O}", "!take your time in {O}, {who}", "!think twice before each move in {O}"),
    "graduation": ("{who}, you have [worked|waited|studied] long for {O}", "!throw your hat up high at {O}, {who}", "your family will [sit|clap|stand] in the front row at {O}"),
    "anniversary": ("{who}, {S} shows what patience can do", "!look at old [photos|letters] on {O}, {who}", "so many [breakfasts|winters|journeys] led to {O}"),
    "trip abroad": ("{who}, pack less for {O}", "!write to us from {O}, {who}", "try the [food|trains|markets] on {O}"),
    "house warming": ("{who}, we bring [salt and bread|a plant|chairs] to {O}", "the neighbours should come to {O}, {who}", "each room waits for {O}"),
    "speech": ("{who}, speak {O} to the last row", "!pause in {O} when you need to, {who}", "the first line of {O} is the hardest"),
    "recovery": ("{who}, {S} goes in small steps", "[sleep|soup|a short walk] will help {O}", "be patient with {O}, {who}"),
    "swimming meet": ("{who}, stretch before {O}", "look at your own lane in {O}, {who}", "the water of {O} is only water"),
}  # fmt: skip
_FIRST = (
    "{who}, [all the best|my best wishes|good wishes] for {O}[| on {day}]",
    "[all the best|best wishes] to you, {who}, for {O}[| on {day}| from us all]",
    "{who}, [this is for you|we think of you|I write to you] [before|because of|on account of] {O}",
    "{who}, {S} is [here|near|close|on {day}], and [my {kin}|the family|our street] [sends greetings|thinks of you|wishes you well]",
    "{who}, {S} [comes|is] on {day}, and we [think of you|wish you well|stand behind you]",
    "for {O}, {who}, [I wish|we wish] you [calm|strength|courage|patience]",
)
_MIDDLE = (
    "[my {kin}|the whole family|our street|your team] [talks|thinks|asks] about {O} [every day|since {day}|all week]",
    "{who}, you have [prepared|waited|worked] for {O} [since {day}|for long|with care]",
    "[I|we] will [call|write|come by] [on {day}|right after {O}|before {O}], {who}",
    "!remember what [your {kin}|my {kin}] said about {O}[| last {day}]",
    "{who}, [nobody|no one I know] is [better prepared|more patient|as ready] for {O}",
    "!take {O} [one step at a time|as it comes|with a deep breath], {who}",
    "[my {kin}|your {kin}] [baked something|lit a candle|kept {day} free] for {O}",
)
_HAPPY = (
    "{who}, {S} will make your {kin} smile[| on {day}]",
    "we will celebrate {O} [on {day}|with you|with your {kin}], {who}",
    "may {O} be a blessing [to you|for your {kin}|on {day}], {who}",
    "{who}, the days after {O} look bright [to me|from here|to my {kin}]",
    "there is hope in {O}, {who}[|, for your {kin} too]",
    "{who}, with {O} your life changes for the better",
)
_SAD = (
    "{who}, I am sad that I [miss|cannot be at] {O}[| on {day}]",
    "my {kin} cried because of {O}, {who}",
    "{who}, {S} may bring [tears|sorrow|heartache][| on {day}]",
    "it will be lonely here after {O}, {who}",
    "your {kin} felt gloomy about {O}[| on {day}]",
    "{who}, I regret that {S} comes [so late|without your {kin}]",
)
_PLAIN = (
    "![see|call|write to] us after {O}, {who}",
    "![rest|eat well|sleep well] [before|after] {O}, {who}",
    "!tell us [about {O}|how {S} went] [on {day}|next week], {who}",
)
_CONCRETE = (
    " with {number} {colour} [balloons|candles|tulips|ribbons]", " at {number} in the [morning|evening]",
    " under a {colour} [hat|sky|lamp|roof]", " over {number} cups of [tea|coffee]",
    " with the [smell|scent] of [vanilla|roses|pine|fresh coffee] in the air",
    " at the {colour} [kitchen table|front door|garden gate]",
)  # fmt: skip
_LINKS = ("Really", "As always", "To be honest", "Until then", "Of course", "Deep down", "You know")
_ASKS = (
    "Write a wish to {to} for the {day}.", "Wish {to} all the best for the {day}.",
    "What can I write to {to} for the {day}?", "I need a card for {to} for the {day}.",
    "Encourage {to} before the {day}.", "Please write a few lines to {to} about the {day}.",
    "Help me cheer up {to} before the {day}.", "Send {to} good wishes for the {day}.",
    "A short message to {to} for the {day}, please.", "Can you write {to} a card for the {day}?",
    "Words of support to {to} for the {day}.", "Compose a greeting to {to} for the {day}.",
)  # fmt: skip


def draw(rng: Random) -> Draft:
    """Draw a request for a wish."""
    name, pronoun = person(rng)
    kin = {"she": ("sister", "aunt", "daughter", "niece"), "he": ("brother", "uncle", "son", "nephew")}
    role = rng.choice((*kin[pronoun], "friend", "colleague", "neighbour")) if rng.random() < 0.4 else ""
    to = f"my {role} {name}" if role else name
    day = rng.choice(tuple(OCCASIONS))
    ask = rng.randrange(len(_ASKS))
    return Draft(
        family="wishes", topic=day, phrasing=str(ask),
        prompt=_ASKS[ask].replace("{to}", to).replace("{day}", day),
        subject=(f"the {day}", f"your {day}", f"the {day}"), pronoun="it",
        about=(f"the {day}", f"the card for {name}"),
        first=_FIRST, facts=OCCASIONS[day], middle=_MIDDLE, happy=_HAPPY, sad=_SAD, plain_end=_PLAIN,
        concrete=_CONCRETE, vague=VAGUE_TAILS, links=_LINKS,
        context={"who": name, "day": DAYS, "kin": ("sister", "brother", "mother", "father", "cousin", "aunt", "uncle")},
        person=name,
    )  # fmt: skip
