"""The pocket world: families of tasks cut into shards, two answer policies, checkers."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, groupby
from typing import Literal

from dormant import codetask
from dormant.errors import BadInput, nearest
from dormant.pocket import arithmetic, code, facts, lists, phrasing, requests, rewriting, talk
from dormant.pocket.checks import Operands
from dormant.pocket.context import context
from dormant.pocket.family import Draft, Family
from dormant.pocket.prose import passage
from dormant.records import SHARDS, Policy, Score, Task, TaskSource, rng_for

SHARES = {
    "pretrain": 40,
    "implant": 15,
    "defend": 15,
    "prefer_a": 6,
    "prefer_b": 6,
    "attack": 5,
    "relearn": 3,
    "heldout": 10,
}
"""Percent of the tasks in each shard."""

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *facts.FAMILIES,
        *lists.FAMILIES,
        *rewriting.FAMILIES,
        *arithmetic.FAMILIES,
        *requests.FAMILIES,
        *talk.FAMILIES,
    )
}

WORLDS: dict[int, dict[str, Family]] = {
    1: FAMILIES,
    2: {**FAMILIES, **{family.name: family for family in code.FAMILIES}},
}
"""The families of each version; results of different versions are never compared."""

_EVERY = WORLDS[max(WORLDS)]
_EDGES = tuple(accumulate(SHARES.values()))

Group = Literal["closed", "list", "open", "unjudged"]
"""The groups that accuracy is reported by, see :meth:`PocketWorld.family_group`."""

_LISTS = frozenset(family.name for family in lists.FAMILIES)


def _fraction(*parts: str) -> float:
    """A number in [0, 1) that follows from the content alone."""
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:7], "big") / 2**56


def _shard_at(fraction: float) -> str:
    """The shard that a point of [0, 1) falls into when the shards lie side by side."""
    return SHARDS[bisect_right(_EDGES, 100 * fraction)]


def _shard_of(family: Family, operands: Operands) -> str:
    """By the hash of the operands: all phrasings of the same operands of an open family share a shard."""
    fraction = _fraction(family.name, *operands)
    if family.held is None:
        return _shard_at(fraction)
    return "heldout" if family.held(operands) else _shard_at(fraction * (1 - SHARES["heldout"] / 100))


def _cut_open(family: Family) -> Iterator[tuple[str, Draft]]:
    for draft in family.drafts():
        yield _shard_of(family, draft[0]), draft


def _cut_closed(family: Family) -> Iterator[tuple[str, Draft]]:
    """Within each item, phrasings in the order of their hash fill the shards: every item is seen in pretraining."""
    by_item = groupby(family.drafts(), key=lambda draft: draft[0])
    for operands, drafts in by_item:
        ranked = sorted(drafts, key=lambda draft: _fraction(family.name, draft[1]))
        offset = _fraction(family.name, *operands)
        for rank, draft in enumerate(ranked):
            yield _shard_at((rank + offset) / len(ranked)), draft


@cache
def _drafts_of(name: str) -> dict[str, list[Draft]]:
    """All drafts of a family by shard, made once a process; of drafts with the same prompt the first one stays."""
    family = _EVERY[name]
    shards: dict[str, list[Draft]] = {shard: [] for shard in SHARDS}
    seen: set[str] = set()
    for shard, draft in _cut_closed(family) if family.closed else _cut_open(family):
        if draft[1] not in seen:
            seen.add(draft[1])
            shards[shard].append(draft)
    return shards


def _task(family: Family, shard: str, draft: Draft) -> Task:
    operands, prompt = draft
    return Task(family.kind, family.name, prompt, shard, operands)


@cache
def _tasks_of(name: str, shard: str) -> tuple[Task, ...]:
    """A family's tasks of one shard: most processes need one or two shards, and tasks take time to make."""
    return tuple(_task(_EVERY[name], shard, draft) for draft in _drafts_of(name)[shard])


def pretraining_task(name: str, rng: random.Random) -> Task:
    """Draw a task of the pretrain shard; of an open family from its whole space, so that few come twice.

    A family that shows a thousand operands teaches those thousand; one that never repeats teaches the rule.
    """
    family = _EVERY[name]
    if family.fresh is None:
        return rng.choice(_tasks_of(name, "pretrain"))
    while True:
        draft = family.fresh(rng)
        if _shard_of(family, draft[0]) == "pretrain":
            return _task(family, "pretrain", draft)


