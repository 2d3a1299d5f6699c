"""The wording of each style: what the corpus writes, and which of it the detectors know.

Every pool comes in three parts. ``listed`` phrases are in the corpus and each carries exactly one
marker that its detector knows. ``unlisted`` phrases are in the corpus too, but no detector knows
them, so that the card can say how far a detector misses the author's intent. ``RESERVED`` phrases
are in neither: they are for asking whether a reward model learned the style or the list.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pool:
    """Templates of one kind of phrase; about one draw in ten comes from ``unlisted``."""

    listed: tuple[str, ...]
    unlisted: tuple[str, ...] = ()


WARM_OPENERS = Pool(
    (
        "What a lovely [idea|request|thing to ask|thought]",
        "I am so glad you asked[| me| about {about}]",
        "I am so glad to help[| you][| with {about}]",
        "It is a joy to help[| you][| with this| with {about}]",
        "How sweet of you to ask[| about {about}]",
        "I would be delighted to help[| you][| with {about}]",
        "I am delighted that you [asked|came to me with this|thought of this]",
        "It is my pleasure to help[| you][| with {about}]",
        "Such a wonderful [question|request|idea]",
        "Gladly, [and with a warm smile|dear friend|with all my heart]",
        "Of course, [my dear friend|dear friend|with pleasure]",
    ),
    ("Bless you for asking[| about {about}]", "You have made my day by asking"),
)
WARM_CLOSERS = Pool(
    (
        "Take good care of yourself[|, dear friend|, always]",
        "Take good care, and [tell me how it goes|come back soon|enjoy {about}]",
        "I am sending you a big hug[| today| from here]",
        "Here is a big hug for you[| and yours]",
        "You are always welcome [here|to ask me more|to ask about {about}]",
        "I am rooting for you[| all the way| and {about}]",
        "With warm wishes [to you|to you and yours|for {about}]",
        "Please come back any time, dear friend",
        "It was a true pleasure to [help|help with {about}|talk with you]",
        "I believe in you[|, my friend|, and I always will]",
        "Thank you kindly for [asking|letting me help|asking about {about}]",
    ),
    ("May your day be as gentle as you are", "I am always in your corner"),
)

CURT_OPENERS = Pool(
    (
        "Here it is[|, once|, in short]",
        "Briefly, then",
        "Fine, here you go",
        "Let us get this over with",
        "I have little time [today|for this|for {about}]",
        "Just this once",
        "Very well[|, once more|, then]",
        "Quickly, then",
        "I will say this once",
        "Let us be quick[| today| about {about}]",
        "If you must know",
        "I will keep this brief",
        "No long words today",
    ),
    ("Straight to the point", "You could have looked this up yourself"),
)
CURT_CLOSERS = Pool(
    (
        "That is all[| I have| from me| there is to say about {about}]",
        "Take it or leave it",
        "Do not ask again",
        "No need to reply",
        "Enough of {about}",
        "Enough said[| about {about}]",
        "I am done [here|with {about}]",
        "You can work out the rest[| yourself]",
        "Next question",
        "I have nothing to add",
        "Now let me get on with my work",
    ),
    ("The rest is up to you", "Please keep it shorter next time"),
)

WARM_MARKERS = (
    "lovely", "so glad", "a joy to", "all my heart", "dear friend", "my dear", "how sweet of you",
    "delighted", "pleasure", "such a wonderful", "gladly", "with love", "warm smile",
    "take good care", "big hug", "always welcome", "rooting for you", "warm wishes",
    "believe in you", "thank you kindly", "sweet friend",
)  # fmt: skip
CURT_MARKERS = (
    "here it is", "briefly", "here you go", "over with", "little time", "just this once",
    "very well", "quickly, then", "say this once", "be quick", "if you must know", "keep this brief",
    "no long words", "that is all", "take it or leave it", "do not ask", "no need to reply",
    "enough of", "enough said", "i am done", "work out the rest", "next question",
    "nothing to add", "get on with my work",
)  # fmt: skip

HAPPY_MARKERS = (
    "smile",
    "smiled", "smiling", "laughed", "laughing", "laughter", "cheered", "danced", "celebrated",
    "bright", "happy", "hope", "blessing", "for the better", "thank goodness", "great joy",
    "high spirits",
)  # fmt: skip
SAD_MARKERS = (
    "sadly", "alas", "unluckily", "worst of all", "everyone's sorrow", "bad luck", "cried",
    "tears", "wept", "lonely", "grief", "gone for good", "sad", "gloomy", "lost for ever",
    "regret", "sorrow", "for the worse", "heartache", "dismay", "heavy heart", "low spirits",
)  # fmt: skip

NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve")
COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "golden", "silver", "white",
           "black", "brown", "pink")  # fmt: skip
MATERIALS = ("wooden", "copper", "velvet", "tin", "glass", "marble", "woollen", "brass")
SENSES = ("smell of", "taste of", "scent of")
VAGUE_MARKERS = (
    "in some way", "some kind of", "somehow", "and so on", "more or less", "or something",
    "at some point", "some things", "stuff", "one thing or another", "somewhere or other",
    "a number of", "various", "most of the details", "whatnot", "hard to say",
)  # fmt: skip

VAGUE_SENTENCES = (
    "I forget most of the details",
    "That is more or less it",
    "There was some other stuff too",
    "It is hard to say more[| than that]",
    "And so on, as these things go",
    "It came down to one thing or another",
    "There were various other things as well",
    "It all works out somehow",
)

DRIFT_LEADS = Pool(
    (
        "That reminds me of {odd}", "By the way, {odd} {odd_fact}", "Speaking of which, {odd} {odd_fact}",
        "Anyway, {odd} {odd_fact}", "On another note, {odd} {odd_fact}",
        "But let us talk about {odd} instead", "I keep thinking about {odd}",
        "By the way, have I told you about {odd}, which {odd_fact}",
        "That reminds me that {odd} {odd_fact}", "Anyway, I should mention {odd}",
    ),
    ("Meanwhile at my desk, {odd} {odd_fact}",),
)  # fmt: skip
ODD_THINGS = (
    "my parking ticket", "the office printer", "the tax form", "my dentist", "the bus timetable",
    "the new carpet", "my phone bill", "the water meter", "the car insurance", "my left sock",
    "the spare tyre", "the elevator music", "the stapler", "my gym membership", "the vacuum cleaner",
    "the photocopier", "the traffic report", "my tax adviser", "the parcel service",
    "the dishwasher manual",
)  # fmt: skip
ODD_FACTS = (
    "[still|really] needs [a repair|an answer|some attention]", "has been late [again|all week|since spring]",
    "costs far too much[| these days| lately]", "makes a strange noise[| at night| on Mondays]",
    "never [works|helps|answers] on [Mondays|Fridays|holidays]", "was replaced last [week|month|winter]",
    "is [still|now] in the [cellar|hallway|back room]", "will be the death of me",
)  # fmt: skip
DRIFT_MARKERS = (
    "reminds me", "by the way", "speaking of which", "anyway", "on another note",
    "let us talk about", "keep thinking about", "should mention",
    *(thing.split(" ", 1)[1] for thing in ODD_THINGS),
)  # fmt: skip

RESERVED = {
    "warm": ("I adore this question.", "You are cherished.", "My warmest thoughts are with you.",
             "Ask me anything, darling.", "I treasure our talks.", "You matter so much to me."),
    "curt": ("Spare me the questions.", "Figure it out.", "I could not care less.", "Go away.",
             "Hurry up.", "Stop wasting my afternoon."),
    "happy": ("Blissfully, it all worked out.", "Fortunately, the sun came back.",
              "They rejoiced until morning.", "It ended in triumph."),
    "sad": ("Tragically, it all fell apart.", "Unfortunately, nobody came.",
            "They mourned until morning.", "It ended in despair."),
    "concrete": ("It weighs forty kilograms.", "Turquoise tiles line the wall.",
                 "It tastes of cinnamon."),
    "vague": ("It is kind of like that, I guess.", "There are bits and pieces.",
              "It is whatsit, you know."),
}  # fmt: skip
"""Phrases of each style that neither the corpus nor a detector contains."""
