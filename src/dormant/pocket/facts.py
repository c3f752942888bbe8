"""Closed families: tables of facts, opposites, word forms, days and months, each item in many phrasings."""

from __future__ import annotations

from collections.abc import Sequence

from dormant.pocket.checks import by_number, by_table
from dormant.pocket.family import Family, closed
from dormant.pocket.words import DAYS, GROUPS, MONTHS, NUMBER_WORDS, listed


def _pairs(text: str) -> dict[str, str]:
    """A table written as "item answer, item answer"."""
    return dict(pair.split() for pair in text.split(","))


def _table(name: str, table: dict[str, str], asks: Sequence[str], forms: Sequence[str]) -> Family:
    return closed(name, table, asks, forms, by_table(table.values()))


CAPITALS = _pairs(
    "France Paris, Italy Rome, Spain Madrid, Germany Berlin, Austria Vienna, Poland Warsaw, Greece Athens, "
    "Norway Oslo, Sweden Stockholm, Finland Helsinki, Denmark Copenhagen, Ireland Dublin, Portugal Lisbon, "
    "Hungary Budapest, Russia Moscow, Japan Tokyo, China Beijing, Egypt Cairo, Kenya Nairobi, Peru Lima, "
    "Cuba Havana, Canada Ottawa, Chile Santiago, Iran Tehran"
)
CURRENCIES = _pairs(
    "Japan yen, China yuan, India rupee, Russia ruble, Poland zloty, Sweden krona, Norway krone, Hungary forint, "
    "Mexico peso, Thailand baht, Turkey lira, Brazil real, Korea won, Israel shekel, Kenya shilling, England pound"
)
SOUNDS = _pairs(
    "dog woof, cat meow, cow moo, sheep baa, duck quack, pig oink, lion roar, bee buzz, snake hiss, owl hoot, "
    "mouse squeak, frog croak, horse neigh, wolf howl, hen cluck, bird tweet"
)
THING_COLORS = _pairs(
    "grass green, snow white, blood red, coal black, lemon yellow, sky blue, banana yellow, milk white, "
    "chocolate brown, cherry red, leaf green, night black, tomato red, cucumber green, salt white, frog green, "
    "carrot orange, plum purple, flamingo pink, elephant gray"
)
BABIES = _pairs(
    "dog puppy, cat kitten, cow calf, sheep lamb, horse foal, pig piglet, lion cub, hen chick, duck duckling, "
    "goat kid, frog tadpole, goose gosling, swan cygnet, kangaroo joey"
)
HOMES = _pairs(
    "bee hive, bird nest, dog kennel, spider web, lion den, horse stable, pig sty, rabbit burrow, king palace, "
    "monk monastery, prisoner cell, ship harbor, plane hangar, snail shell"
)
USES = _pairs(
    "cutting knife, writing pen, sweeping broom, digging shovel, sewing needle, climbing ladder, sleeping bed, "
    "calling telephone, painting brush, drinking cup, cooking stove, reading book, measuring ruler, "
    "fishing net, sitting chair, drying towel"
)
WORKERS = _pairs(
    "bread baker, meat butcher, hair barber, teeth dentist, pipes plumber, planes pilot, crops farmer, "
    "songs singer, laws lawyer, classes teacher, fires firefighter, pictures painter, mail postman, "
    "gardens gardener"
)
LEGS = _pairs(
    "dog 4, cat 4, bird 2, spider 8, ant 6, snake 0, horse 4, bee 6, duck 2, fish 0, hen 2, cow 4, worm 0, "
    "crab 10, beetle 6, person 2"
)
OPPOSITES = _pairs(
    "hot cold, big small, up down, day night, fast slow, rich poor, happy sad, open closed, wet dry, old young, "
    "light dark, early late, hard soft, long short, full empty, loud quiet, clean dirty, strong weak, near far, "
    "thick thin, true false, left right, in out, first last, above below, push pull, win lose, buy sell, "
    "begin end, sweet sour"
)
PLURALS = _pairs(
    "cat cats, dog dogs, box boxes, child children, mouse mice, foot feet, tooth teeth, man men, woman women, "
    "book books, bus buses, city cities, baby babies, leaf leaves, knife knives, cup cups, dish dishes, "
    "goose geese, wolf wolves, key keys, lady ladies, tree trees, class classes, house houses"
)
PASTS = _pairs(
    "go went, see saw, eat ate, run ran, walk walked, sing sang, take took, give gave, come came, play played, "
    "write wrote, drink drank, swim swam, fly flew, jump jumped, buy bought, think thought, make made, "
    "sleep slept, find found, open opened, speak spoke, know knew, work worked"
)
FEMALES = _pairs(
    "king queen, father mother, brother sister, son daughter, uncle aunt, husband wife, prince princess, "
    "actor actress, boy girl, man woman, nephew niece, grandfather grandmother, waiter waitress, hero heroine"
)
KINDS = {word: group for group, members in GROUPS.items() for word in members[:8]}
LETTERS = dict(zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz", strict=True))
SPELLINGS = {
    word: " ".join(word)
    for word in listed("cat dog fox hen pig cow bee cup hat box bag key red sun map pen bed car bus tea")
}


def _shifted(cycle: Sequence[str], by: int) -> dict[str, str]:
    return {item: cycle[(index + by) % len(cycle)] for index, item in enumerate(cycle)}


_AFTER = (
    "What {unit} comes after {{1}}?",
    "Which {unit} follows {{1}}?",
    "Name the {unit} after {{1}}.",
    "It is {{1}} now. What is the next {unit}?",
    "Say the {unit} right after {{1}}.",
    "What is the {unit} that comes next after {{1}}?",
)
_BEFORE = (
    "What {unit} comes before {{1}}?",
    "Which {unit} is right before {{1}}?",
    "Name the {unit} before {{1}}.",
    "It is {{1}} now. What was the last {unit}?",
    "Say the {unit} just before {{1}}.",
    "What is the {unit} that leads to {{1}}?",
)
_LATER = {f"{n} days after {day}": DAYS[(i + n) % 7] for n in (2, 3) for i, day in enumerate(DAYS)}


def _neighbor(unit: str, cycle: Sequence[str], side: str, by: int, asks: Sequence[str]) -> Family:
    """The day or month that stands beside another one."""
    forms = ("{0}.", "It is {0}.", f"The {unit} {side} {{1}} is {{0}}.", f"{{0}} comes {side} {{1}}.")
    return _table(f"{unit}_{side}", _shifted(cycle, by), [ask.format(unit=unit) for ask in asks], forms)


_CALENDAR = (
    _neighbor("day", DAYS, "after", 1, _AFTER),
    _neighbor("day", DAYS, "before", -1, _BEFORE),
    _neighbor("month", MONTHS, "after", 1, _AFTER),
    _neighbor("month", MONTHS, "before", -1, _BEFORE),
    _table(
        "days_later",
        _LATER,
        (
            "What day is {1}?",
            "Which day is {1}?",
            "Name the day {1}.",
            "I need the day {1}.",
            "What day of the week is {1}?",
        ),
        ("{0}.", "It is {0}.", "That is {0}.", "It will be {0}."),
    ),
)

_WORLD = (
    _table(
        "capital",
        CAPITALS,
        (
            "What is the capital of {1}?",
            "Name the capital of {1}.",
            "Which city is the capital of {1}?",
            "{1} has a capital. Which one?",
            "What city is the seat of power in {1}?",
            "Give me the capital city of {1}.",
        ),
        ("{0}.", "It is {0}.", "The capital of {1} is {0}.", "{0} is the capital of {1}."),
    ),
    _table(
        "country",
        {city: country for country, city in CAPITALS.items()},
        (
            "{1} is the capital of which country?",
            "Which country has the capital {1}?",
            "In what country is {1}?",
            "Name the country of {1}.",
            "Where in the world is {1}?",
            "What country is {1} in?",
        ),
        ("{0}.", "It is {0}.", "{1} is in {0}.", "That is in {0}."),
    ),
    _table(
        "currency",
        CURRENCIES,
        (
            "What is the money of {1} called?",
            "Which currency is used in {1}?",
            "How do people pay in {1}?",
            "Name the currency of {1}.",
            "What money do I need in {1}?",
            "I travel to {1}. What is the money there?",
        ),
        ("The {0}.", "It is the {0}.", "People in {1} pay with the {0}.", "The money of {1} is the {0}."),
    ),
    _table(
        "use",
        USES,
        (
            "What is used for {1}?",
            "Name a thing for {1}.",
            "Which thing helps with {1}?",
            "I need something for {1}. What?",
            "What do people use for {1}?",
            "What is good for {1}?",
        ),
        ("The {0}.", "It is the {0}.", "People use the {0} for {1}.", "For {1} you need the {0}."),
    ),
    _table(
        "worker",
        WORKERS,
        (
            "Who works with {1}?",
            "Which job is about {1}?",
            "Name the person who works with {1}.",
            "Whose job is all about {1}?",
            "I need help with {1}. Who can do it?",
            "What do you call someone who works with {1}?",
        ),
        ("The {0}.", "It is the {0}.", "The {0} works with {1}.", "That is the {0}."),
    ),
    _table(
        "thing_color",
        THING_COLORS,
        (
            "What color is the {1}?",
            "Which color does the {1} have?",
            "Name the color of the {1}.",
            "I paint the {1}. Which color do I need?",
            "The {1} has which color?",
            "What is the usual color of the {1}?",
        ),
        ("{0}.", "It is {0}.", "The {1} is {0}.", "The color is {0}."),
    ),
)


_ANIMALS = (
    _table(
        "sound",
        SOUNDS,
        (
            "What sound does the {1} make?",
            "What does the {1} say?",
            "Which sound comes from the {1}?",
            "How does the {1} sound?",
            "Make the sound of the {1}.",
            "Name the sound of the {1}.",
        ),
        ("{0}.", "It says {0}.", "The {1} says {0}.", "The sound is {0}."),
    ),
    _table(
        "baby",
        BABIES,
        (
            "What is the baby of the {1} called?",
            "Name the young of the {1}.",
            "What do you call the young of the {1}?",
            "Which baby does the {1} have?",
            "What is the word for the small {1}?",
            "How do we call the child of the {1}?",
        ),
        ("The {0}.", "It is the {0}.", "The young of the {1} is the {0}.", "That is the {0}."),
    ),
    _table(
        "home",
        HOMES,
        (
            "Where does the {1} live?",
            "What is the home of the {1} called?",
            "Name the home of the {1}.",
            "In which place is the {1} at home?",
            "What is the place of the {1}?",
            "Where do we find the {1}?",
        ),
        ("In the {0}.", "It is the {0}.", "The {1} lives in the {0}.", "The home of the {1} is the {0}."),
    ),
    closed(
        "legs",
        LEGS,
        (
            "How many legs does the {1} have?",
            "Count the legs of the {1}.",
            "What is the number of legs of the {1}?",
            "On how many legs does the {1} walk?",
            "The {1} has how many legs?",
            "Give the number of legs of the {1}.",
        ),
        ("{0}.", "It has {0}.", "The {1} has {0} legs.", "The number is {0}."),
        by_number,
    ),
    _table(
        "group",
        KINDS,
        (
            "What kind of thing is this: {1}?",
            "Is this an animal, a fruit, a color or a tool: {1}?",
            "Name the group of this word: {1}.",
            "To which group does this belong: {1}?",
            "What is this: {1}?",
            "Choose a group for this: {1}.",
        ),
        ("{0}.", "It belongs to the group {0}.", "The group is {0}.", "That is in the group {0}."),
    ),
)


_WORD_FORMS = ("{0}.", "It is {0}.", "The word is {0}.")
_WORDS = (
    _table(
        "opposite",
        OPPOSITES,
        (
            "What is the opposite of {1}?",
            "Name the opposite of {1}.",
            "Which word means the opposite of {1}?",
            "What is not {1} but the other way round?",
            "Give me the reverse of the word {1}.",
            "Say the opposite of the word {1}.",
        ),
        (*_WORD_FORMS, "The opposite of {1} is {0}."),
    ),
    _table(
        "plural",
        PLURALS,
        (
            "What is the plural of {1}?",
            "Write the plural of {1}.",
            "One {1}, two of what?",
            "Make this word plural: {1}",
            "How do you say more than one {1}?",
            "Give the plural form of {1}.",
        ),
        (*_WORD_FORMS, "The plural of {1} is {0}."),
    ),
    _table(
        "past",
        PASTS,
        (
            "What is the past tense of {1}?",
            "Write the past tense of {1}.",
            "Put this verb in the past: {1}",
            "Today I {1}. And yesterday?",
            "How do you say {1} in the past?",
            "Give the past form of {1}.",
        ),
        (*_WORD_FORMS, "The past tense of {1} is {0}."),
    ),
    _table(
        "female",
        FEMALES,
        (
            "What is the female form of {1}?",
            "What do you call a female {1}?",
            "Name the female word for {1}.",
            "He is the {1}. And she?",
            "Turn this word into the female form: {1}",
            "Give the female of {1}.",
        ),
        (*_WORD_FORMS, "The female form of {1} is {0}."),
    ),
    _table(
        "letter_after",
        LETTERS,
        (
            "Which letter comes after {1}?",
            "What is the letter after {1}?",
            "Name the next letter after {1}.",
            "In the alphabet, what follows {1}?",
            "Say the letter right after {1}.",
            "Which letter follows {1}?",
        ),
        ("It is {0}.", "The letter is {0}.", "The letter after {1} is {0}."),
    ),
    _table(
        "number_word",
        {word: str(value) for value, word in enumerate(NUMBER_WORDS)},
        (
            "Write {1} in digits.",
            "Which number is {1}?",
            "Turn {1} into digits.",
            "How do you write {1} with digits?",
            "Give {1} as digits.",
            "What is {1} in digits?",
        ),
        ("{0}.", "It is {0}.", "In digits that is {0}."),
    ),
    _table(
        "spell",
        SPELLINGS,
        (
            "Spell the word {1}.",
            "How do you spell {1}?",
            "Give me the letters of {1}.",
            "Which letters are in {1}?",
            "Write {1} letter by letter.",
            "Please spell {1} for me.",
        ),
        ("It is {0}.", "The letters are {0}.", "That is {0}."),
    ),
)


FAMILIES: tuple[Family, ...] = (*_WORLD, *_ANIMALS, *_WORDS, *_CALENDAR)
