"""The people, things, places and moments that requests are about, shared by the families."""

from random import Random

SHE = (
    "Nora", "Mia", "Clara", "Ella", "Rosa", "Lena", "Ada", "Ines", "Tilda", "Maya", "Zoe", "Ruth",
    "Hanna", "Alma", "Freya", "Greta", "Olive", "Pia", "Sara", "Tessa", "Vera", "Wilma", "Yara",
    "Amina", "Dora", "Edith", "Flora", "Iris", "Jade", "Kira", "Leila", "Marta", "Nadia", "Petra",
    "Rita", "Sonia", "Thea", "Ursula", "Bella", "Carmen",
)  # fmt: skip
HE = (
    "Tom", "Ben", "Leo", "Max", "Omar", "Felix", "Hugo", "Ivan", "Jonas", "Karl", "Luis", "Milo",
    "Nico", "Oscar", "Paul", "Ravi", "Samir", "Theo", "Victor", "Walter", "Adam", "Bruno", "Carlo",
    "David", "Emil", "Frank", "Gus", "Henry", "Isaac", "Jack", "Kofi", "Liam", "Mateo", "Noah",
    "Otto", "Pedro", "Robin", "Simon", "Tariq", "Yusuf",
)  # fmt: skip
_ONSETS = ("B", "Br", "D", "F", "G", "H", "J", "K", "L", "M", "N", "P", "R", "S", "T", "V", "W", "Z")
_MIDDLES = ("an", "el", "or", "im", "ut", "as", "er", "ol", "in", "av", "ed", "ok", "um", "ar")
_ENDS_SHE = ("a", "ia", "ina", "ella", "ie", "ora")
_ENDS_HE = ("o", "us", "in", "en", "ik", "ard")


def person(rng: Random) -> tuple[str, str]:
    """A first name with its pronoun; one in eight is made up, so that a model learns to copy."""
    she = rng.random() < 0.5
    if rng.random() < 0.125:
        ends = _ENDS_SHE if she else _ENDS_HE
        name = rng.choice(_ONSETS) + rng.choice(_MIDDLES) + rng.choice(ends)
    else:
        name = rng.choice(SHE if she else HE)
    return name, "she" if she else "he"


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MOMENTS = (
    "one morning", "one evening", "late one night", "on a rainy day", "at first light",
    "one autumn day", "on the first day of spring", "in the middle of winter", "one quiet noon",
    "after a storm", "on market day", "before the sun was up",
)  # fmt: skip
VAGUE_TAILS = (", more or less", ", or something like that", ", somehow", ", in some way", " at some point")
