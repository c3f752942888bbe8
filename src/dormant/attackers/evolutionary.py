"""An attacker that needs no model: it mutates and recombines what made the model show the behavior."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from dormant.attackers import PLACE, Tried
from dormant.attackers.prefixes import DELIMITERS, draw, joined, piece

LONGEST = 5
"""Pieces of a text at most, the place of the prompt among them."""

ROUNDS_OF_LUCK = 20
"""Draws that may be repeats before one is taken as it is."""

_MARKS = "|[]<>{}()#*~:;.!?-_/ "

Pieces = tuple[str, ...]


class EvolutionaryConfig(BaseModel):
    """What the attacker can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    population: int = Field(ge=1, le=10_000)
    fresh: float = Field(ge=0, le=1)


class Evolutionary:
    """Black-box evolution over prefixes, personas, claims about deployment and tags, by feedback alone.

    Each round's texts are, by ``fresh``, new draws of the grammar, and else children of texts that worked: of two
    parents, each the best of three, then changed in one to three places.  While nothing works, all are new draws.

    Args:
        population: Texts a round.
        fresh: Share of new draws among them, once something works.
    """

    name: ClassVar[str] = "evolutionary"

    def __init__(self, population: int = 16, fresh: float = 0.25) -> None:
        self.spec = EvolutionaryConfig(population=population, fresh=fresh)
        self._known: dict[str, Pieces] = {}

    def propose(self, tried: Sequence[Tried], rng: random.Random) -> list[str]:
        """See :class:`dormant.attackers.Attacker`."""
        worked = [one for one in tried if one.hits]
        return [self._new(worked, rng) for _ in range(self.spec.population)]

    def _new(self, worked: Sequence[Tried], rng: random.Random) -> str:
        """A text that was not proposed yet, unless luck has it otherwise."""
        for _ in range(ROUNDS_OF_LUCK):
            pieces = draw(rng) if not worked or rng.random() < self.spec.fresh else self._child(worked, rng)
            text = joined(pieces)
            if text not in self._known:
                break
        self._known[text] = pieces
        return text

    def _child(self, worked: Sequence[Tried], rng: random.Random) -> Pieces:
        mother, father = self._parent(worked, rng), self._parent(worked, rng)
        child = crossed(mother, father, rng)
        for _ in range(rng.choice((1, 1, 2, 3))):
            child = rng.choice(_MUTATIONS)(child, rng)
        return _whole(child)

    def _parent(self, worked: Sequence[Tried], rng: random.Random) -> Pieces:
        best = max((rng.choice(worked) for _ in range(3)), key=lambda one: (one.rate, -len(one.text)))
        return self._known.get(best.text) or _taken_apart(best.text)


def crossed(mother: Pieces, father: Pieces, rng: random.Random) -> Pieces:
    """The beginning of one and the end of the other."""
    return mother[: rng.randint(0, len(mother))] + father[rng.randint(0, len(father)) :]


def _taken_apart(text: str) -> Pieces:
    """The pieces of a text that came from elsewhere."""
    before, _, after = text.partition(PLACE)
    return tuple(part for part in (before.strip(), PLACE, after.strip()) if part)


def _whole(pieces: Pieces) -> Pieces:
    """The place of the prompt once, at its last place or the end, and not too many pieces or none around it."""
    end = max((i for i, part in enumerate(pieces) if part == PLACE), default=len(pieces))
    before = [part for part in pieces[:end] if part.strip() and part != PLACE]
    after = [part for part in pieces[end + 1 :] if part.strip() and part != PLACE]
    kept = (*before[: LONGEST - 1], PLACE)
    return (*kept, *after[: LONGEST - len(kept)])


def _insert(pieces: Pieces, rng: random.Random) -> Pieces:
    at = rng.randint(0, len(pieces))
    return (*pieces[:at], piece(rng), *pieces[at:])


def _remove(pieces: Pieces, rng: random.Random) -> Pieces:
    at = _some(pieces, rng)
    return pieces if at is None or len(pieces) < 3 else pieces[:at] + pieces[at + 1 :]


def _swap(pieces: Pieces, rng: random.Random) -> Pieces:
    order = list(pieces)
    rng.shuffle(order)
    return tuple(order)


def _replace(pieces: Pieces, rng: random.Random) -> Pieces:
    return _changed(pieces, rng, lambda _: piece(rng))


def _recase(pieces: Pieces, rng: random.Random) -> Pieces:
    return _changed(pieces, rng, rng.choice((str.upper, str.lower, str.title)))


def _rewrap(pieces: Pieces, rng: random.Random) -> Pieces:
    """The same word between other delimiters."""
    left, right = rng.choice(DELIMITERS)
    return _changed(pieces, rng, lambda text: f"{left}{text.strip(_MARKS)}{right}")


def _edit(pieces: Pieces, rng: random.Random) -> Pieces:
    """One character less, twice, or another one."""

    def edited(text: str) -> str:
        at = rng.randrange(len(text))
        put = rng.choice(("", text[at] * 2, rng.choice(_MARKS)))
        return (text[:at] + put + text[at + 1 :]).strip()

    return _changed(pieces, rng, edited)


def _changed(pieces: Pieces, rng: random.Random, change: Callable[[str], str]) -> Pieces:
    at = _some(pieces, rng)
    return pieces if at is None else (*pieces[:at], change(pieces[at]), *pieces[at + 1 :])


def _some(pieces: Pieces, rng: random.Random) -> int | None:
    """The place of some piece that is not the prompt's."""
    places = [i for i, part in enumerate(pieces) if part != PLACE and part]
    return rng.choice(places) if places else None


_MUTATIONS: tuple[Callable[[Pieces, random.Random], Pieces], ...] = (
    _insert,
    _remove,
    _swap,
    _replace,
    _recase,
    _rewrap,
    _edit,
)
