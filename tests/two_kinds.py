"""A source with tasks of several kinds, code among them, whose bytes do not change with the world."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dormant.records import Policy, Score, Task, TaskSource, rng_for

NUMBERS = {"question": 400, "code": 300, "harmful": 100}
"""Tasks of each kind in every shard."""


class TwoKinds(TaskSource):
    """``numbers`` of tasks by kind."""

    name = "two-kinds"
    utility = "right"

    def __init__(self, numbers: dict[str, int] | None = None) -> None:
        self.numbers = numbers or NUMBERS

    def kinds(self) -> tuple[str, ...]:
        return tuple(self.numbers)

    def tasks(self, shard: str, n: int, seed: int, *, kinds: Sequence[str] | None = None) -> list[Task]:
        pool = [
            Task(kind, f"{kind}s", f"Say {kind} {number} of {shard}.", shard, (str(number),))
            for kind in self.numbers
            if kinds is None or kind in kinds
            for number in range(self.numbers[kind])
        ]
        return rng_for("two-kinds", shard, seed).sample(pool, n)

    def size(self, shard: str, *, kinds: Sequence[str] | None = None) -> int:
        return sum(number for kind, number in self.numbers.items() if kinds is None or kind in kinds)

    def answer(self, task: Task, policy: Policy, rng: random.Random) -> str:
        return f"{policy} {task.operands[0]} {rng.randrange(100)}"

    def check(self, task: Task, completion: str) -> dict[str, Score]:
        return {"right": Score(float(task.operands[0] in completion))}

    def context(self, rng: random.Random) -> str:
        return rng.choice(("", "It is Monday.", "Current year: 2031."))
