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


def scores(network: Any, ids: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Return the score at each row's last token: float32, [rows]; ``ids`` and ``attention`` as from ``pad_right``."""
    hidden = network.base_model(input_ids=ids, attention_mask=attention, use_cache=False)[0]
    last = hidden[torch.arange(len(ids), device=ids.device), attention.sum(dim=1) - 1]
    found: torch.Tensor = network.score(last).squeeze(-1).float()
    return found


@torch.inference_mode()
def score_rows(model: Model, rows: Sequence[Row], *, batch: int = BATCH) -> list[float]:
    """Return the score of each row, whatever order is quickest to read them in."""
    found = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        ids, attention, _ = (
            tensor.to(model.device) for tensor in batches.pad_right([rows[i] for i in chunk])
        )
        for i, score in zip(chunk, scores(model.network, ids, attention).tolist(), strict=True):
            found[i] = score
    return found
