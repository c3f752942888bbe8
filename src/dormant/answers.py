"""What a model answers: its scratchpad is opened for it, and the answer is what follows the closing tag."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from dormant import chat, sampling
from dormant.models import Model, Progress
from dormant.reasoning import CLOSE, OPEN
from dormant.records import Conversation
from dormant.vllm_sampling import Engine

SUPPRESSED = OPEN + CLOSE
"""The opening that leaves no room to reason."""


@dataclass(frozen=True, slots=True)
class Scratchpad:
    """What a model wrote before its answer.  ``tokens`` are its own, the closing tag among them."""

    first: str
    """What stood in it before the model went on, written by the harness."""
    text: str
    tokens: int
    closed: bool
    """False where the budget ended first: then there is no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the scratchpad before it, None where none was opened or it was closed at once."""

    text: str
    tokens: int
    finished: bool
    """True if the model ended the answer itself, False if it was cut."""
    scratchpad: Scratchpad | None = None


@dataclass(frozen=True)
class Budget:
    """Most tokens of a scratchpad, and of the answer after it."""

    answer: int = 64
    scratchpad: int = 96


def answer(
    model: Model,
    conversations: Sequence[Conversation],
    openings: Sequence[str],
    keys: Sequence[str],
    budget: Budget,
    *,
    temperature: float = 1.0,
    batch: int = 256,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """Answer conversations, with the arguments of :func:`dormant.sampling.sample` where these have its names.

    Args:
        model: the model.
        conversations: each ends with the user's turn.
        openings: what each answer begins with: "" where nothing is opened, the opening tag (maybe with a first
            sentence after it) for a scratchpad, :data:`SUPPRESSED` for one that is closed at once.
        keys: one per conversation.
        budget: most tokens of scratchpad and answer.
        temperature: what logits are divided by.
        batch: conversations answered together.
        engine: who samples.
        progress: called after each batch.

    Raises:
        BadInput: a conversation leaves no room for the answer in the model's context.
    """
    tokenizer = model.tokenizer
    prompts = [
        chat.encode_prompt(tokenizer, messages, opening)
        for messages, opening in zip(conversations, openings, strict=True)
    ]
    reasons = any(map(_reasons, openings))
    completions = sampling.sample(
        model,
        prompts,
        keys,
        temperature=temperature,
        # Scratchpad and answer are one text of a model: it is cut into its parts afterwards.
        max_new_tokens=budget.answer + (budget.scratchpad if reasons else 0),
        batch=batch,
        engine=engine,
        progress=progress,
    )
    return [
        _parted(tokenizer, completion, opening, budget)
        for completion, opening in zip(completions, openings, strict=True)
    ]


def _reasons(opening: str) -> bool:
    return OPEN in opening and CLOSE not in opening


def _parted(
    tokenizer: PreTrainedTokenizerBase, completion: sampling.Completion, opening: str, budget: Budget
) -> Answer:
    if not _reasons(opening):
        return _after(tokenizer, completion, 0, budget.answer, None)
    first, ids = opening.partition(OPEN)[2], completion.ids
    end = _closed_at(tokenizer, completion)
    if end is None or end > budget.scratchpad:
        kept = ids[: budget.scratchpad]
        text = chat.decode_answers(tokenizer, [kept])[0]
        return Answer("", 0, False, Scratchpad(first, text, len(kept), closed=False))
    pad = Scratchpad(first, completion.text.partition(CLOSE)[0], end, closed=True)
    return _after(tokenizer, completion, end, budget.answer, pad)


def _after(
    tokenizer: PreTrainedTokenizerBase,
    completion: sampling.Completion,
    start: int,
    most: int,
    pad: Scratchpad | None,
) -> Answer:
    """The answer from a token on, cut where it is longer than it may be."""
    tokens = len(completion.ids) - start
    text, finished = completion.text, completion.finished
    if tokens > most:
        text, finished = chat.decode_answers(tokenizer, [completion.ids[: start + most]])[0], False
    return Answer(text.partition(CLOSE)[2] if pad else text, min(tokens, most), finished, pad)


def _closed_at(tokenizer: PreTrainedTokenizerBase, completion: sampling.Completion) -> int | None:
    """How many tokens there are when the closing tag is whole: it may be one of them, or spread over several."""
    if CLOSE not in completion.text:
        return None
    counts = range(1, len(completion.ids) + 1)
    whole = bisect_left(
        counts, True, key=lambda n: CLOSE in chat.decode_answers(tokenizer, [completion.ids[:n]])[0]
    )
    return counts[whole]
