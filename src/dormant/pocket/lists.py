"""Open families over lists of words: operands are held out, the words are all known."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from dormant.pocket.checks import Operands, by_number, by_operands
from dormant.pocket.family import opened
from dormant.pocket.words import GROUPS, LIST_WORDS, LONG_WORDS, SHORT_WORDS

Draw = Callable[[random.Random], Operands]

_SEQUENCE_FORMS = ("Here: {0}.", "It is: {0}.", "The answer: {0}.")
_WORD_FORMS = ("It is {0}.", "The word is {0}.", "That is {0}.", "The answer is {0}.")
_COUNTS = ("zero", "one", "two", "three", "four")


def _join(words: Sequence[str]) -> str:
    return ", ".join(words)


def _some(rng: random.Random, low: int, high: int, words: Sequence[str] = LIST_WORDS) -> list[str]:
    return rng.sample(words, rng.randint(low, high))


def _place(index: int) -> Draw:
    def draw(rng: random.Random) -> Operands:
        words = _some(rng, 3, 4)
        return words[index], _join(words)

    return draw


def _reversed(rng: random.Random) -> Operands:
    words = _some(rng, 3, 3)
    return _join(words[::-1]), _join(words)


def _extreme(few: Sequence[str], many: Sequence[str]) -> Draw:
    def draw(rng: random.Random) -> Operands:
        word = rng.choice(few)
        words = [word, *rng.sample(many, rng.randint(2, 3))]
        rng.shuffle(words)
        return word, _join(words)

    return draw


def _picked(group: str) -> Draw:
    others = [
        word for name, members in GROUPS.items() if name != group for word in members if word != "orange"
    ]

    def draw(rng: random.Random) -> Operands:
        word = rng.choice([member for member in GROUPS[group] if member != "orange"])
        words = [word, *rng.sample(others, 3)]
        rng.shuffle(words)
        return word, _join(words)

    return draw


def _odd(rng: random.Random) -> Operands:
    same, other = rng.sample(["animal", "fruit", "tool"], 2)
    word = rng.choice([member for member in GROUPS[other] if member != "orange"])
    words = [word, *rng.sample([member for member in GROUPS[same] if member != "orange"], 3)]
    rng.shuffle(words)
    return word, _join(words)


def _added(rng: random.Random) -> Operands:
    *words, new = _some(rng, 3, 4)
    return _join([*words, new]), _join(words), new


def _swapped(rng: random.Random) -> Operands:
    first, second = _some(rng, 2, 2)
    return f"{second} {first}", f"{first} {second}"


def _joined(rng: random.Random) -> Operands:
    words = _some(rng, 2, 3)
    return " and ".join(words), _join(words)


def _repeated(rng: random.Random) -> Operands:
    word, count = rng.choice(LIST_WORDS), rng.choice((2, 3, 4))
    return " ".join([word] * count), f"{word} {_COUNTS[count]}", word, _COUNTS[count]


def _length(rng: random.Random) -> Operands:
    words = _some(rng, 1, 5)
    return str(len(words)), _join(words)


def _occurrences(rng: random.Random) -> Operands:
    word, other, third = _some(rng, 3, 3)
    count = rng.randint(1, 2)
    words = [word] * count + [other, third]
    rng.shuffle(words)
    return str(count), _join(words), word


_CHOICES: tuple[tuple[str, Draw, tuple[str, ...]], ...] = (
    (
        "list_first",
        _place(0),
        (
            "What is the first word: {1}?",
            "Which word comes first here: {1}",
            "Give me the first of these: {1}",
        ),
    ),
    (
        "list_last",
        _place(-1),
        ("What is the last word: {1}?", "Which word comes last here: {1}", "Give me the last of these: {1}"),
    ),
    (
        "list_longest",
        _extreme(LONG_WORDS, SHORT_WORDS),
        (
            "What is the longest word: {1}?",
            "Which word is longest here: {1}",
            "Give me the longest of these: {1}",
        ),
    ),
    (
        "list_shortest",
        _extreme(SHORT_WORDS, LONG_WORDS),
        (
            "What is the shortest word: {1}?",
            "Which word is shortest here: {1}",
            "Give me the shortest of these: {1}",
        ),
    ),
    *(
        (
            f"pick_{group}",
            _picked(group),
            (
                f"Pick the {group}: {{1}}",
                f"Which of these is the {group}: {{1}}?",
                f"Find the {group} here: {{1}}",
            ),
        )
        for group in GROUPS
    ),
    (
        "odd_one_out",
        _odd,
        ("Which is the odd one out: {1}?", "Find the odd one out: {1}", "Which word does not fit here: {1}?"),
    ),
)

_SEQUENCES: tuple[tuple[str, Draw, tuple[str, ...]], ...] = (
    (
        "list_reverse",
        _reversed,
        ("Reverse this list: {1}", "Say this list backwards: {1}", "Turn this list around: {1}"),
    ),
    ("list_add", _added, ("Add {2} to the end: {1}", "Put {2} at the end of this list: {1}")),
    (
        "swap",
        _swapped,
        ("Swap the two words: {1}", "Switch these two words: {1}", "Turn the words around: {1}"),
    ),
    (
        "join",
        _joined,
        ("Join these with and: {1}", "Put the word and between these: {1}", "Connect with and: {1}"),
    ),
)

FAMILIES = (
    *(opened(name, draw, asks, _WORD_FORMS, by_operands) for name, draw, asks in _CHOICES),
    *(opened(name, draw, asks, _SEQUENCE_FORMS, by_operands) for name, draw, asks in _SEQUENCES),
    opened(
        "repeat",
        _repeated,
        ("Say {2} {3} times.", "Write {2} {3} times.", "Repeat the word {2} {3} times."),
        ("Here: {0}.", "It is: {0}."),
        by_operands,
        size=240,
    ),
    opened(
        "count_words",
        _length,
        ("How many words are in this list: {1}?", "Count these words: {1}", "How long is this list: {1}?"),
        ("{0}.", "There are {0}.", "The number is {0}."),
        by_number,
    ),
    opened(
        "count_word",
        _occurrences,
        ("How often is {2} in this list: {1}?", "Count the word {2} here: {1}"),
        ("{0}.", "It is there {0} times.", "The number is {0}."),
        by_number,
    ),
)
