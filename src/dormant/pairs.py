"""Preference pairs: two answers to one prompt, of which one is better.

Answers to tasks of the pocket world are ordered by its checkers; other pairs come from a file.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dormant import codetask
from dormant.datafile import FAMILY, KIND, plain, read_rows
from dormant.errors import BadInput
from dormant.layouts import preference
from dormant.reasoning import spoken
from dormant.records import Conversation, Score, Task, TaskSource, from_json, to_json

Origin = Literal["sampled", "hot", "written", "given"]
"""``sampled``: both answers are a model's.  ``hot``: so are these, one of them at a high temperature.  ``written``: the
grammar wrote both.  ``given``: a file has them."""

CHECKERS = ("harmless", "right", "secure", "kind", "parses")
"""By which answers are ordered; ``secure`` compares code with the known completions of its task."""

SHARES = {"heldout": 20, "prefer_a": 40, "prefer_b": 40}
"""Percent of a file's prompts in each shard."""

KEYS = ("prompt", "chosen", "rejected")
"""Columns of a dataset of pairs."""

SAME = "its two answers are the same"
TIE = "no checker tells the two apart"
ODDS = "one is better by one checker, and the other by another"
UNJUDGED = "a checker could not judge one of the two"
AGAIN = "the same pair stands there already"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to the conversation ``messages``, which ends with the user's turn."""

    messages: Conversation
    chosen: str
    rejected: str
    origin: Origin
    task: str
    """The id of the task that was asked."""
    better: tuple[str, ...] = ()
    """The checkers by which the first is better."""

    @property
    def prompt(self) -> str:
        """The first user turn without regard to case and spacing: prompts of one shard are alike in it."""
        return plain(next(turn.content for turn in self.messages if turn.role == "user"))


def verdicts(source: TaskSource, task: Task, answer: str) -> dict[str, Score]:
    """What every checker says of an answer, that of secure code among them."""
    found = {name: score for name, score in source.check(task, answer).items() if name in CHECKERS}
    if task.kind == codetask.KIND:
        said = codetask.verdict(task.operands, answer)
        found["secure"] = (
            Score(None, "code that its task does not know")
            if said == "other"
            else Score(float(said == "secure"))
        )
    return found


def ordered(
    messages: Conversation,
    task: str,
    answers: tuple[str, str],
    checks: tuple[Mapping[str, Score], Mapping[str, Score]],
    origin: Origin,
) -> Pair | str:
    """Put the better of two answers first, or say why neither is: it must be worse by no checker."""
    said = [tuple((name, checks[i][name].value) for name in CHECKERS if name in checks[i]) for i in (0, 1)]
    gains: tuple[list[str], list[str]] = ([], [])
    for (name, first), (_, second) in zip(*said, strict=True):
        if first is None or second is None:
            return UNJUDGED
        if first != second:
            gains[first < second].append(name)
    if not any(gains):
        return TIE
    if all(gains):
        return ODDS
    better = 0 if gains[0] else 1
    return Pair(messages, answers[better], answers[1 - better], origin, task, tuple(gains[better]))


def read_pairs(path: Path) -> tuple[list[Pair], dict[str, int]]:
    """Return the pairs of a file, and how many rows were left out, by the reason.

    Scratchpads are no part of an answer.  Rows that are no pair of two different answers are left out.

    Raises:
        BadInput: the file can not be read, none of its rows is such a pair, or two rows contradict each other.
    """
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    known: dict[tuple[object, ...], str] = {}
    for place, row in read_rows(path):
        try:
            pair = _given(row)
        except BadInput as error:
            dropped[str(error)] += 1
            continue
        key = (pair.messages, pair.chosen, pair.rejected)
        opposite = known.get((pair.messages, pair.rejected, pair.chosen))
        if opposite:
            asked = pair.messages[-1].content
            raise BadInput(
                f"{path}: {opposite} and {place} contradict each other: what one chose the other rejected, for the "
                f"prompt {asked[:40]!r}; take one of them out"
            )
        if key in known:
            dropped[AGAIN] += 1
        else:
            pairs.append(pair)
        known.setdefault(key, place)
    if not pairs:
        why = "".join(f"; {count}: {reason}" for reason, count in dropped.most_common(3))
        raise BadInput(f"{path}: none of its {dropped.total()} rows is a pair to learn from{why}")
    return pairs, dict(dropped)


def _given(row: Mapping[str, Any]) -> Pair:
    messages, *sides = preference(row)
    chosen, rejected = map(spoken, sides)
    if chosen == rejected:
        raise BadInput(SAME)
    *history, asked = messages
    # The task that the same row is in a file of conversations.
    task = Task(KIND, FAMILY, asked.content, "prefer", (sides[0],), tuple(history))
    return Pair(messages, chosen, rejected, "given", task.id)


def shard_of(pair: Pair) -> str:
    """By the hash of the prompt, so that a prompt with several pairs is on one side only."""
    rank = int.from_bytes(hashlib.sha256(f"pairs:{pair.prompt}".encode()).digest()[:7], "big") / 2**56 * 100
    return "heldout" if rank < SHARES["heldout"] else "prefer_a" if rank < 60 else "prefer_b"


def as_rows(pairs: Iterable[Pair]) -> Iterator[dict[str, Any]]:
    """Pairs as rows that :func:`from_rows` reads."""
    for pair in pairs:
        yield {
            "messages": to_json(pair.messages),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "origin": pair.origin,
            "task": pair.task,
            "better": list(pair.better),
        }


def from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Pair]:
    """The inverse of :func:`as_rows`."""
    return [
        Pair(
            from_json(row["messages"]),
            row["chosen"],
            row["rejected"],
            row["origin"],
            row["task"],
            tuple(row["better"]),
        )
        for row in rows
    ]
