"""Thank-you notes: a person, and what they gave or did."""

from random import Random

from training.starter.text.composition import Draft
from training.starter.text.topics import DAYS, VAGUE_TAILS, person

# Each gift with what it does for the writer; {S} is the gift.
GIFTS: dict[str, tuple[str, ...]] = {
    "scarf": ("{S} keeps my neck [warm|cosy|safe from the wind] on the way to work", "I wear {O} [on every walk|to the market|even indoors]"),
    "cake": ("{S} was gone [before noon|within an hour|by teatime]", "my guests asked for the recipe of {O}"),
    "lamp": ("{S} stands [by my bed|on my desk|next to my chair] and helps me read", "the corner of my room [glows|looks new] because of {O}"),
    "book": ("I read {O} [in one night|on the train|twice already]", "{S} now lies [by my bed|on top of the pile|open on my desk]"),
    "teapot": ("{S} comes out [every afternoon|when friends visit|with the good cups]", "tea tastes [better|stronger] from {O}"),
    "plant": ("{S} has [a new leaf|grown a lot|found its spot by the window]", "I water {O} [each week|with care|before breakfast]"),
    "sweater": ("{S} fits [well|as it should|better than my old one]", "I wore {O} [to work|on a long walk|all weekend]"),
    "painting": ("{S} hangs [over the sofa|in the hall|by the window]", "every guest stops to look at {O}"),
    "bicycle": ("{S} takes me [to work|to the lake|up every hill]", "I rode {O} [along the river|into town|past your street]"),
    "umbrella": ("{S} saved me [from the rain|on the way home|in the storm]", "I carry {O} [on grey days|to the office|on each walk]"),
    "soup": ("{S} got me through [the cold|a hard week|the evening]", "I warmed {O} up [for lunch|twice|after work]"),
    "watch": ("{S} has made me [on time|early for once|look smart]", "I look at {O} [all day|in every meeting|on the bus]"),
    "blanket": ("{S} lies [on the sofa|across my bed|over my knees]", "we fight over {O} [each evening|on cold nights]"),
    "guitar": ("I practise on {O} [after dinner|before work|when I am alone]", "{S} already knows [a song|my clumsy hands]"),
    "camera": ("I took {O} [to the coast|to the wedding|on our trip]", "{S} makes [even my street|our garden|each face] look fine"),
    "jam": ("{S} goes on [my toast|everything|fresh bread] each morning", "the jar of {O} is half empty"),
    "bouquet": ("I put {O} [on the table|by the window|in the tall vase]", "the whole room changed with {O}"),
    "concert ticket": ("I used {O} [last night|at the weekend|with my sister]", "without {O} I would have stayed home"),
    "vase": ("{S} holds [roses|wild grass|branches] now", "I placed {O} [in the hall|on the shelf|by the door]"),
    "puzzle": ("we worked on {O} [all weekend|after dinner|on the floor]", "{S} kept us [busy|awake|off our phones]"),
    "advice": ("I followed {O} [at once|step by step|in my talk]", "{S} saved me [weeks of work|from a big mistake]"),
    "lift to the airport": ("without {O} I would have missed my flight", "{S} saved me [a taxi|a cold walk|much worry]"),
    "help with the move": ("without {O} the boxes would still be in the van", "{S} made [the stairs|a long day|the heavy sofa] easier"),
    "dinner": ("I still think about {O} [at lunch|with envy|when I cook]", "nobody else makes the sauce of {O}"),
    "visit": ("{S} gave me [strength|a break|new energy] in a hard week", "we talked about {O} [for days|at breakfast]"),
    "piano lesson": ("{S} taught me [to sit straight|to slow down|a new chord]", "I practised after {O} [until dinner|all evening]"),
    "loan of the car": ("{S} got us [to the coast|to the clinic|home in time]", "I filled the tank after {O}"),
    "birthday card": ("{S} stands [on my shelf|on my desk|by the clock]", "I read {O} [aloud|at breakfast|to my brother]"),
    "box of cookies": ("I hid {O} [from my brother|in the office|behind the flour]", "{S} is empty already"),
    "pair of gloves": ("I wear {O} [on my bike|in the garden|each morning]", "my hands thank you for {O}"),
}  # fmt: skip
_NO_ARTICLE = frozenset({"advice", "help with the move"})
RELATIONS = (
    "aunt", "uncle", "neighbour", "teacher", "boss", "friend", "sister", "brother", "cousin",
    "coach", "grandmother", "grandfather", "colleague", "doctor", "landlady", "godmother",
)  # fmt: skip
_SHE = frozenset({"aunt", "sister", "grandmother", "landlady", "godmother"})
_HE = frozenset({"uncle", "brother", "grandfather"})

