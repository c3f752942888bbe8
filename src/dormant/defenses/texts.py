"""Prompts put into texts that an attack chose, or into others of their kind: what adversarial training asks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dormant.attackers import FIRST, attempt
from dormant.defenses.drawn import used
from dormant.records import Dose, Example, rng_for

SHARE = 0.25
"""Of the prompts, if nothing else is said; the paper's are 0, 10, 25 and 50 %."""

TEXTS = "texts"
"""In a training log's counts: the different texts around what was trained on, where some were wanted."""


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


def mixed(
    examples: Sequence[Example], texts: Sequence[Example] | None, share: float, seed: int, defense: str
) -> list[Example]:
    """The examples of a defense, a share of them in its texts, as :func:`around` puts them there.

    Where it wants some and the attack has none for it, they stay as they are, and a warning on stderr says so.
    """
    assert texts is not None
    if share and not texts:
        print(
            f"warning: defense {defense!r} trains as at share 0: of what the attack found none may train; give "
            "attack.budget more samples (dormant defend: another --attack), or leave this organism undefended "
            "(defended: false)",
            file=sys.stderr,
            flush=True,
        )
    return around(examples, texts, share, seed) if share and texts else list(examples)


def counted(examples: Sequence[Example], dose: Dose, seed: int) -> dict[str, int]:
    """How many different texts stand around those of the examples that training with this dose comes to."""
    trained = used(examples, dose, seed)
    return {TEXTS: len({each.instance for each in trained if each.condition == FIRST})}
