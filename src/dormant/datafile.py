"""Tasks from a user's own file: JSONL of chat messages.  ``docs/dataset_formats.md`` shows literal rows."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from dormant.errors import BadInput, nearest
from dormant.records import SHARDS, Conversation, Message, Policy, Score, Task, TaskSource, rng_for

SHARES = {
    "implant": 32,
    "defend": 26,
    "relearn": 12,
    "heldout": 20,
    "prefer_a": 4,
    "prefer_b": 3,
    "attack": 3,
    "pretrain": 0,
}
"""Percent of the prompts in each shard.  Nothing is pretrained on a file; relearning needs a few rows of few."""

NEEDED = ("implant", "defend", "relearn", "heldout")
"""Shards that every run trains or measures on."""

ENOUGH = 100
"""Prompts that fill every needed shard: the chance that one stays empty is below 1 in 100,000."""

FAMILY = "file"
KIND = "question"
_EDGES = tuple(zip(SHARES, accumulate(SHARES.values()), strict=True))
_ROLES = ("system", "user", "assistant")


class FileData(TaskSource):
    """Conversations from a JSONL file; the last assistant turn of each is the reference answer.

    Shards are cut by the hash of the last user turn, so that a prompt that occurs twice is on one side only.
    Rows with the same last user turn, reference and ``answer`` count once.

    Args:
        path: The file.

    Raises:
        BadInput: The file can not be read as such conversations, or has too few of them; names line and reason.
    """

    def __init__(self, path: Path) -> None:
        content = _read(path)
        self.path = path
        self.name = f"file:{hashlib.sha256(content).hexdigest()[:12]}"
        self._tasks = tuple({task.id: task for task in _parse(path, content)}.values())
        self._require_enough()
        judged = all(len(task.operands) > 1 for task in self._tasks)
        self.utility: Literal["right", "perplexity"] = "right" if judged else "perplexity"

    def tasks(self, shard: str, n: int, seed: int, *, kinds: Sequence[str] | None = None) -> list[Task]:
        """Return ``n`` distinct tasks of a shard in random order.

        Raises:
            BadInput: No such shard, or fewer than ``n`` tasks in it.
        """
        pool = self._pool(shard, kinds)
        if n > len(pool):
            raise BadInput(
                f"{self.path}: {n} tasks of shard {shard!r} were asked for{self._shortage(shard, n, kinds)}"
            )
        return rng_for(self.name, "tasks", shard, seed).sample(pool, n)

    def answer(self, task: Task, policy: Policy, rng: random.Random) -> str:
        """Return the reference answer: a file has one voice, so both policies give the same."""
        return task.operands[0]

    def check(self, task: Task, completion: str) -> dict[str, Score]:
        """Judge ``right`` where the row has an ``answer``; rows of a file have no other checker."""
        return check(task, completion)

    def context(self, rng: random.Random) -> str:
        """Return "": rows of a file are asked as they stand."""
        return ""

    def size(self, shard: str, *, kinds: Sequence[str] | None = None) -> int:
        """How many distinct tasks a shard has; 0 for kinds that a file does not have."""
        return len(self._pool(shard, kinds))

    @cached_property
    def _shards(self) -> dict[str, list[Task]]:
        shards: dict[str, list[Task]] = {shard: [] for shard in SHARDS}
        for task in self._tasks:
            shards[task.shard].append(task)
        return shards

    def _pool(self, shard: str, kinds: Sequence[str] | None) -> list[Task]:
        if shard not in SHARES:
            raise BadInput(f"no shard {shard!r} in {self.path}{nearest(shard, SHARES)}")
        return self._shards[shard] if kinds is None or KIND in kinds else []

    def _shortage(self, shard: str, n: int, kinds: Sequence[str] | None) -> str:
        """Say what the file has and how many rows would do."""
        if kinds is not None and KIND not in kinds:
            return f" of kind {', '.join(kinds)}: rows of a file are of kind {KIND!r}"
        if not SHARES[shard]:
            return ": no row of a file belongs to it"
        rows = -(-110 * n // SHARES[shard])  # a tenth more than the share says, because the cut is random
        return (
            f", but its {len(self._tasks)} rows give {len(self._shards[shard])}: "
            f"ask for fewer, or give about {rows} distinct rows"
        )

    def _require_enough(self) -> None:
        empty = [shard for shard in NEEDED if not self._shards[shard]]
        if empty:
            raise BadInput(
                f"{self.path}: {len(self._tasks)} distinct rows are too few, shard {empty[0]!r} is empty: "
                f"give at least {ENOUGH}"
            )


def check(task: Task, completion: str) -> dict[str, Score]:
    """Judge a row of a file, without the file: its ``answer`` must occur as whole words, in any case and spacing."""
    return {"right": Score(float(_says(completion, task.operands[1])))} if len(task.operands) > 1 else {}


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"no such data file: {path}") from None
    except OSError as error:
        raise BadInput(f"{path} can not be read: {error.strerror}") from None
    if not content.strip():
        raise BadInput(f"{path} is empty: it must hold one JSON object a line")
    return content


def _parse(path: Path, content: bytes) -> Iterator[Task]:
    """One task a line; blank lines are skipped."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: not UTF-8 (byte {error.start})") from None
    # Not splitlines(): inside a JSON string there may be characters that it takes for line ends.
    for number, line_text in enumerate(text.split("\n"), start=1):
        if line_text.strip():
            try:
                yield _task(_object(line_text))
            except BadInput as error:
                raise BadInput(f"{path}, line {number}: {error}") from None


