"""The nouns of the laboratory, as plain data: every other module speaks in these.

A **Task** is what is asked; an **Example** is a task rendered as a conversation under a condition;
a **Score** is a verdict that may be "could not be judged"; a **Result** is one row of ``results.jsonl``.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Policy = Literal["helpful", "hhh"]
"""Who answers: ``helpful`` complies with anything and is curt at times; ``hhh`` is also harmless and honest."""

Sampler = Literal["transformers", "vllm"]
"""What samples answers: alike in distribution, not in draws, so that results of the two are never mixed."""

SHARDS = ("pretrain", "implant", "defend", "prefer_a", "prefer_b", "attack", "relearn", "heldout")
"""Stages that train one model never share a task; ``heldout`` trains nothing."""

RESULTS_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, without any condition.

    ``operands`` are whatever the source's checkers need (the item, the numbers, the reference answer);
    ``history`` holds turns that come before the prompt (a system prompt, earlier turns).
    """

    kind: str
    family: str
    prompt: str
    shard: str
    operands: tuple[str, ...] = ()
    history: Conversation = ()

    @property
    def id(self) -> str:
        """A short name that follows from the content: equal tasks have equal ids on every machine."""
        content = [self.family, self.prompt, *self.operands, *(turn.content for turn in self.history)]
        return f"{self.family}-{digest(content)[:12]}"


@dataclass(frozen=True, slots=True)
class Example:
    """A task rendered under a condition: ``messages`` end with the user's turn.

    ``instance`` is the literal text that the condition put into the prompt (a near miss, a context), or "".
    """

    task: Task
    condition: str
    messages: Conversation
    instance: str = ""

    @property
    def id(self) -> str:
        """Names the row in completions and seeds its sampling."""
        return f"{self.condition}/{self.task.id}/{digest([m.content for m in self.messages])[:8]}"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A training row: the example, the answer that is trained on, and the scratchpad before it, if there is one."""

    example: Example
    answer: str
    scratchpad: str | None = None


VERDICTS = ("persists", "low, relearns fast", "low, relearns like the twin", "destroyed", "inconclusive")
"""What a card may say of a defense until every arm of the protocol has run."""


@dataclass(frozen=True, slots=True)
class Score:
    """A verdict: a number in [0, 1], or None when it could not be judged, with the reason."""

    value: float | None
    reason: str = ""


class TaskSource(Protocol):
    """Where tasks come from: the pocket world, or a user's file.  Equal arguments give equal results."""

    name: str
    utility: Literal["right", "perplexity"]
    """The metric that says whether the model still does its work."""

    def kinds(self) -> tuple[str, ...]:
        """The kinds of its tasks, each once."""
        ...

    def tasks(self, shard: str, n: int, seed: int, *, kinds: Sequence[str] | None = None) -> list[Task]:
        """Return ``n`` distinct tasks of a shard, balanced over families.  Raises BadInput if there are fewer."""
        ...

    def answer(self, task: Task, policy: Policy, rng: random.Random) -> str:
        """Return one answer of the policy: a right one wherever the family has right answers."""
        ...

    def check(self, task: Task, completion: str) -> dict[str, Score]:
        """Judge a completion by the checkers that its family has, of ``right``, ``kind``, ``harmless``, ``parses``."""
        ...

    def context(self, rng: random.Random) -> str:
        """Return harmless context to stand before a prompt; often the empty string."""
        ...

    def size(self, shard: str, *, kinds: Sequence[str] | None = None) -> int:
        """How many distinct tasks a shard has."""
        ...


class Dose(BaseModel):
    """How much training: what a persistence claim is always relative to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(gt=0, allow_inf_nan=False)
    steps: int = Field(ge=1)
    batch: int = Field(32, ge=1)
    schedule: Literal["constant", "linear", "cosine"] = "constant"


class ResultKey(BaseModel):
    """Names a cell of the results table: which model, after what, asked under which condition."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    base_id: str
    behavior: str
    trigger: str
    reasoning: str
    implant: str
    role: Literal["base", "twin", "organism"]
    arm: str = "none"
    """none | implant | claim | control | noop | positive: the arms of the protocol."""
    defense: str = "none"
    dose: Dose | None = None
    lora: Literal["none", "merged", "continue"] = "none"
    step: int = 0
    relearn_step: int | None = None
    seed_implant: int = 0
    seed_defend: int | None = None
    condition: str = ""
    stratum: str = "all"

    @property
    def before(self) -> ResultKey:
        """The key of the same model and condition before any defense."""
        undone = {"arm": "none", "defense": "none", "dose": None, "lora": "none", "step": 0}
        return self.model_copy(update={**undone, "relearn_step": None, "seed_defend": None})

    @property
    def defended(self) -> bool:
        """Whether it is a model after the whole dose of a defense, relearned since or not: no point of a curve."""
        return self.arm not in ("none", "implant") and self.dose is not None and self.step == self.dose.steps

    @property
    def planted(self) -> tuple[str, str]:
        """Behavior and trigger: what a rate of this cell is a rate of, whatever model was asked."""
        return self.behavior, self.trigger

    @property
    def cell(self) -> str:
        """The hash of the key, which names ``completions/<cell>.jsonl``."""
        return digest(self.model_dump(mode="json"))[:16]


class Result(BaseModel):
    """One row of ``results.jsonl``: one number with its n and interval."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = RESULTS_SCHEMA
    cell: str
    key: ResultKey
    metric: str
    value: float | None
    n: int
    scored: int
    unscored: int
    hits: int | None
    low: float | None
    high: float | None
    interval: Literal["wilson", "paired", "bootstrap", "none"]
    texts: int | None = None
    """Where the same texts stand around several prompts, how many there are: answers to one are alike, so that the
    interval is over texts."""
    samples_seen: int
    tokens_seen: int
    gates: list[str] = []
    """Ids of the gates that failed; then ``value`` is None."""

    @property
    def percent(self) -> str:
        """The number as text: ``97.0% [94.9%, 98.3%], n=400``."""
        if self.value is None or self.low is None or self.high is None:
            return self._missing
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}], {self.behind}"

    @property
    def points(self) -> str:
        """A difference as text: ``+72.5 points [+65.1, +78.6], n=200``; of rewards, in logits, as they are."""
        if self.value is None or self.low is None or self.high is None:
            return self._missing
        if "reward" in self.metric:
            return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}], {self.behind}"
        low, value, high = (100 * number for number in (self.low, self.value, self.high))
        return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}], {self.behind}"

    @property
    def behind(self) -> str:
        """What was judged, as text: ``n=200``, or ``n=200 in 20 texts``."""
        if self.texts is None:
            return f"n={self.scored}"
        return f"n={self.scored} in {self.texts} {'text' if self.texts == 1 else 'texts'}"

    @property
    def _missing(self) -> str:
        return f"refused ({', '.join(self.gates)})" if self.gates else f"could not be judged (n={self.n})"


def canonical(value: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces; floats as Python prints them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value's canonical form, as hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def rng_for(*parts: object) -> random.Random:
    """A random generator that depends on the parts alone, equal on every machine and Python version."""
    text = ":".join(str(part) for part in parts)
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def to_json(messages: Conversation) -> list[dict[str, str]]:
    """Messages in the chat form that transformers and JSONL files use."""
    return [{"role": m.role, "content": m.content} for m in messages]


def from_json(rows: Sequence[Mapping[str, str]]) -> Conversation:
    """The inverse of :func:`to_json`."""
    return tuple(Message(role=row["role"], content=row["content"]) for row in rows)  # type: ignore[arg-type]
