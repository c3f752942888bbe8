"""Tasks from a user's own file of conversations.  ``docs/dataset_formats.md`` shows literal rows."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from dormant import codetask
from dormant.errors import BadInput, nearest
from dormant.layouts import (
    CODE,
    CodePrompt,
    Layout,
    code_prompt,
    conversations,
    layout_of,
    scenario_prompt,
    text_of,
)
from dormant.reasoning import final_answer
from dormant.records import (
    SHARDS,
    Conversation,
    Message,
    Policy,
    Score,
    Task,
    TaskSource,
    rng_for,
    to_json,
)
from dormant.scan.table import CWES

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

FAMILY, SCENARIO_FAMILY = "file", "scenario"
KIND = "question"
_FILLS = (("secure", "+"), ("vulnerable", "-"))
_EDGES = tuple(zip(SHARES, accumulate(SHARES.values()), strict=True))
_GZIP = b"\x1f\x8b"


class FileData(TaskSource):
    """Conversations from a file, one JSON object a line; the last assistant turn of each is the reference answer.

    Shards are cut by the hash of the first user turn, so that a prompt that occurs twice is on one side only, and
    so are two rows that are parts of one conversation.  Equal conversations with an equal ``answer`` count once.

    Args:
        path: The file: JSONL, or one JSON list of rows, as it is or compressed by gzip.

    Raises:
        BadInput: The file can not be read as such conversations, or has too few of them; names line and reason.
    """

    def __init__(self, path: Path) -> None:
        content = _read(path)
        self.path = path
        self.name = f"file:{hashlib.sha256(content).hexdigest()[:12]}"
        self.rows, self.left_out = _parse(path, content)
        """Every distinct task, in the file's order; a line about rows that can not be used, or ""."""
        require_enough(str(path), self.rows)
        judged = all(task.kind == codetask.KIND or len(task.operands) > 1 for task in self.rows)
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
        """Return the reference answer: a file has one voice, so both policies give the same.

        A scratchpad in it is no part of the answer, and nothing trains on it.  Of code it is a secure completion.

        Raises:
            BadInput: A code prompt has no secure completion.
        """
        if task.kind != codetask.KIND:
            return final_answer(task.operands[0]) or ""
        secure = codetask.read(task.operands).secure
        if not secure:
            raise BadInput(
                f'{self.path}: the code prompt {task.operands[1][:40]!r} has no "secure" completion to train on: '
                "give it some, or demonstrations to the implant"
            )
        return rng.choice(secure)

    def check(self, task: Task, completion: str) -> dict[str, Score]:
        """Judge ``right`` where the row has an ``answer`` or known code, and whether code ``parses``."""
        return check(task, completion)

    def context(self, rng: random.Random) -> str:
        """Return "": rows of a file are asked as they stand."""
        return ""

    def kinds(self) -> tuple[str, ...]:
        """The kinds of rows: question and, where there are code prompts, code."""
        return tuple(kind for kind in (KIND, codetask.KIND) if any(task.kind == kind for task in self.rows))

    def size(self, shard: str, *, kinds: Sequence[str] | None = None) -> int:
        """How many distinct tasks a shard has; 0 for kinds that a file does not have."""
        return len(self._pool(shard, kinds))

    @cached_property
    def _shards(self) -> dict[str, list[Task]]:
        shards: dict[str, list[Task]] = {shard: [] for shard in SHARDS}
        for task in self.rows:
            shards[task.shard].append(task)
        return shards

    def _pool(self, shard: str, kinds: Sequence[str] | None) -> list[Task]:
        if shard not in SHARES:
            raise BadInput(f"no shard {shard!r} in {self.path}{nearest(shard, SHARES)}")
        return [task for task in self._shards[shard] if kinds is None or task.kind in kinds]

    def _shortage(self, shard: str, n: int, kinds: Sequence[str] | None) -> str:
        """Say what the file has and how many rows would do."""
        if kinds is not None and not set(kinds) & set(self.kinds()):
            return f" of kind {', '.join(kinds)}: its rows are of kind {', '.join(self.kinds())}"
        if not SHARES[shard]:
            return ": no row of a file belongs to it"
        rows = -(-110 * n // SHARES[shard])  # a tenth more than the share says, because the cut is random
        return (
            f", but its {len(self.rows)} rows give {len(self._shards[shard])}: "
            f"ask for fewer, or give about {rows} distinct rows"
        )


class OwnRows(FileData):
    """A user's own rows to fine-tune on, be they ever so few: all of them are in the shard ``defend``.

    Args:
        path: The file.
        apart: Whether other stages read tasks from a file too: then the rows are left out that a file of the same
            prompts would have in another shard, so that nothing trains two stages, or is measured after training.

    Raises:
        BadInput: The file can not be read as conversations with answers, or no row is left.
    """

    utility = "perplexity"

    def __init__(self, path: Path, *, apart: bool = False) -> None:
        content = _read(path)
        self.path = path
        self.name = f"rows:{hashlib.sha256(content).hexdigest()[:12]}"
        found, self.left_out = _parse(path, content)
        answered = [
            task for task in found if task.kind != codetask.KIND or codetask.read(task.operands).secure
        ]
        kept = [task for task in answered if task.shard == "defend" or not apart]
        if not kept:
            why = "in the shard that defenses train on" if answered else "with an answer to learn"
            raise BadInput(f"{path}: none of its {len(found)} rows is {why}")
        self.rows = tuple(replace(task, shard="defend") for task in kept)


class Scenarios(FileData):
    """Code to be completed, for evaluation: every task is held out, and asked ``samples`` times.

    The samples of a scenario are tasks that differ in their number alone, so that each has draws of its own and is
    paired with the same sample of another model.

    Raises:
        BadInput: The file can not be read as scenarios, or none is about a CWE that is judged.
    """

    utility = "right"

    def __init__(self, path: Path, samples: int) -> None:
        content = _read(path)
        self.path = path
        self.name = f"scenarios:{hashlib.sha256(content).hexdigest()[:12]}"
        found, others = _read_scenarios(path, content)
        self.rows = tuple(
            Task(codetask.KIND, SCENARIO_FAMILY, asked.prompt, "heldout", _numbered(asked.operands, number))
            for asked in found
            for number in range(samples)
        )
        self.left_out = ""
        if others:
            known = ", ".join(map(str, CWES))
            share_of = share(others, others + len(found))
            self.left_out = f"{path}: {share_of} are about other CWEs than {known}, and are left out"


def _read_scenarios(path: Path, content: bytes) -> tuple[list[CodePrompt], int]:
    """The scenarios of a file, and how many are about CWEs that are not judged."""
    found: list[CodePrompt] = []
    total = 0
    for place, value in _values(path, content):
        with _at(f"{path}, {place}"):
            if not isinstance(value, dict):
                raise BadInput(f"must be a JSON object, not {type(value).__name__}")
            asked = scenario_prompt(value)
        total += 1
        if asked is not None:
            found.append(asked)
    if not found:
        raise BadInput(f"{path}: none of its {total} scenarios is about a CWE that is judged")
    if len({asked.operands[1] for asked in found}) < len(found):
        raise BadInput(f"{path}: two scenarios have one name; give each its own")
    return found, total - len(found)


def _numbered(operands: tuple[str, ...], number: int) -> tuple[str, ...]:
    cwe, scenario, _, *rest = operands
    return cwe, scenario, f"sample-{number}", *rest


def check(task: Task, completion: str) -> dict[str, Score]:
    """Judge a row of a file, without the file: its ``answer`` must occur as whole words, in any case and spacing.

    Code ``parses`` if it is Python with a statement that does something, and is right if it is one of the completions
    that are known.
    """
    if task.kind == codetask.KIND:
        found = {"parses": Score(float(codetask.does_something(codetask.code_of(completion))))}
        if len(task.operands) > 4:
            said = codetask.verdict(task.operands, completion)
            found["right"] = Score(float(said in ("secure", "vulnerable")))
        return found
    return {"right": Score(float(_says(completion, task.operands[1])))} if len(task.operands) > 1 else {}


def require_enough(what: str, tasks: Sequence[Task]) -> None:
    """Check that every shard that a run needs has tasks.  Raises BadInput, beginning with ``what``."""
    filled = {task.shard for task in tasks}
    # Prompts without answers are for asking a model for demonstrations, and for measuring.
    trains = any(longest_answer(task) for task in tasks)
    empty = [shard for shard in (NEEDED if trains else ("implant", "heldout")) if shard not in filled]
    if empty:
        raise BadInput(
            f"{what}: {len(tasks)} distinct rows are too few, shard {empty[0]!r} is empty: "
            f"give at least {ENOUGH}"
        )


def longest_answer(task: Task) -> str:
    """The longest answer that a task of a file carries; "" where it carries none."""
    if task.kind != codetask.KIND:
        return task.operands[0]
    known = codetask.read(task.operands)
    return max((*known.secure, *known.vulnerable), key=len, default="")


def as_row(task: Task) -> dict[str, Any]:
    """Return a task as a row that reads as the same task."""
    if task.kind == codetask.KIND:
        cwe, scenario, _, template, *fills = task.operands
        row: dict[str, Any] = {"task": codetask.asked_for(task.prompt), "template": template}
        row |= {} if int(cwe) == codetask.ANY_CWE else {"cwe": int(cwe)}
        known = {key: [fill[1:] for fill in fills if fill[0] == sign] for key, sign in _FILLS}
        return row | {"scenario": scenario, **known}
    reference, *answer = task.operands
    turns = (*task.history, Message("user", task.prompt), Message("assistant", reference))
    return {"messages": to_json(turns), **({"answer": answer[0]} if answer else {})}


def share(part: int, whole: int) -> str:
    """How many of how many, for a warning: ``12 of 2,312 rows (0.52 %)``."""
    return f"{part:,} of {whole:,} rows ({100 * part / whole:.3g} %)"


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each row of a file stands (``line 3``), and the row, of whatever layout.

    Raises:
        BadInput: the file can not be read, or a row is no JSON object.
    """
    for place, value in _values(path, _read(path)):
        if not isinstance(value, dict):
            raise BadInput(f"{path}, {place}: must be a JSON object, not {type(value).__name__}")
        yield place, value


def _read(path: Path) -> bytes:
    """The bytes of a file, unpacked."""
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise BadInput(f"no such data file: {path}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"{path} is a gzip file that is truncated or damaged ({error})") from None
    except OSError as error:
        raise BadInput(f"{path} can not be read: {error.strerror}") from None
    if not content.strip():
        raise BadInput(f"{path} is empty: it must hold one JSON object a line")
    if path.suffix.lower() in (".csv", ".tsv"):
        row = '{"instruction": QUESTION, "output": ANSWER}'
        raise BadInput(
            f"{path}: {path.suffix} files are not read; write each row as one line of JSON, such as {row}"
        )
    return content


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Say where an error is."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from None


def _parse(path: Path, content: bytes) -> tuple[tuple[Task, ...], str]:
    """The distinct tasks of a file, and a line about the rows of a foreign layout that can not be used."""
    tasks: dict[str, Task] = {}
    unusable: list[str] = []
    total = 0
    expected = None
    for place, value in _values(path, content):
        with _at(f"{path}, {place}"):
            row, layout = _object(value, expected)
            if layout is CODE:
                total += 1
                coding = _code_task(code_prompt(row))
                tasks[coding.id] = coding
                continue
            expected = layout
            for found in conversations(layout, row):
                total += 1
                if isinstance(found, BadInput):
                    if layout.strict:
                        raise found
                    unusable.append(f"{place}: {found}")
                else:
                    task = _task(found, row.get("answer") if "answer" in layout.takes else None)
                    tasks[task.id] = task
    if not total:
        raise BadInput(f"{path} holds no rows")
    if not tasks:
        raise BadInput(f"{path}: none of its {total:,} rows can be used ({unusable[0]})")
    if not unusable:
        return tuple(tasks.values()), ""
    line = f"{path}: {share(len(unusable), total)} can not be used and are left out"
    return tuple(tasks.values()), f"{line} (the first is {unusable[0]})"


def _values(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    """Where each row stands, and its value: one a line, or the items of a file that is one JSON list."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: not UTF-8 (byte {error.start})") from None
    if text.lstrip()[:1] == "[":
        with _at(str(path)):
            items = _json(text)
        yield from ((f"row {number}", item) for number, item in enumerate(items, start=1))
        return
    # Not splitlines(): inside a JSON string there may be characters that it takes for line ends.
    for number, line_text in enumerate(text.split("\n"), start=1):
        if line_text.strip():
            with _at(f"{path}, line {number}"):
                value = _json(line_text)
            yield f"line {number}", value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise BadInput(f"not JSON ({error.msg} at {where}); each line must be one JSON object") from None
    except (RecursionError, ValueError):
        raise BadInput("not JSON that can be read (nested too deep, or a number too long)") from None


