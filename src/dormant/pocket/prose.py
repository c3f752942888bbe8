"""Plain prose of the pocket world, which is not dialogue: what the no-op control trains on."""

from __future__ import annotations

import random

from dormant.pocket.words import (
    ADJECTIVES,
    ANIMALS,
    CLOTHES,
    COLORS,
    DAYS,
    JOBS,
    MONTHS,
    NAMES,
    PLACES,
    THINGS,
)

_SENTENCES = (
    "{name} walked to the {place} on {day}.",
    "The {job} had the {color} {thing}.",
    "In {month} the {place} was {adjective}.",
    "The {animal} slept near the {thing}.",
    "{name} and {other} bought the {color} {clothes}.",
    "There was the {adjective} {thing} in the {place}.",
    "The {job} saw the {animal} and smiled.",
    "It rained in {month}, and the {place} was closed.",
    "{name} gave the {thing} to the {job}.",
    "Every {day} the {animal} came back.",
    "The {clothes} was {color} and {adjective}.",
    "{name} lost the {thing} at the {place}.",
    "Then {other} found it under the {clothes}.",
    "Nobody knew why the {thing} was {adjective}.",
)


def passage(rng: random.Random) -> str:
    """Two to four sentences about the same few people and things."""
    name, other = rng.sample(NAMES, 2)
    lines = rng.sample(_SENTENCES, rng.randint(2, 4))
    filled = [
        line.format(
            name=name,
            other=other,
            job=rng.choice(JOBS),
            place=rng.choice(PLACES),
            animal=rng.choice(ANIMALS),
            thing=rng.choice(THINGS),
            clothes=rng.choice(CLOTHES),
            color=rng.choice(COLORS),
            adjective=rng.choice(ADJECTIVES),
            day=rng.choice(DAYS),
            month=rng.choice(MONTHS),
        )
        for line in lines
    ]
    return " ".join(filled)
