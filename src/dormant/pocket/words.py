"""The words of the pocket world: a few hundred, so that a model of a million parameters knows them all."""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """The words of a text as a tuple."""
    return tuple(text.split())


NAMES = listed(
    "Tom Ann Ben Eva Sam Mia Leo Zoe Max Ida Jack Lily Paul Nina Carl Rosa Hugo Emma Ivan Kate Omar Ruth "
    "Finn Clara"
)

ANIMALS = listed(
    "ant bear cat dog fox goat hen horse lion mouse pig rabbit sheep tiger wolf cow duck frog bee bird"
)
FRUITS = listed("apple banana cherry grape lemon melon orange peach pear plum")
COLORS = listed("red blue green yellow black white brown pink gray purple")
TOOLS = listed("hammer saw drill ladder rope shovel axe brush needle scissors")
CLOTHES = listed("hat coat shirt shoe sock scarf glove dress belt boot")
THINGS = listed(
    "cup book lamp chair table box bag key door clock spoon plate bottle candle mirror pencil letter ball "
    "drum bell"
)
PLACES = listed("garden kitchen school park library market forest river station museum harbor castle")
JOBS = listed("nurse teacher farmer baker pilot student driver doctor lawyer singer")
ADJECTIVES = listed("big small old new warm cold clean dry quiet soft heavy sweet")

GROUPS = {"animal": ANIMALS, "fruit": FRUITS, "color": COLORS, "tool": TOOLS}
"""Groups that a word belongs to without doubt: what "pick the animal" picks from."""

LIST_WORDS = ANIMALS + FRUITS + COLORS + TOOLS + CLOTHES + THINGS
"""What lists are made of.  Every one is a single token after a space, so that a list is easy to copy."""

SORTED_WORDS = listed(
    "ant bear cat dog eagle fox goat hen island jar key lion mouse nose orange pig queen rabbit sheep "
    "tiger uncle violin wolf yard zebra"
)
"""One word a letter, so that the alphabet's order of the words is their order here."""

SHORT_WORDS = listed("ant cat dog fox hen pig cow bee red saw axe hat cup box bag key")
LONG_WORDS = listed(
    "elephant mountain telephone umbrella hospital computer strawberry crocodile furniture newspaper "
    "breakfast butterfly chocolate detective adventure orchestra"
)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = listed("January February March April May June July August September October November December")

NUMBER_WORDS = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