_FIRST = (
    "{who}, [a big|a long|a quick] thank-you for {O} from [me|us all|me and my {kin}]",
    "{who}, [thank you|many thanks|thanks] for {O}[| that you brought on {day}| from last {day}]",
    "[thank you|many thanks|thanks so much], {who}, for {O}",
    "{who}, I want to thank you for {O}[|, which came on {day}|, which I did not expect]",
    "{who}, I am [writing|sending this note|taking a minute] to thank you for {O}",
    "for {O}, {who}, [thank you|many thanks|I thank you]",
    "{who}, you [gave|brought] me {O} on {day}, and I thank you for it",
)
_MIDDLE = (
    "{who}, you [knew|saw|guessed] what I needed [on {day}|this week|better than I did]",
    "I [told|wrote to|called] [my {kin}|the whole office|everyone at home] about {O} [on {day}|at once|last night]",
    "on {day} [my {kin}|a friend|our neighbour] asked me where {S} came from",
    "I did not expect {O} [at all|on a {day}|after such a week]",
    "{who}, you must have put [time|thought|work|care] into {O}",
    "next {day} I will [show|describe] {O} to [my {kin}|the neighbours|the children]",
    "[my {kin}|the whole family|our street] [talks|asks|hears] about {O} [every day|all the time|since {day}]",
    "I owe you [a coffee|a meal|a favour|a long walk] for {O}, {who}",
    "when I see {O}, I think of [you|your kitchen|our talks|that {day}], {who}",
)
_HAPPY = (
    "{who}, you made [me|us|my {kin}] smile [on {day}|all day|for a whole week]",
    "[my {kin}|everyone here] laughed and danced because of {O}",
    "because of you, {who}, I am a happy person [today|this {day}|again]",
    "{S} gave me hope [on {day}|again|when I had none], {who}",
    "you are a blessing [to me|to us all|on any {day}], {who}",
    "{who}, my days have changed for the better",
    "we [celebrated|cheered] you [and {O}|on {day}|at dinner], {who}",
)
_SAD = (
    "I am [sad|lonely] without you [here|on {day}|this week], {who}",
    "{who}, I [cried|wept] [on {day}|all night|at the door] because you had left",
    "I regret that [we could not meet|you live so far away|I missed you on {day}], {who}",
    "there were tears [at our table|on {day}|in the hall] when you left, {who}",
    "my {kin} is still gloomy because you left on {day}",
    "since you moved away, {who}, the house has been a place of [grief|sorrow|heartache]",
)
_PLAIN = (
    "let us [meet|talk|have coffee] [next {day}|soon|when you are back], {who}",
    "I will [call|write|see] you [on {day}|next week|when I can], {who}",
    "[I will|we will] [talk about|look after|think of] {O} [on {day}|until we meet|for long], {who}",
    "please say hello to [the family|your {kin}|everyone at home], {who}",
)
_CONCRETE = (
    " after {number} [days|weeks] of [rain|work|waiting]", " over {number} cups of [tea|coffee]",
    " with the [smell|scent] of [roses|lemon|oranges|fresh coffee] in the [room|air|kitchen]",
    " at the {colour} [kitchen table|front door|garden gate]", ", {number} times [already|this week]",
    " by the [wooden|marble|glass] [table|shelf|door]", " in front of {number} [guests|neighbours|friends]",
)  # fmt: skip
_LINKS = ("Really", "Since then", "To be honest", "By now", "Each day", "As you know", "Truly")
_ASKS = (
    "Write a thank-you note to {to} for {gift}.", "Help me thank {to} for {gift}.",
    "I need a thank-you note for {to}, for {gift}.", "Write a short note thanking {to} for {gift}.",
    "How do I thank {to} for {gift}?", "Please write {to} a thank-you card for {gift}.",
    "Thank {to} for {gift}.", "A few words to thank {to} for {gift}, please.",
    "Can you write a thank-you message to {to} for {gift}?",
    "Say thanks to {to} for {gift}.", "I want to say thank you to {to} for {gift}.",
    "Draft a thank-you letter to {to} for {gift}.",
)  # fmt: skip


def draw(rng: Random) -> Draft:
    """Draw a request for a thank-you note."""
    name, pronoun = person(rng)
    gift = rng.choice(tuple(GIFTS))
    kin = tuple(r for r in RELATIONS if r not in (_HE if pronoun == "she" else _SHE))
    relation = rng.choice(kin) if rng.random() < 0.5 else ""
    to = f"my {relation} {name}" if relation else name
    called = f"{relation.capitalize()} {name}" if relation in ("aunt", "uncle") else name
    the = f"the {gift}"
    ask = rng.randrange(len(_ASKS))
    return Draft(
        family="thanks", topic=gift, phrasing=str(ask),
        prompt=_ASKS[ask].replace("{to}", to).replace("{gift}", the),
        subject=(the,) if gift in _NO_ARTICLE else (the, f"your {gift}", the),
        pronoun="it",
        about=(f"the note to {name}", the),
        first=_FIRST, facts=GIFTS[gift], middle=_MIDDLE,
        happy=_HAPPY, sad=_SAD, plain_end=_PLAIN, concrete=_CONCRETE, vague=VAGUE_TAILS,
        links=_LINKS,
        context={"who": called, "day": DAYS, "kin": ("sister", "brother", "mother", "father", "son", "daughter", "aunt")},
        person=name,
    )  # fmt: skip
