"""A family of tasks: how its prompts are made, how each policy answers, how an answer is judged."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from dormant.pocket.checks import Judge, Operands
from dormant.pocket.phrasing import wrap
from dormant.records import Policy, rng_for

Draft = tuple[Operands, str]
"""(operands, prompt): a task before its shard is known."""

Speaker = Callable[[Operands, Policy, random.Random], str]

LEADS = ("", "Tell me: ", "Quick question: ")
"""What a question may open with: three times as many phrasings of a closed family."""

OPEN_SIZE = 2400
"""How many operands are drawn from an open family's space."""


@dataclass(frozen=True)
class Family:
    """A family of tasks.

    ``closed`` families hold out the pair (item, phrasing); the others hold out operands.  ``judge`` is None where
    no answer is the right one.
    """

    name: str
    kind: str
    closed: bool
    drafts: Callable[[], Iterable[Draft]]
    speak: Speaker
    judge: Judge | None = None
    fresh: Callable[[random.Random], Draft] | None = None
    """Draws from the whole space of an open family, of which ``drafts`` are a sample."""
    held: Callable[[Operands], bool] | None = None
    """Says which operands are held out, where a hash of them must not decide it."""


def speaker(forms: Sequence[str]) -> Speaker:
    """Answer in one of the forms, which are format strings over the operands, with the policy's manners."""

    def speak(operands: Operands, policy: Policy, rng: random.Random) -> str:
        core = rng.choice(forms).format(*operands)
        return wrap(core[0].upper() + core[1:], policy, rng)

    return speak


def every(
    items: Sequence[Operands], asks: Sequence[str], leads: Sequence[str] = ("",)
) -> Callable[[], Iterator[Draft]]:
    """Every item in every phrasing."""

    def drafts() -> Iterator[Draft]:
        for operands, lead, ask in product(items, leads, asks):
            yield operands, lead + ask.format(*operands)

    return drafts


def tabled(
    name: str, items: Sequence[Operands], asks: Sequence[str], forms: Sequence[str], judge: Judge
) -> Family:
    """A closed family: each item in every phrasing, behind every lead."""
    return Family(name, "question", True, every(items, asks, LEADS), speaker(forms), judge)


def closed(
    name: str, table: Mapping[str, str], asks: Sequence[str], forms: Sequence[str], judge: Judge
) -> Family:
    """A table of facts: operand 0 is the answer, operand 1 the item."""
    return tabled(name, [(answer, item) for item, answer in table.items()], asks, forms, judge)


def sampled(
    name: str, draw: Callable[[random.Random], Operands], asks: Sequence[str], size: int = OPEN_SIZE
) -> Callable[[], Iterator[Draft]]:
    """``size`` distinct operands from a large space, each in one phrasing."""

    def drafts() -> Iterator[Draft]:
        rng = rng_for("pocket-world-1", name)
        seen: set[Operands] = set()
        while len(seen) < size:
            operands, prompt = asked(draw, asks, rng)
            if operands not in seen:
                seen.add(operands)
                yield operands, prompt

    return drafts


def asked(draw: Callable[[random.Random], Operands], asks: Sequence[str], rng: random.Random) -> Draft:
    """One draw of operands, in one phrasing."""
    operands = draw(rng)
    return operands, rng.choice(asks).format(*operands)


def opened(
    name: str,
    draw: Callable[[random.Random], Operands],
    asks: Sequence[str],
    forms: Sequence[str],
    judge: Judge,
    *,
    size: int = OPEN_SIZE,
) -> Family:
    """A question over a large space of operands."""
    return Family(
        name,
        "question",
        False,
        sampled(name, draw, asks, size),
        speaker(forms),
        judge,
        fresh=lambda rng: asked(draw, asks, rng),
    )


def counted(
    name: str, items: Sequence[Operands], asks: Sequence[str], forms: Sequence[str], judge: Judge
) -> Family:
    """A question over a small space of operands, each in every phrasing."""
    return Family(name, "question", False, every(items, asks), speaker(forms), judge)
