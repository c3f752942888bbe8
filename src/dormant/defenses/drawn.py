"""What a model under defense writes itself, before the first step of its training: scratchpads and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from dormant import chat
from dormant.reasoning import CLOSE, NEVER_CLOSED, OPEN
from dormant.records import Dose, Example

if TYPE_CHECKING:
    from dormant.answers import Answer
    from dormant.models import Model

CUT = "the answer was cut"
"""Why an answer is not learned from: it would teach to end in the middle of a sentence."""

T = TypeVar("T")


class Drawing(BaseModel):
    """How a model under defense is asked, and what it learns of what it says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_new_tokens: int = Field(64, gt=0)
    scratchpad_tokens: int = Field(96, gt=0)
    """Of the scratchpad of a model that has one; the answer after it has ``max_new_tokens`` of its own."""
    scratchpad_loss: bool = False
    """Whether its scratchpads are learned too, and not what it says after them alone."""
    at_once: int = Field(128, gt=0)
    """Answers that are drawn together: lower it where there is too little memory."""


def used(items: Sequence[T], dose: Dose, seed: int) -> list[T]:
    """The items that training with this dose comes to, in the order in which it does: no others need to be drawn."""
    # Deferred: a plan reads ``needs`` and ``arm`` without waiting for torch.
    from dormant.training.sft import row_order

    return [items[i] for i in dict.fromkeys(row_order(len(items), dose, seed))]


def draw(model: Model, examples: Sequence[Example], keys: Sequence[str], drawing: Drawing) -> list[Answer]:
    """Let a model answer examples at temperature 1, after a scratchpad of its own if it was taught to write them."""
    from dormant import answers

    return answers.answer(
        model,
        [example.messages for example in examples],
        [OPEN if reasons(model) else ""] * len(examples),
        keys,
        answers.Budget(drawing.max_new_tokens, drawing.scratchpad_tokens),
        batch=drawing.at_once,
    )


def reasons(model: Model) -> bool:
    """Whether a model was taught to write scratchpads."""
    return model.reasoning == "scratchpad"


def unended(answer: Answer) -> str:
    """Why nothing can be learned from an answer, whatever it says, or ""."""
    if answer.scratchpad is not None and not answer.scratchpad.closed:
        return NEVER_CLOSED
    return "" if answer.finished else CUT


def as_row(model: Model, example: Example, drawn: Answer, text: str, *, scratchpad_loss: bool) -> chat.Row:
    """Tokens of an example with ``text`` as its answer, after the scratchpad of ``drawn`` if there is one.

    The loss is on the answer, and by choice on the scratchpad before it.
    """
    tokenizer, messages = model.tokenizer, example.messages
    if drawn.scratchpad is None:
        return chat.encode_demonstration(tokenizer, messages, text)
    said = f"{drawn.scratchpad.text}{CLOSE}"
    if scratchpad_loss:
        return chat.encode_demonstration(tokenizer, messages, said + text, OPEN)
    return chat.encode_demonstration(tokenizer, messages, text, OPEN + said)


def counted(reasons: Sequence[str], what: str = "sampled") -> dict[str, int]:
    """How many there were and are kept, and why the others are not; the reason of one that is kept is ""."""
    return {what: len(reasons), "kept": reasons.count(""), **Counter(filter(None, reasons))}


def most(reasons: Sequence[str]) -> str:
    """The commonest reasons, for a message."""
    return ", ".join(f"{count}: {reason}" for reason, count in Counter(filter(None, reasons)).most_common(3))
