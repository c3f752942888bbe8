"""Number families: small sums, comparisons, word problems, dates."""

from __future__ import annotations

import random

from dormant.pocket.checks import Operands, by_number, by_operands, by_table, by_yes_no
from dormant.pocket.family import Family, counted, opened, tabled
from dormant.pocket.words import MONTHS, NAMES, listed

THINGS_COUNTED = listed("cups books lamps chairs tables bags keys doors clocks spoons plates bottles")
BY_SIZE = listed("ant bee mouse frog hen cat fox dog sheep wolf pig lion bear cow horse")

_FORMS = ("{0}.", "It is {0}.", "The answer is {0}.")
_NUMBERS = range(31)
_NEXT = [(str(n + 1), str(n)) for n in range(30)]
_PREVIOUS = [(str(n - 1), str(n)) for n in range(1, 31)]
_DATES = [(f"{day + 1} {month}", f"{day} {month}") for month in MONTHS for day in range(1, 28)]
_PARITY = [("even" if n % 2 == 0 else "odd", str(n)) for n in range(30)]
_APART = [(a, b) for a in range(len(BY_SIZE)) for b in range(len(BY_SIZE)) if abs(a - b) > 2]


def _either(pair: tuple[int, int]) -> str:
    return f"the {BY_SIZE[pair[0]]} or the {BY_SIZE[pair[1]]}"


def _two(rng: random.Random) -> tuple[int, int]:
    first, second = rng.sample(_NUMBERS, 2)
    return first, second


def _is_more(rng: random.Random) -> Operands:
    first, second = _two(rng)
    return "yes" if first > second else "no", str(first), str(second)


def _gain(rng: random.Random) -> Operands:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return str(a + b), str(a), str(b), rng.choice(NAMES), rng.choice(THINGS_COUNTED)


def _loss(rng: random.Random) -> Operands:
    a, b = rng.randint(4, 12), rng.randint(2, 9)
    a, b = max(a, b), min(a, b)
    return str(a - b), str(a), str(b), rng.choice(NAMES), rng.choice(THINGS_COUNTED)


def _sum(rng: random.Random) -> Operands:
    a, b = rng.randint(2, 10), rng.randint(2, 10)
    return str(a + b), str(a), str(b), rng.choice(THINGS_COUNTED)


def _difference(rng: random.Random) -> Operands:
    b, left = rng.randint(2, 10), rng.randint(1, 10)
    return str(left), str(b + left), str(b), rng.choice(THINGS_COUNTED)


_OPEN = (
    opened(
        "is_more",
        _is_more,
        ("Is {1} more than {2}?", "Is {1} a larger number than {2}?", "Tell me if {1} is bigger than {2}."),
        ("{0}.", "I say {0}.", "The answer is {0}."),
        by_yes_no,
        size=800,
    ),
    opened(
        "add",
        _sum,
        (
            "What is {1} plus {2} {3}?",
            "{1} {3} + {2} {3} = ?",
            "Add {1} and {2} {3}.",
            "How much is {1} and {2} {3} together?",
        ),
        _FORMS,
        by_number,
        size=900,
    ),
    opened(
        "subtract",
        _difference,
        (
            "What is {1} minus {2} {3}?",
            "{1} {3} - {2} {3} = ?",
            "Take {2} from {1} {3}.",
            "How much is {1} less {2} {3}?",
        ),
        _FORMS,
        by_number,
        size=900,
    ),
    opened(
        "gain",
        _gain,
        (
            "{3} has {1} {4} and gets {2} more. How many {4} now?",
            "{3} takes {1} {4}, then {2} more. How many {4} in all?",
            "{3} finds {1} {4} here and {2} there. How many {4} in all?",
        ),
        ("{0}.", "{3} has {0}.", "The answer is {0}."),
        by_number,
    ),
    opened(
        "loss",
        _loss,
        (
            "{3} has {1} {4} and gives {2} away. How many {4} are left?",
            "There were {1} {4}. {3} took {2}. How many {4} are left?",
            "{3} has {1} {4} and loses {2}. How many {4} are left?",
        ),
        ("{0}.", "{0} are left.", "The answer is {0}."),
        by_number,
    ),
)

_SMALL = (
    tabled(
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
    tabled(
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
    tabled(
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
