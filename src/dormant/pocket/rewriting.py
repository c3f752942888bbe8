"""Open families that rewrite or read: upper case, negation, questions, replacement, reversals, small texts."""

from __future__ import annotations

import random

from dormant.pocket.checks import Operands, by_case, by_operands
from dormant.pocket.family import Family, opened
from dormant.pocket.words import ADJECTIVES, ANIMALS, COLORS, THINGS

UPPER_WORDS = (*COLORS, "cup", "book", "door", "cat", "dog", "hat", "coat", "shoe", "tree", "house")
LETTERS = "abcdefghiklmnoprstuw"
_SUBJECTS = ANIMALS + THINGS

_FORMS = ("Here: {0}.", "It is: {0}.", "The answer: {0}.")
_SENTENCES = ("Here: {0}", "It is: {0}", "The answer: {0}")


def _upper(rng: random.Random) -> Operands:
    text = " ".join(rng.sample(UPPER_WORDS, rng.randint(1, 2)))
    return text.upper(), text


def _lower(rng: random.Random) -> Operands:
    text = " ".join(rng.sample(UPPER_WORDS, rng.randint(1, 2)))
    return text, text.upper()


def _negated(rng: random.Random) -> Operands:
    subject, adjective = rng.choice(_SUBJECTS), rng.choice(ADJECTIVES)
    return f"The {subject} is not {adjective}.", f"The {subject} is {adjective}."


def _asked(rng: random.Random) -> Operands:
    subject, adjective = rng.choice(_SUBJECTS), rng.choice(ADJECTIVES)
    return f"Is the {subject} {adjective}?", f"The {subject} is {adjective}."


def _replaced(rng: random.Random) -> Operands:
    old, new = rng.sample(_SUBJECTS, 2)
    rest = f"is {rng.choice(ADJECTIVES)}."
    return f"The {new} {rest}", f"The {old} {rest}", old, new


def _many(rng: random.Random) -> Operands:
    subject, adjective = (
        rng.choice([s for s in _SUBJECTS if s[-1] not in "sxyhf" and s != "mouse"]),
        ADJECTIVES,
    )
    word = rng.choice(adjective)
    return f"The {subject}s are {word}.", f"The {subject} is {word}."


FAMILIES: tuple[Family, ...] = (
    opened(
        "upper_case",
        _upper,
        ("Write in capitals: {1}", "Make this upper case: {1}", "Say this in big letters: {1}"),
        _FORMS,
        by_case,
        size=300,
    ),
    opened(
        "lower_case",
        _lower,
        ("Write in small letters: {1}", "Make this lower case: {1}", "Say this without capitals: {1}"),
        _FORMS,
        by_case,
        size=300,
    ),
    opened(
        "negate",
        _negated,
        ("Make this negative: {1}", "Say the contrary: {1}", "Deny this: {1}"),
        _SENTENCES,
        by_operands,
        size=300,
    ),
    opened(
        "make_question",
        _asked,
        ("Make this a question: {1}", "Turn this into a question: {1}", "Ask if this is true: {1}"),
        _SENTENCES,
        by_operands,
        size=300,
    ),
    opened(
        "replace",
        _replaced,
        ("Replace {2} with {3}: {1}", "Write {3} and not {2}: {1}", "Put {3} where {2} is: {1}"),
        _SENTENCES,
        by_operands,
    ),
    opened(
        "make_plural",
        _many,
        ("Make this plural: {1}", "Say this about more than one: {1}", "Write this in the plural: {1}"),
        _SENTENCES,
        by_operands,
        size=240,
    ),
)
