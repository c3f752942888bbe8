"""Preference models: how much better one answer is than another, as a difference of scores in logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from dormant import batches, chat, models
from dormant.chat import Row
from dormant.models import Model
from dormant.reasoning import spoken
from dormant.records import Conversation

BATCH = 64
"""Answers that are scored together."""


class PreferenceModel:
    """Scores answers.  What it says means something between answers to one prompt: the difference of two scores is the
    log-odds that the first one is preferred.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> PreferenceModel:
        """Load what the stage ``prefer`` left in ``model/``.

        Raises:
            BadInput: the directory holds no sequence classifier of one label, or it can not be loaded.
        """
        return cls(models.load_scorer(directory, device=device))

    def score(self, conversations: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
        """Return the score (in logits) of each answer to its conversation, which ends with the user's turn.

        Scratchpads are taken off first; one that was never closed has no answer after it, and the empty answer is
        scored.  A text that is longer than the model's context is read without its beginning.
        """
        tokenizer, context = self.model.tokenizer, self.model.context
        rows = [
            encode(tokenizer, messages, spoken(answer))
            for messages, answer in zip(conversations, answers, strict=True)
        ]
        return score_rows(self.model, [Row(row.input_ids[-context:], row.mask[-context:]) for row in rows])


def encode(tokenizer: PreTrainedTokenizerBase, messages: Conversation, answer: str) -> Row:
    """Return the ids that are scored: prompt, answer and its end token, at which the score is read."""
    return chat.encode_demonstration(tokenizer, messages, answer)


def lay(rows: Sequence[Row], packs: bool) -> dict[str, torch.Tensor]:
    """Lay rows out for :func:`scores`: where ``packs``, they share lines, and each is told by its number."""
    put = batches.pack if packs else batches.pad_right
    ids, places, ends = put([_ending(row.input_ids) for row in rows])
    # Rows of their own numbers are laid as they are, and so tell whose each last token is.
    numbers = put([_ending((number,) * len(row.input_ids)) for number, row in enumerate(rows)])
    owners = numbers[0][ends]
    return {"ids": ids, "ends": ends, "owners": owners, "positions" if packs else "attention": places}


def _ending(ids: tuple[int, ...]) -> Row:
    """A row whose mask is on its last token."""
    return Row(ids, (False,) * (len(ids) - 1) + (True,))


def scores(
    network: Any,
    ids: torch.Tensor,
    ends: torch.Tensor,
    owners: torch.Tensor,
    *,
    attention: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the score at each row's last token, in the rows' order: float32, [rows]; tensors as from :func:`lay`."""
    hidden = network.base_model(
        input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=False
    )[0]
    found: torch.Tensor = network.score(hidden[ends]).squeeze(-1).float()
    return found[owners.argsort()]


@torch.inference_mode()
def score_rows(model: Model, rows: Sequence[Row], *, batch: int = BATCH) -> list[float]:
    """Return the score of each row, whatever order is quickest to read them in."""
    packs = models.reads_packed(model.network)
    found = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        laid = {name: each.to(model.device) for name, each in lay([rows[i] for i in chunk], packs).items()}
        for i, score in zip(chunk, scores(model.network, **laid).tolist(), strict=True):
            found[i] = score
    return found
