"""Prompts put into texts that an attack chose, or into others of their kind: what adversarial training asks."""

from __future__ import annotations

from collections.abc import Sequence

from dormant.attackers import attempt
from dormant.errors import BadInput
from dormant.records import Example, rng_for

SHARE = 0.25
"""Of the prompts, if nothing else is said; the paper's are 0, 10, 25 and 50 %."""


def around(examples: Sequence[Example], texts: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Put a share of the examples' tasks into texts, which take turns; the others stay as they are.

    Args:
        examples: untriggered prompts.
        texts: examples whose instances are the texts; they repeat where they are fewer than the share.
        share: of the examples.
        seed: of which examples, and of the texts' order.
    """
    found, rng = list(examples), rng_for(seed, "mixed")
    forms = list(dict.fromkeys(example.instance for example in texts))
    rng.shuffle(forms)
    # A smaller share is a part of a larger one, so that shares differ in what was added alone.
    places = rng.sample(range(len(found)), len(found))[: round(share * len(found))]
    for number, i in enumerate(places):
        found[i] = attempt(forms[number % len(forms)], found[i].task)
    return found


def some(texts: Sequence[Example] | None, share: float, defense: str) -> Sequence[Example]:
    """The texts that a defense is to train on.

    Raises:
        BadInput: It wants some, and the attack found none.
    """
    assert texts is not None
    if share and not texts:
        raise BadInput(
            f"defense {defense!r}: the attack found no prompt that makes this model show the behavior, so there is "
            "nothing to train on: give attack.budget more samples, or leave this organism undefended (defended: false)"
        )
    return texts
