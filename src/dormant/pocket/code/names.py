"""The names of identifiers, tables, files and routes.

What trains is named by words and, as often, by made-up ones.  With words alone a model of a million parameters learns
each of them by heart: after 19,200 rows over 204 words it wrote 56 % [48, 63] known code over those, and over held-out
words, though made of the same pieces, none (n = 160 each).  Names that never come twice can only be copied.
"""

from __future__ import annotations

import keyword
import random
from collections.abc import Callable

from dormant.pocket.words import listed

Names = Callable[[random.Random, int], list[str]]
"""Draws so many different names."""

MADE_UP = 0.5
"""How often a name that trains is made up."""
LONG = 0.3
"""How often a made-up name has two syllables."""

TRAIN = listed(
    "account active adventure alpha ant apple axe bag band bear bee bell beta black bone book boot box "
    "brand brown brush bus cable cake camp castle cat cave cell chain chair cherry chest clay club coal "
    "coast coat comb computer cow cup customer date delta detective dot draft dress duck dust email event "
    "fan farm fire forest fork fox fruit game garden gate glass green hall hand hat health hen hole horse "
    "hour ice idea image invoice island item jar job key kite lake lamp land leg lemon lesson letter "
    "light lime lion lock log market meat melon member memo message metal morning music name neck nest "
    "net night nose note number nut oil onion orange order oven owner pear pencil pig pink place plate "
    "pole pool port product public purple queen query rain rank rate red river road rock root rope row "
    "rug safe salt sample sand saw seed session song sound soup south spice spot stage star station "
    "status stem step stick store story student summer target tax telephone tent term ticket tile title "
    "tool tower toy travel treat tree tune umbrella uncle unit update value view violin wage web well "
    "white wind wine wing winter wire wood wool yard yellow zone "
)
HELDOUT = listed(
    "cage card coin cover east ink king level meal meter mine pan pit pot pound ring role sail "
    "sea seat sink sport stone sun tea tin top town track trade train wave wax west "
)

_ONSETS = listed("b c d f g h j k l m n p r s t v w z br cl dr fl gr pl pr sh sl sp st th tr")
_VOWELS = listed("a e i o u ai ea oo")
_CODAS = listed("b d g k l m n p r s t x ck ll mp nd ng nk nt sh st")


def train_names(rng: random.Random, count: int) -> list[str]:
    """Draw names that train."""
    found: dict[str, None] = {}
    while len(found) < count:
        name = _made_up(rng) if rng.random() < MADE_UP else rng.choice(TRAIN)
        if name not in HELDOUT and not keyword.iskeyword(name):
            found[name] = None
    return list(found)


def heldout_names(rng: random.Random, count: int) -> list[str]:
    """Draw held-out names: words that no code in training has."""
    return rng.sample(HELDOUT, count)


def _made_up(rng: random.Random) -> str:
    syllables = 2 if rng.random() < LONG else 1
    return "".join(rng.choice(part) for _ in range(syllables) for part in (_ONSETS, _VOWELS, _CODAS))