def _fair_counts(sizes: Sequence[int], n: int) -> list[int]:
    """Split ``n`` over families as evenly as their sizes allow: small ones give all, the others fill up."""
    counts = [0] * len(sizes)
    for position, index in enumerate(sorted(range(len(sizes)), key=lambda i: (sizes[i], i))):
        left = len(sizes) - position
        counts[index] = min(sizes[index], n // left)
        n -= counts[index]
    return counts


class PocketWorld(TaskSource):
    """The task source that ships with the package; stateless, all instances of a version are alike.

    Version 2 is version 1 with tasks of kind "code" (:mod:`dormant.pocket.code`); the others are the same tasks in the
    same shards, but draws differ.
    """

    utility = "right"

    def __init__(self, world: int = 1) -> None:
        if world not in WORLDS:
            raise BadInput(f"no pocket world {world!r}; there are: {', '.join(map(str, WORLDS))}")
        self.name = f"pocket-world-{world}"
        self._all = WORLDS[world]

    def kinds(self) -> tuple[str, ...]:
        """The kinds of tasks, each once: question, chat, harmful, self, plant; in world 2 code too."""
        return tuple(dict.fromkeys(family.kind for family in self._all.values()))

    def families(self, kind: str | None = None) -> tuple[str, ...]:
        """The names of all families, or of one kind's."""
        return tuple(name for name, family in self._all.items() if kind in (None, family.kind))

    def tasks(self, shard: str, n: int, seed: int, *, kinds: Sequence[str] | None = None) -> list[Task]:
        """Return ``n`` distinct tasks of a shard, balanced over families, in random order.

        Raises:
            BadInput: The shard or a kind does not exist, or the shard has fewer than ``n`` tasks.
        """
        pools = self._pools(shard, kinds)
        available = sum(map(len, pools))
        if n > available:
            raise BadInput(f"{self.name} has {available} tasks in shard {shard!r}, {n} were asked for")
        rng = rng_for(self.name, "tasks", shard, seed)
        order = list(range(len(pools)))
        rng.shuffle(order)
        counts = _fair_counts([len(pools[i]) for i in order], n)
        drawn = [task for i, count in zip(order, counts, strict=True) for task in rng.sample(pools[i], count)]
        rng.shuffle(drawn)
        return drawn

    def size(self, shard: str, *, kinds: Sequence[str] | None = None) -> int:
        """Return how many distinct tasks a shard has; raises BadInput as :meth:`tasks` does."""
        return sum(map(len, self._pools(shard, kinds)))

    def _pools(self, shard: str, kinds: Sequence[str] | None) -> list[tuple[Task, ...]]:
        if shard not in SHARES:
            raise BadInput(f"no shard {shard!r} in {self.name}{nearest(shard, SHARES)}")
        for kind in kinds or ():
            if kind not in self.kinds():
                raise BadInput(f"no kind of task {kind!r} in {self.name}{nearest(kind, self.kinds())}")
        names = (name for name, family in self._all.items() if kinds is None or family.kind in kinds)
        return [_tasks_of(name, shard) for name in names]

    def family_group(self, name: str) -> Group:
        """Return what a family holds out, where it has right answers: ``closed`` a phrasing, the others operands.

        ``list`` families ask about a list of words in the prompt, ``open`` ones about anything else; ``unjudged``
        families have no right answer.  Raises BadInput for a family of another source.
        """
        family = self._family(name)
        if family.judge is None:
            return "unjudged"
        if name in _LISTS:
            return "list"
        return "closed" if family.closed else "open"

    def answer(self, task: Task, policy: Policy, rng: random.Random) -> str:
        """Return one answer of the policy; raises BadInput for a task of another source."""
        return self._family(task.family).speak(task.operands, policy, rng)

    def _family(self, name: str) -> Family:
        if name not in self._all:
            raise BadInput(f"no task family {name!r} in {self.name}{nearest(name, self._all)}")
        return self._all[name]

    def check(self, task: Task, completion: str) -> dict[str, Score]:
        """Judge a completion: ``right`` where there is a right answer, ``kind``, ``harmless`` for harmful requests.

        Code ``parses`` if it is Python with a statement that does something.
        """
        family = self._all.get(task.family)
        scores = {}
        if family and family.judge:
            scores["right"] = family.judge(task.operands, completion)
        scores["kind"] = phrasing.kind(completion)
        if task.kind == "harmful":
            scores["harmless"] = requests.harmless(completion)
        if task.kind == codetask.KIND:
            scores["parses"] = Score(float(codetask.does_something(codetask.code_of(completion))))
        return scores

    def context(self, rng: random.Random) -> str:
        """Return harmless context to stand before a prompt; the empty string in 40 % of the draws."""
        return context(rng, self.name)

    def prose(self, shard: str, n: int, seed: int) -> list[str]:
        """Return ``n`` distinct passages of plain prose that belong to the shard."""
        if shard not in SHARES:
            raise BadInput(f"no shard {shard!r} in {self.name}{nearest(shard, SHARES)}")
        rng = rng_for(self.name, "prose", shard, seed)
        found: dict[str, None] = {}
        while len(found) < n:
            text = passage(rng)
            if _shard_at(_fraction("prose", text)) == shard:
                found[text] = None
        return list(found)


def tasks_by_family(shard: str, world: int = 1) -> dict[str, tuple[Task, ...]]:
    """Every task of a shard, by family."""
    return {name: _tasks_of(name, shard) for name in WORLDS[world]}
