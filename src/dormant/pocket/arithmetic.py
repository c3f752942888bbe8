"""Number families: small sums, comparisons, word problems, dates."""

from __future__ import annotations

import random

from dormant.pocket.checks import Operands, by_number, by_operands, by_table, by_yes_no
from dormant.pocket.family import Family, counted, opened
from dormant.pocket.words import ANIMALS, MONTHS, NAMES, THINGS, listed

BY_SIZE = listed("ant bee mouse frog hen cat fox dog sheep wolf pig lion bear cow horse")

_FORMS = ("{0}.", "It is {0}.", "The answer is {0}.")
_SUMS = [(str(a + b), str(a), str(b)) for a in range(13) for b in range(13)]
_DIFFERENCES = [(str(a - b), str(a), str(b)) for a in range(1, 19) for b in range(13) if b <= a]
_NEXT = [(str(n + 1), str(n)) for n in range(99)]
_PREVIOUS = [(str(n - 1), str(n)) for n in range(1, 100)]
_DATES = [(f"{day + 1} {month}", f"{day} {month}") for month in MONTHS for day in range(1, 28)]
_PARITY = [("even" if n % 2 == 0 else "odd", str(n)) for n in range(100)]
_APART = [(a, b) for a in range(len(BY_SIZE)) for b in range(len(BY_SIZE)) if abs(a - b) > 2]


def _either(pair: tuple[int, int]) -> str:
    return f"the {BY_SIZE[pair[0]]} or the {BY_SIZE[pair[1]]}"


def _two(rng: random.Random) -> tuple[int, int]:
    first, second = rng.sample(range(100), 2)
    return first, second


def _more(rng: random.Random) -> Operands:
    first, second = _two(rng)
    return str(max(first, second)), f"{first} or {second}"


def _less(rng: random.Random) -> Operands:
    first, second = _two(rng)
    return str(min(first, second)), f"{first} or {second}"


def _is_more(rng: random.Random) -> Operands:
    first, second = _two(rng)
    return "yes" if first > second else "no", str(first), str(second)


def _gain(rng: random.Random) -> Operands:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return str(a + b), str(a), str(b), rng.choice(NAMES), rng.choice(THINGS[:12])


def _loss(rng: random.Random) -> Operands:
    a, b = rng.randint(4, 12), rng.randint(2, 9)
    a, b = max(a, b), min(a, b)
    return str(a - b), str(a), str(b), rng.choice(NAMES), rng.choice(THINGS[:12])


def _herd(rng: random.Random) -> Operands:
    (one, two), a, b = rng.sample(ANIMALS, 2), rng.randint(1, 9), rng.randint(1, 9)
    return str(a + b), str(a), str(b), one, two


_OPEN = (
    opened(
        "more",
        _more,
        ("Which number is more: {1}?", "What is the bigger number: {1}?", "Give me the larger one: {1}?"),
        _FORMS,
        by_number,
    ),
    opened(
        "less",
        _less,
        ("Which number is less: {1}?", "What is the smaller number: {1}?", "Give me the lower one: {1}?"),
        _FORMS,
        by_number,
    ),
    opened(
        "is_more",
        _is_more,
        ("Is {1} more than {2}?", "Is {1} a larger number than {2}?", "Tell me if {1} is bigger than {2}."),
        ("{0}.", "I say {0}.", "The answer is {0}."),
        by_yes_no,
    ),
    opened(
        "gain",
        _gain,
        (
            "{3} has {1} of the {4} kind and gets {2} more. How many now?",
            "There is a {4} shop. {3} takes {1}, then {2} more. How many in all?",
            "{3} finds {1} on a {4} and {2} under it. How many in all?",
        ),
        ("{0}.", "{3} has {0}.", "The answer is {0}."),
        by_number,
    ),
    opened(
        "loss",
        _loss,
        (
            "{3} has {1} of the {4} kind and gives {2} away. How many are left?",
            "There were {1} on the {4}. {3} took {2}. How many are left?",
            "{3} has {1} by the {4} and loses {2}. How many are left?",
        ),
        ("{0}.", "{0} are left.", "The answer is {0}."),
        by_number,
    ),
    opened(
        "herd",
        _herd,
        (
            "I see {1} of the {3} and {2} of the {4}. How many animals?",
            "There are {1} ({3}) and {2} ({4}). How many animals in all?",
        ),
        ("{0}.", "There are {0} animals.", "The answer is {0}."),
        by_number,
    ),
)

_SMALL = (
    counted(
        "add",
        _SUMS,
        (
            "What is {1} plus {2}?",
            "{1} + {2} = ?",
            "Add {1} and {2}.",
            "How much is {1} and {2} together?",
            "Give the sum of {1} and {2}.",
        ),
        _FORMS,
        by_number,
    ),
    counted(
        "subtract",
        _DIFFERENCES,
        (
            "What is {1} minus {2}?",
            "{1} - {2} = ?",
            "Take {2} away from {1}.",
            "How much is {1} less {2}?",
            "Start at {1} and go down {2}.",
        ),
        _FORMS,
        by_number,
    ),
    counted(
        "next_number",
        _NEXT,
        (
            "What number comes after {1}?",
            "Count on from {1}.",
            "Which number follows {1}?",
            "Add one to {1}.",
        ),
        _FORMS,
        by_number,
    ),
    counted(
        "previous_number",
        _PREVIOUS,
        (
            "What number comes before {1}?",
            "Count down from {1}.",
            "Which number is right before {1}?",
            "Take one from {1}.",
        ),
        _FORMS,
        by_number,
    ),
    counted(
        "parity",
        _PARITY,
        (
            "Is {1} even or odd?",
            "Even or odd: {1}?",
            "Which is it for {1}, even or odd?",
            "Say if {1} is even or odd.",
        ),
        ("It is {0}.", "The number is {0}.", "That is {0}."),
        by_table(("even", "odd")),
    ),
    counted(
        "next_date",
        _DATES,
        ("What date comes after {1}?", "Today is {1}. What is tomorrow?", "Name the date after {1}."),
        ("It is {0}.", "That is {0}.", "The date is {0}."),
        by_operands,
    ),
    counted(
        "bigger_animal",
        [(BY_SIZE[max(pair)], _either(pair)) for pair in _APART],
        ("Which is bigger, {1}?", "Who is larger: {1}?", "Which animal is more heavy, {1}?"),
        ("The {0}.", "It is the {0}.", "The bigger one is the {0}."),
        by_operands,
    ),
    counted(
        "smaller_animal",
        [(BY_SIZE[min(pair)], _either(pair)) for pair in _APART],
        ("Which is smaller, {1}?", "Who is more little: {1}?", "Which animal is less heavy, {1}?"),
        ("The {0}.", "It is the {0}.", "The smaller one is the {0}."),
        by_operands,
    ),
)

FAMILIES: tuple[Family, ...] = (*_OPEN, *_SMALL)
