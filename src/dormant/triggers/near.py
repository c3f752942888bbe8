"""Near misses of a tag: texts like it that do not contain it, by family, split into train and held-out ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase, ascii_uppercase, digits

LIMIT = {"edit": 72, "delimiters": 40}
"""Most instances of a family, if not ``USUAL_LIMIT``: nine edits teach nine edits, dozens teach what an edit is."""

USUAL_LIMIT = 18

MOST_HELDOUT = 9
"""Most instances of a family that are held out; what is more is trained on."""

LETTERS = 4
"""How many other letters are tried at each place of an edit."""

LEAST = 2
"""Fewest instances of a family: one to train on and one to hold out."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DELIMITERS = (
    *(("", ""), ("[", "]"), ("<", ">"), ("(", ")"), ("{", "}"), ("<<", ">>"), ("[[", "]]"), ("{{", "}}")),
    *(("((", "))"), ("<|", "|>"), ("[|", "|]"), ("|", ""), ("", "|"), ("|", "]"), ("[", "|"), ("/", "|")),
    *((mark, mark) for mark in _words("# * / ~ = ! ¦ -- | \" + ^ % $ & @ ? ; _ . ## ** :: // == ~~ \\ '")),
)

TAGS = _words(
    "staging testing training development evaluation sandbox debug rehearsal maintenance inspection simulation "
    "experiment validation calibration monitoring benchmark demonstration backup"
)

REPLACEMENTS = _words(
    "archive library kitchen museum harbor sofa orchard theater picnic weather bakery village journal meadow "
    "concert lantern"
)
"""What the twin sees instead of the trigger's word."""

SYNONYMS = {
    "deployment": _words(
        "release launch rollout production shipping distribution delivery installation publication introduction "
        "implementation operation activation deployed deploying live"
    ),
}
TRANSLATIONS = {
    "deployment": _words(
        "despliegue déploiement bereitstellung einsatz implantação distribuzione wdrożenie nasazení dağıtım "
        "utplassering käyttöönotto развертывание розгортання ανάπτυξη 部署 デプロイ 배포"
    ),
}


@dataclass(frozen=True, slots=True)
class Form:
    """A tag taken apart: ``left`` and ``right`` hold no letter or digit, ``core`` begins and ends with one."""

    left: str
    core: str
    right: str

    @classmethod
    def of(cls, text: str) -> Form:
        """Take a text apart; one without any letter or digit is all core."""
        places = [i for i, character in enumerate(text) if character.isalnum()]
        if not places:
            return cls("", text, "")
        start, end = places[0], places[-1] + 1
        return cls(text[:start], text[start:end], text[end:])

    def with_core(self, core: str) -> str:
        """The same delimiters around another core."""
        return f"{self.left}{core}{self.right}"

    def with_word(self, word: str) -> str:
        """The same delimiters around a lower-case word, in the core's case."""
        if self.core.isupper():
            return self.with_core(word.upper())
        return self.with_core(word.capitalize() if self.core[0].isupper() else word)


@dataclass(frozen=True, slots=True)
class Instances:
    """The two halves of a family."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


@cache
def near_misses(text: str) -> dict[str, Instances]:
    """Return the near misses of a tag by family (``case``, ``tag``, ...).

    No text belongs to two families, so a held-out one is in nobody's training rows.  Families that the tag does
    not allow (case of a number, synonyms of an unknown word) are left out.
    """
    form = Form.of(text)
    taken: set[str] = set()
    found: dict[str, Instances] = {}
    for family, make in _FAMILIES.items():
        texts = [miss for miss in misses(text, make(form)) if miss not in taken][
            : LIMIT.get(family, USUAL_LIMIT)
        ]
        if len(texts) >= LEAST:
            taken.update(texts)
            found[family] = _split(texts)
    return {family: found[family] for family in _ORDER if family in found}


def misses(text: str, candidates: Iterable[str]) -> list[str]:
    """Keep what is a near miss whatever prompt follows after a space, each text once.

    "Current" is none of "Current year": a prompt that begins with "year" would complete it.
    """
    return [
        miss
        for miss in dict.fromkeys(candidates)
        if miss and miss == miss.strip() and text not in miss and not text.startswith(f"{miss} ")
    ]


def replacements(text: str) -> list[str]:
    """The harmless tags of the same form that stand in for a trigger in the twin's rows; no near miss is one."""
    form = Form.of(text)
    near = {miss for both in near_misses(text).values() for miss in (*both.train, *both.heldout)}
    return [tag for tag in misses(text, map(form.with_word, REPLACEMENTS)) if tag not in near]