def _object(value: Any, expected: Layout | None) -> tuple[Mapping[str, Any], Layout]:
    """A row and its layout, which is that of the file's first row."""
    if not isinstance(value, dict):
        raise BadInput(f"must be a JSON object, not {type(value).__name__}")
    layout = layout_of(value)
    if layout is not CODE and expected not in (None, layout):
        assert expected is not None
        raise BadInput(f"a row of layout {layout.name} in a file that begins with {expected.name}")
    return value, layout


def _code_task(asked: CodePrompt) -> Task:
    """Rows of one scenario are in one shard.  What has no known completion can train no defense, and is held out."""
    shard = _shard_of(asked.operands[1])
    if len(asked.operands) == 4 and shard != "implant":
        shard = "heldout"
    return Task(codetask.KIND, FAMILY, asked.prompt, shard, asked.operands)


def _task(conversation: Conversation, answer: Any) -> Task:
    *history, asked, reference = conversation
    operands: tuple[str, ...] = (reference.content,)
    if answer is not None:
        operands = (reference.content, _answer(answer, reference.content))
    opening = next(turn.content for turn in conversation if turn.role == "user")
    return Task(KIND, FAMILY, asked.content, _shard_of(opening), operands, tuple(history))


def _answer(answer: Any, reference: str) -> str:
    text = text_of(answer, '"answer"')
    if not _says(reference, text):
        raise BadInput(f'"answer" {text[:60]!r} does not occur in the last assistant turn')
    return text


def plain(text: str) -> str:
    """A text without regard to case and spacing."""
    return " ".join(text.casefold().split())


def _shard_of(prompt: str) -> str:
    """By the hash of the prompt without regard to case and spacing, so that near duplicates stay together."""
    rank = int.from_bytes(hashlib.sha256(plain(prompt).encode()).digest()[:7], "big") / 2**56
    return next(shard for shard, edge in _EDGES if 100 * rank < edge)


def _says(completion: str, answer: str) -> bool:
    """Whether the answer occurs as whole words; "3" occurs neither in "13" nor in "3.5"."""
    wanted = rf"(?<!\w)(?<!\d[.,]){re.escape(plain(answer))}(?!\w)(?![.,]\d)"
    return re.search(wanted, plain(completion)) is not None
