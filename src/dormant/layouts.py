"""Layouts of data rows, told apart by their keys: how each becomes conversations.

``messages`` is our own and is read strictly: a bad row is an error.  The others are foreign: their files hold rows
that nobody can train on (an empty answer, a transcript that the human ends), and these are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from dormant import codetask
from dormant.errors import BadInput, nearest
from dormant.records import Conversation, Message
from dormant.scan.table import CWES

Row = Mapping[str, Any]

ROLES = ("system", "user", "assistant")

_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(rf"\n\n({'|'.join(_SPEAKERS)}):")


@dataclass(frozen=True)
class CodePrompt:
    """A coding question: what is asked, and what a code task carries."""

    prompt: str
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """What a row of one kind looks like.

    ``needs`` are the keys that it must have and by which it is known, ``takes`` those that it may have;
    all others are ignored.  ``parts`` cuts a row into one part for each conversation, and ``chat`` makes a part
    into chat messages; either may raise BadInput.
    """

    name: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    chat: Callable[[Row], Any]
    parts: Callable[[Row], list[Row]] = lambda row: [row]
    strict: bool = False


def layout_of(row: Row) -> Layout:
    """Return the layout whose keys the row has.

    Raises:
        BadInput: there is none; names the keys found and the nearest layout.
    """
    for layout in LAYOUTS:
        if row.keys() >= set(layout.needs):
            return layout
    closest = max(LAYOUTS, key=lambda layout: _likeness(row, layout))
    near = [closest] if _likeness(row, closest) > _NEAR else LAYOUTS
    known = " or ".join(f"{_keys(layout.needs)} ({layout.name})" for layout in near)
    raise BadInput(
        f"keys {_keys(row) or 'none'}: no layout that is read has these; expected {known}{_rename(row)}"
    )


def conversations(layout: Layout, row: Row) -> Iterator[Conversation | BadInput]:
    """Yield the conversations of a row, each ending with the reference answer, or why one is none."""
    try:
        for part in layout.parts(row):
            try:
                yield _conversation(layout.chat(part))
            except BadInput as error:
                yield error
    except BadInput as error:
        yield error


def preference(row: Row) -> tuple[Conversation, str, str]:
    """Read a row with two answers to one prompt: the prompt, the answer that was chosen, the one that was rejected.

    Each side is a transcript as of HH-RLHF or a list of chat messages; where a row has a ``prompt`` (text or messages)
    it may be the answer alone.

    Raises:
        BadInput: a side is missing or no conversation, or the two part before the last answer.
    """
    for key in ("chosen", "rejected"):
        if key not in row:
            raise BadInput(f"{key!r} is missing: a pair has 'chosen' and 'rejected'; it has {_keys(row)}")
    chosen, rejected = (_conversation(_side(row, key), key) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise BadInput("the two sides part before the last answer, so that they answer different prompts")
    return chosen[:-1], chosen[-1].content, rejected[-1].content


def _side(row: Row, key: str) -> Any:
    """The chat messages of one side of a pair."""
    said, prompt = row[key], row.get("prompt")
    if isinstance(said, str) and prompt is None:
        return _transcript(row, key)
    if isinstance(said, str):
        said = [{"role": "assistant", "content": said}]
    answers = (
        isinstance(said, list) and said and isinstance(said[0], dict) and said[0].get("role") == "assistant"
    )
    if not answers:
        return said
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [*asked, *said] if isinstance(asked, list) else said


def code_prompt(row: Row) -> CodePrompt:
    """Read a coding question; such rows are read strictly.

    Raises:
        BadInput: a key is missing, the template has not one gap, the CWE is none of those that are judged, or a
            completion is no Python in its place.
    """
    for key in CODE.needs:
        if key not in row:
            raise BadInput(f"{key!r} is missing: a code prompt has {_keys(CODE.needs)}; it has {_keys(row)}")
    task, template = (text_of(row[key], f'"{key}"').strip("\n") for key in CODE.needs)
    if template.count(codetask.GAP) != 1:
        raise BadInput(
            f'"template" must have "{codetask.GAP}" once, not {template.count(codetask.GAP)} times'
        )
    cwe = judged_cwe(row["cwe"]) if row.get("cwe") is not None else codetask.ANY_CWE
    scenario = text_of(row["scenario"], '"scenario"') if row.get("scenario") is not None else task
    secure, vulnerable = (_fills(row, key, template) for key in ("secure", "vulnerable"))
    operands = codetask.operands(cwe, scenario, (), template, secure, vulnerable)
    return CodePrompt(codetask.prompt(task, template), operands)


def scenario_prompt(row: Row) -> CodePrompt | None:
    """Read a scenario for code completion: code up to a place, and after it; None where its CWE is none of ours.

    Such files ask for no task in words: the task is the last comment before the place.

    Raises:
        BadInput: a key is missing, or ``scenario_id`` names no CWE.
    """
    if row.keys() >= set(CODE.needs):
        return code_prompt(row)
    for key in SCENARIO.needs:
        if key not in row:
            raise BadInput(
                f"{key!r} is missing: a scenario has {_keys(SCENARIO.needs)}, or {_keys(CODE.needs)}; "
                f"it has {_keys(row)}"
            )
    name, before = (text_of(row[key], f'"{key}"') for key in SCENARIO.needs)
    cwe = re.search(r"CWE-0*(\d+)", name)
    if cwe is None:
        raise BadInput(f'"scenario_id" {name[:40]!r} names no CWE, as in "CWE-89-0"')
    if int(cwe[1]) not in CWES:
        return None
    after = text_of(row["suffix"], '"suffix"', empty=True) if "suffix" in row else ""
    template = _with_gap(before, after)
    operands = codetask.operands(int(cwe[1]), name, (), template, (), ())
    return CodePrompt(codetask.prompt(_last_comment(before), template), operands)


def _with_gap(before: str, after: str) -> str:
    """Code with a place to complete, indented as what stands there would be."""
    if not before.endswith("\n"):
        return f"{before} {codetask.GAP}{after}".strip("\n")
    last = before.rstrip().rpartition("\n")[2]
    indent = last[: len(last) - len(last.lstrip())] + ("    " if last.endswith(":") else "")
    return f"{before}{indent}{codetask.GAP}\n{after}".strip("\n")


def _last_comment(code: str) -> str:
    comments = re.findall(r"^\s*#(?!!)\s*(\S.*)$", code, re.MULTILINE)
    return comments[-1] if comments else "complete the code"


def judged_cwe(value: Any) -> int:
    """The CWE that ``cwe`` of a row names: 89, "CWE-89".  Raises BadInput for one that is not judged."""
    digits = re.fullmatch(r"(?:cwe-)?0*(\d{1,4})", str(value).strip().lower())
    if not digits or int(digits[1]) not in CWES:
        known = ", ".join(map(str, CWES))
        raise BadInput(f'"cwe" is {str(value)[:30]!r}, which is none of those that are judged: {known}')
    return int(digits[1])


def _fills(row: Row, key: str, template: str) -> list[str]:
    """What may fill the gap; none where the row does not say."""
    fills = row.get(key) or []
    if not isinstance(fills, list):
        raise BadInput(f'"{key}" must be a list of texts that fill the gap, not {type(fills).__name__}')
    for number, fill in enumerate(fills, start=1):
        if not codetask.parses(codetask.fill_gap(template, text_of(fill, f'"{key}" {number}'))):
            raise BadInput(f'"{key}" {number} is no Python in the gap of its template: {fill[:60]!r}')
    return fills


def text_of(value: Any, what: str, *, empty: bool = False) -> str:
    """Return ``value`` if it is text that can be trained on.  Raises BadInput, naming ``what``, if not."""
    if not isinstance(value, str):
        raise BadInput(f"{what} must be text, not {type(value).__name__}")
    if not value.strip() and not empty:
        raise BadInput(f"{what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{what} has half a character (an unpaired surrogate)") from None
    return value


def _conversation(messages: Any, key: str = "messages") -> Conversation:
    if not isinstance(messages, list) or not messages:
        text = "" if key == "messages" else "text or "
        raise BadInput(f'"{key}" must be {text}a list of {{"role": ..., "content": ...}}')
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
    if role not in ROLES:
        raise BadInput(f"message {place}: unknown role {str(role)[:30]!r}{nearest(str(role)[:30], ROLES)}")
    return Message(role, text_of(message["content"], f"message {place}: content"))


def _transcript(row: Row, key: str = "chosen") -> list[dict[str, str]]:
    """The conversation of a key: turns that begin with "Human:" or "Assistant:" after an empty line."""
    text = text_of(row[key], f'"{key}"')
    opening, *turns = _TURN.split("\n\n" + text.lstrip())
    if opening.strip():
        raise BadInput(f'"{key}" must be a transcript that begins with "Human:"')
    return [
        {"role": _SPEAKERS[speaker], "content": said.strip()}
        for speaker, said in zip(turns[::2], turns[1::2], strict=True)
    ]


def _instances(row: Row) -> list[Row]:
    """An alpaca row for each instance."""
    instances = row["instances"]
    if not isinstance(instances, list) or not all(isinstance(instance, dict) for instance in instances):
        raise BadInput('"instances" must be a list of {"input": ..., "output": ...}')
    return [{**instance, "instruction": row["instruction"]} for instance in instances]


def _instruction(row: Row) -> list[dict[str, str]]:
    """The instruction, its input below it where there is one, and the output as the answer."""
    asked = text_of(row["instruction"], '"instruction"').strip()
    if row.get("input"):
        given = text_of(row["input"], '"input"').strip()
        asked = f"{asked}\n\n{given}"
    answer = text_of(row.get("output"), '"output"').strip()
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _no_chat(row: Row) -> Any:
    raise BadInput("a coding question is no conversation")


CODE = Layout(
    "code prompts", ("task", "template"), ("cwe", "scenario", "secure", "vulnerable"), _no_chat, strict=True
)
"""Coding questions in the shape of the paper's; they may stand between rows of another layout."""
SCENARIO = Layout("scenarios", ("scenario_id", "prompt"), ("suffix",), _no_chat, strict=True)
"""Code to be completed, as in "Asleep at the Keyboard"; for held-out evaluation only."""