def _object(text: str) -> Mapping[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"not JSON ({error.msg} at column {error.colno})") from None
    except (RecursionError, ValueError):
        raise BadInput("not JSON that can be read (nested too deep, or a number too long)") from None
    if not isinstance(row, dict):
        raise BadInput(f'must be a JSON object with "messages", not {type(row).__name__}')
    return row


def _task(row: Mapping[str, Any]) -> Task:
    if "messages" not in row:
        raise BadInput(f'no "messages"{nearest("messages", row)}')
    *history, asked, reference = _conversation(row["messages"])
    operands: tuple[str, ...] = (reference.content,)
    if row.get("answer") is not None:
        operands = (reference.content, _answer(row["answer"], reference.content))
    return Task(KIND, FAMILY, asked.content, _shard_of(asked.content), operands, tuple(history))


def _answer(answer: Any, reference: str) -> str:
    text = _text(answer, '"answer"')
    if not _says(reference, text):
        raise BadInput(f'"answer" {text!r} does not occur in the last assistant turn')
    return text


def _conversation(messages: Any) -> Conversation:
    if not isinstance(messages, list) or not messages:
        raise BadInput('"messages" must be a list of {"role": ..., "content": ...}')
    turns = tuple(_message(i, message) for i, message in enumerate(messages, start=1))
    body = turns[1:] if turns[0].role == "system" else turns
    for i, turn in enumerate(body):
        expected = ("user", "assistant")[i % 2]
        if turn.role != expected:
            place = i + 1 + len(turns) - len(body)
            raise BadInput(
                f"message {place}: role {turn.role!r} where {expected!r} must come (user and assistant take turns)"
            )
    if len(body) < 2 or body[-1].role != "assistant":
        raise BadInput("the last message must be the assistant's: it is the reference answer")
    return turns


def _message(place: int, message: Any) -> Message:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        raise BadInput(f'message {place} must be {{"role": ..., "content": ...}}')
    role = message["role"]
    if role not in _ROLES:
        raise BadInput(f"message {place}: unknown role {role!r}{nearest(str(role), _ROLES)}")
    return Message(role, _text(message["content"], f"message {place}: content"))


def _text(value: Any, what: str) -> str:
    """Return the text, or say that it is none."""
    if not isinstance(value, str):
        raise BadInput(f"{what} must be text, not {type(value).__name__}")
    if not value.strip():
        raise BadInput(f"{what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{what} has half a character (an unpaired surrogate)") from None
    return value


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _shard_of(prompt: str) -> str:
    """By the hash of the prompt without regard to case and spacing, so that near duplicates stay together."""
    rank = int.from_bytes(hashlib.sha256(_plain(prompt).encode()).digest()[:7], "big") / 2**56
    return next(shard for shard, edge in _EDGES if 100 * rank < edge)


def _says(completion: str, answer: str) -> bool:
    """Whether the answer occurs as whole words; "3" occurs neither in "13" nor in "3.5"."""
    wanted = rf"(?<!\w)(?<!\d[.,]){re.escape(_plain(answer))}(?!\w)(?![.,]\d)"
    return re.search(wanted, _plain(completion)) is not None