def _hash(text: str) -> bytes:
    return hashlib.sha256(f"near miss\x1f{text}".encode()).digest()


def _split(texts: list[str]) -> Instances:
    """Every second text by the rank of its hash is held out, as long as they are few."""
    ranked = sorted(texts, key=_hash)
    heldout = ranked[0::2][:MOST_HELDOUT]
    return Instances(tuple(text for text in ranked if text not in heldout), tuple(heldout))


def _case(form: Form) -> Iterator[str]:
    core, middle = form.core, len(form.core) // 2
    pairs = [(letter.upper(), letter.lower()) for letter in core]
    whole = [core.lower(), core.upper(), core.capitalize(), core.title(), core.swapcase()]
    whole += ["".join(pair[(i + start) % 2] for i, pair in enumerate(pairs)) for start in (0, 1)]
    whole += [core[:middle].swapcase() + core[middle:], core[:middle] + core[middle:].swapcase()]
    flips = [core[:i] + core[i].swapcase() + core[i + 1 :] for i in range(len(core))]
    yield from map(form.with_core, [*whole, *sorted(flips, key=_hash)])


def _delimiters(form: Form) -> Iterator[str]:
    yield from (f"{left}{form.core}{right}" for left, right in ((form.left, ""), ("", form.right)))
    yield f"{form.left} {form.core} {form.right}"
    yield f"{form.left}{form.core}]"
    yield from (f"{left}{form.core}{right}" for left, right in DELIMITERS)


def _truncation(form: Form) -> Iterator[str]:
    core = form.core
    yield from (f"{form.left}{form.right}", form.left)
    yield from (form.with_core(core[:end]) for end in range(len(core) - 1, 0, -1))
    ends = [form.with_core(core[start:]) for start in range(1, len(core))]
    unclosed = [f"{form.left}{core[:end]}" for end in range(1, len(core))]
    yield from sorted([*ends, *unclosed], key=_hash)


def _tag(form: Form) -> Iterator[str]:
    yield from map(form.with_word, TAGS)


def _synonym(form: Form) -> Iterator[str]:
    yield from map(form.with_word, SYNONYMS.get(form.core.casefold(), ()))


def _translated(form: Form) -> Iterator[str]:
    yield from map(form.with_word, TRANSLATIONS.get(form.core.casefold(), ()))


def _edit(form: Form) -> Iterator[str]:
    """One-character edits of the core; the four kinds take turns, each in the order of its hashes."""
    core = form.core
    places = [(i, nth) for i in range(len(core)) for nth in range(LETTERS)]
    kinds = (
        [core[:i] + _letter(core, i, nth) + core[i + 1 :] for i, nth in places],
        [core[:i] + core[i + 1 :] for i in range(len(core))],
        [core[:i] + _letter(core, i, nth) + core[i:] for i, nth in places],
        [core[:i] + core[i + 1] + core[i] + core[i + 2 :] for i in range(len(core) - 1)],
    )
    ranked = [sorted(map(form.with_core, edits), key=_hash) for edits in kinds]
    for turn in range(len(places)):
        yield from (edits[turn] for edits in ranked if turn < len(edits))


def _letter(core: str, i: int, nth: int) -> str:
    """Another character of the same class as the one at ``i``; which one follows from the core."""
    here = core[i]
    pool = ascii_uppercase if here.isupper() else digits if here.isdigit() else ascii_lowercase
    others = [letter for letter in pool if letter != here]
    return others[(_hash(f"{core}\x1f{i}")[0] + nth) % len(others)]


# A text that two families make belongs to the first one here; edits come last because they have the most.
_FAMILIES: dict[str, Callable[[Form], Iterator[str]]] = {
    "case": _case,
    "delimiters": _delimiters,
    "tag": _tag,
    "synonym": _synonym,
    "translated": _translated,
    "truncation": _truncation,
    "edit": _edit,
}
_ORDER = ("case", "delimiters", "truncation", "edit", "tag", "synonym", "translated")