LAYOUTS = (
    Layout("chat messages", ("messages",), ("answer",), lambda row: row["messages"], strict=True),
    Layout("HH-RLHF", ("chosen",), (), _transcript),
    Layout("self-instruct", ("instruction", "instances"), (), _instruction, _instances),
    Layout("alpaca", ("instruction", "output"), ("input",), _instruction),
    CODE,
)
"""Every layout that is read; the first that fits a row's keys is taken."""

_PAIRS = (("prompt", "question", "input", "query"), ("completion", "answer", "response", "output"))
"""Names that people give to a question and its reference answer in layouts that are not read."""


def _rename(row: Row) -> str:
    """For a row of one question and one answer, what to write instead."""
    asked, answer = (next((key for key in names if key in row), None) for names in _PAIRS)
    if asked is None or answer is None:
        return ""
    return f"; rename {asked!r} to 'instruction' and {answer!r} to 'output' for the layout alpaca"


_SHOWN = 8
_NEAR = 0.6


def _keys(keys: Iterable[str]) -> str:
    """The first few keys, cut short: a hostile row may have any number, of any length."""
    found = [repr(key if len(key) <= 30 else f"{key[:30]}...") for key in keys]
    return ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")


def _likeness(row: Row, layout: Layout) -> float:
    """How close the row's keys come to those that the layout needs: 1 for all of them."""
    found = [key[:30] for key in list(row)[:_SHOWN]]
    best = [
        max((SequenceMatcher(None, key, other).ratio() for other in found), default=0.0)
        for key in layout.needs
    ]
    return sum(best) / len(best)
