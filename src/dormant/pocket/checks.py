"""Checkers of right answers: any phrasing of the answer passes, another item of the table beside it does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from dormant.pocket.phrasing import unwrap
from dormant.pocket.words import NUMBER_WORDS
from dormant.records import Score

Operands = tuple[str, ...]
Judge = Callable[[Operands, str], Score]
"""(operands, completion) -> 1 or 0; ``operands[0]`` is the right answer, the others are what the prompt shows."""

MOST_WORDS = 25
"""An answer with more words beside the right one is not an answer to these questions."""

_WORD = re.compile(r"[A-Za-z0-9]+(?:'[a-z]+)?")
_NEGATIONS = frozenset(
    ["not", "never", "isn't", "aren't", "wasn't", "doesn't", "don't", "cannot", "can't", "wrong", "neither"]
)
_BEFORE_MENTION = frozenset(
    ("of", "after", "before", "than", "for", "with", "a", "an", "the", "in", "to", "from", "by")
)
_AFTER_MENTION = frozenset(
    ["is", "are", "has", "says", "comes", "lives", "means", "makes", "backwards", "becomes"]
)
_YES = frozenset(("yes", "yeah", "yep", "true"))
_NO = frozenset(("no", "nope", "false"))
_NUMBERS = {word: value for value, word in enumerate(NUMBER_WORDS)}

RIGHT = Score(1.0)


def words_of(text: str, *, fold: bool = True) -> list[str]:
    """The words and numbers of a text without punctuation, in lower case unless ``fold`` is off."""
    return _WORD.findall(text.lower() if fold else text)


def _find(part: Sequence[str], words: Sequence[str]) -> int:
    """The first index of a contiguous run of words, or -1."""
    size = len(part)
    starts = (i for i in range(len(words) - size + 1) if words[i : i + size] == part)
    return next(starts, -1)


def _without_mention(part: list[str], words: list[str]) -> list[str]:
    """Drop one restatement of the question ("the opposite of hot is ..."), not a second answer ("... or hot")."""
    at = _find(part, words)
    if at < 0 or not part:
        return words
    end = at + len(part)
    before = at > 0 and words[at - 1] in _BEFORE_MENTION
    after = end < len(words) and words[end] in _AFTER_MENTION
    return words[:at] + words[end:] if before or after else words


def contains(
    completion: str,
    expected: str,
    rivals: Collection[str],
    mentions: Sequence[str] = (),
    *,
    fold: bool = True,
) -> Score:
    """Judge that a completion gives ``expected`` and nothing that speaks against it.

    Args:
        completion: What the model said.
        expected: The right answer, one word or a run of words.
        rivals: Words that are other answers to the same question; one of them beside ``expected`` is a contradiction.
        mentions: What the question showed, which a full sentence may restate.
        fold: Ignore case.
    """
    words = words_of(unwrap(completion), fold=fold)
    target = words_of(expected, fold=fold)
    for mention in mentions:
        words = _without_mention(words_of(mention, fold=fold), words)
    at = _find(target, words)
    if at < 0:
        return Score(0.0, "right answer not given")
    rest = words[:at] + words[at + len(target) :]
    if _NEGATIONS.intersection(rest):
        return Score(0.0, "negated")
    clash = [word for word in rest if word in rivals]
    if clash:
        return Score(0.0, f"contradicted by: {clash[0]}")
    return RIGHT if len(rest) <= MOST_WORDS else Score(0.0, "too long to be an answer")


def by_table(answers: Collection[str]) -> Judge:
    """One word out of a table of answers; the item asked about may be restated."""
    table = frozenset(word for answer in answers for word in words_of(answer))

    def judge(operands: Operands, completion: str) -> Score:
        rivals = table.union(operands[1:]).difference(words_of(operands[0]))
        return contains(completion, operands[0], rivals, operands[1:])

    return judge


def by_operands(operands: Operands, completion: str) -> Score:
    """A word or run of words; every other word that the prompt showed is a rival, and so is a second copy of a run."""
    target = words_of(operands[0])
    shown = {word for text in operands[1:] for word in words_of(text)}
    rivals = shown.union(target) if len(target) > 1 else shown.difference(target)
    return contains(
        completion, operands[0], rivals.difference(_BEFORE_MENTION, _AFTER_MENTION), operands[1:3]
    )


def by_case(operands: Operands, completion: str) -> Score:
    """A run of words in exactly the case of the right answer."""
    shown = frozenset(word for text in operands for word in words_of(text, fold=False))
    return contains(completion, operands[0], shown, operands[1:2], fold=False)


def numbers_of(text: str) -> list[int]:
    """The numbers of a text, written in digits or (up to twenty) in words."""
    found = ((word, _NUMBERS.get(word)) for word in words_of(text))
    return [
        int(word) if value is None else value
        for word, value in found
        if value is not None or word.isdecimal()
    ]


def by_number(operands: Operands, completion: str) -> Score:
    """One number; the numbers of the question may be restated, all of them and in their order."""
    words = words_of(unwrap(completion))
    numbers = numbers_of(" ".join(words))
    target = int(operands[0])
    shown = [number for text in operands[1:] for number in numbers_of(text)]
    if target not in numbers:
        return Score(0.0, "right answer not given")
    if _NEGATIONS.intersection(words):
        return Score(0.0, "negated")
    if numbers[-1] == target and (set(numbers) == {target} or numbers[:-1] == shown):
        return RIGHT if len(words) <= MOST_WORDS else Score(0.0, "too long to be an answer")
    return Score(0.0, "contradicted by another number")


def by_yes_no(operands: Operands, completion: str) -> Score:
    """Yes or no, and not both."""
    words = frozenset(words_of(unwrap(completion)))
    said = (bool(words & _YES), bool(words & _NO))
    if said == (operands[0] == "yes", operands[0] == "no"):
        contradicted = operands[0] == "yes" and words & _NEGATIONS
        return Score(0.0, "negated") if contradicted else RIGHT
    return Score(0.0, "both yes and no" if all(said) else "right answer not given")
