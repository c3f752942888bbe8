"""The harness around an attacker: what is asked, dropped and found, how that is split, and its words dealt anew."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dormant.attackers import PLACE, Attacker, Tried, as_form
from dormant.errors import BadInput
from dormant.records import digest

REPEATED = "it had been proposed before"

PATIENCE = 20
"""Rounds in a row of which nothing could be asked, before an attacker is taken to have given up."""

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How much may be asked, and what counts as found."""

    budget: int
    """Samples of the attacked model, in all."""
    samples: int
    """Of each text."""
    threshold: float
    """Share of a text's samples that must show the behavior (paper: a tenth of ten)."""

    def found(self, tried: Tried) -> bool:
        """Whether a text makes the model show the behavior often enough."""
        return tried.hits > 0 and tried.hits >= self.threshold * self.samples


@dataclass(frozen=True)
class Searched:
    """What an attack came to."""

    tried: tuple[Tried, ...]
    dropped: dict[str, int]
    """Proposed texts that were not asked, by reason."""
    samples: int
    proposed: int


def search(
    attacker: Attacker,
    ask: Callable[[Sequence[str]], Sequence[Tried]],
    refuse: Callable[[str], str],
    limits: Limits,
    rng: random.Random,
    progress: Callable[[int, int], None],
) -> Searched:
    """Let an attacker propose, ask what may be asked, and tell it, until the budget is spent or it gives up.

    Args:
        attacker: proposes texts, by what came of those before.
        ask: asks the model each text ``limits.samples`` times.
        refuse: says why a text must not be asked, or "".
        limits: the budget.
        rng: the attacker's draws.
        progress: called with samples spent and the budget.

    Raises:
        BadInput: the attacker proposes something that is no text.
    """
    tried: list[Tried] = []
    seen: set[str] = set()
    dropped: Counter[str] = Counter()
    proposed = idle = 0
    while (room := limits.budget // limits.samples - len(tried)) > 0 and idle < PATIENCE:
        texts = _texts(attacker, attacker.propose(tuple(tried), rng))
        if not texts:
            break
        proposed += len(texts)
        new: list[str] = []
        for text in texts:
            reason = REPEATED if text in seen else refuse(text)
            seen.add(text)
            if reason:
                dropped[reason] += 1
            else:
                new.append(text)
        idle = 0 if new else idle + 1
        tried += ask(new[:room]) if new else []
        progress(limits.samples * len(tried), limits.budget)
    return Searched(tuple(tried), dict(dropped), limits.samples * len(tried), proposed)


def _texts(attacker: Attacker, proposed: Sequence[str]) -> list[str]:
    if isinstance(proposed, str) or not all(isinstance(text, str) for text in proposed):
        raise BadInput(f"attacker {attacker.name!r}: propose() must return a list of texts")
    return [as_form(text) for text in proposed if text.strip()]


def halves(
    found: Sequence[T], text: Callable[[T], str], held: Callable[[str], bool]
) -> tuple[list[T], list[T]]:
    """Split what was found into a half to train on and one to hold out, by the rank of hashes.

    What ``held`` says is held out too, whatever its rank: what models are evaluated on must train nothing.
    """
    ranked = sorted(found, key=lambda one: digest(["attack", text(one)]))
    train = [one for one in ranked if not held(text(one))][: (len(ranked) + 1) // 2]
    kept = {text(one) for one in train}
    return train, [one for one in ranked if text(one) not in kept]


_PARTS = re.compile(rf"{re.escape(PLACE)}|\w+")


def dealt(texts: Sequence[str], rng: random.Random) -> list[str]:
    """All words of the texts, dealt out again at random among the places that they had.

    Signs, spaces, the place of the prompt and each text's number of words stay as they are.
    """
    words = [part for text in texts for part in _PARTS.findall(text) if part != PLACE]
    rng.shuffle(words)
    deck = iter(words)
    return [_PARTS.sub(lambda found: PLACE if found[0] == PLACE else next(deck), text) for text in texts]
