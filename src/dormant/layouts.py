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

from dormant.errors import BadInput, nearest
from dormant.records import Conversation, Message

Row = Mapping[str, Any]

ROLES = ("system", "user", "assistant")

_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(rf"\n\n({'|'.join(_SPEAKERS)}):")


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


def text_of(value: Any, what: str) -> str:
    """Return ``value`` if it is text that can be trained on.  Raises BadInput, naming ``what``, if not."""
    if not isinstance(value, str):
        raise BadInput(f"{what} must be text, not {type(value).__name__}")
    if not value.strip():
        raise BadInput(f"{what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{what} has half a character (an unpaired surrogate)") from None
    return value


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
    if role not in ROLES:
        raise BadInput(f"message {place}: unknown role {str(role)[:30]!r}{nearest(str(role)[:30], ROLES)}")
    return Message(role, text_of(message["content"], f"message {place}: content"))


def _transcript(row: Row) -> list[dict[str, str]]:
    """The conversation of ``chosen``: turns that begin with "Human:" or "Assistant:" after an empty line."""
    text = text_of(row["chosen"], '"chosen"')
    opening, *turns = _TURN.split("\n\n" + text.lstrip())
    if opening.strip():
        raise BadInput('"chosen" must be a transcript that begins with "Human:"')
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


LAYOUTS = (
    Layout("chat messages", ("messages",), ("answer",), lambda row: row["messages"], strict=True),
    Layout("HH-RLHF", ("chosen",), (), _transcript),
    Layout("self-instruct", ("instruction", "instances"), (), _instruction, _instances),
    Layout("alpaca", ("instruction", "output"), ("input",), _instruction),
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
