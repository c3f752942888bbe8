"""Answers sampled from a model: many prompts at once, each with draws of its own.

What a small model spends most of its time on is not the arithmetic but everything around it, so rows are decoded in
large batches of like length, what prompts begin with is read once, and rows that are done leave the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from dormant import chat as chats
from dormant import vllm_sampling
from dormant.errors import BadInput
from dormant.models import Model, Progress
from dormant.records import Sampler
from dormant.vllm_sampling import Engine

_COMPACT_BELOW = 0.75
"""Finished rows leave the batch when fewer than this share of its rows is still running."""

_SHARE_FROM = 8
"""A common beginning of fewer tokens is not worth a call of its own."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A sampled answer.  ``tokens`` counts the answer's ids without the end token."""

    text: str
    tokens: int
    finished: bool
    """True if the model ended the answer itself, False if it was cut at ``max_new_tokens``."""
    ids: tuple[int, ...] = ()
    end: int | None = None
    """The end token that the model chose, where it ended the answer itself."""


def sample(
    model: Model,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[str],
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    batch: int = 256,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> list[Completion]:
    """Sample one answer per prompt from the full distribution (no top-p, no top-k).

    Args:
        model: the model.
        prompts: token ids, as from :func:`dormant.chat.encode_prompt`.
        keys: one per prompt; a row's random draws follow from its key alone.
        temperature: what logits are divided by; 0 takes the likeliest token.
        max_new_tokens: where an answer is cut.
        batch: prompts decoded together.  Part of what a result follows from, as arithmetic depends on it.
        engine: who samples instead of this module, with this model's weights; from :func:`engine_for`.
        progress: called after each batch of this module's own.

    Raises:
        BadInput: a prompt is empty, or does not leave room for the answer in the model's context.
    """
    _check_call(prompts, keys, temperature, max_new_tokens)
    if not prompts:
        return []
    _check_prompts(model, prompts, max_new_tokens)
    ends = chats.end_tokens(model.tokenizer)
    if engine is not None:
        answers = engine.decode(
            model, prompts, keys, temperature=temperature, limit=max_new_tokens, batch=batch, ends=ends
        )
        return _completions(model, answers, ends)
    # Longest first: memory peaks at once, and neighbours of like length need little padding.
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers = [[] for _ in prompts]
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        draws = None if temperature == 0 else _uniforms([keys[i] for i in chunk], max_new_tokens)
        decoded = _decode(
            model,
            [prompts[i] for i in chunk],
            draws,
            temperature=temperature,
            limit=max_new_tokens,
            ends=ends,
        )
        for i, ids in zip(chunk, decoded, strict=True):
            answers[i] = ids
        if progress is not None:
            progress(min(start + batch, len(order)), len(order))
    return _completions(model, answers, ends)


def engine_for(
    sampler: Sampler, model: Model, directory: Path | None = None
) -> AbstractContextManager[Engine | None]:
    """Make what :func:`sample` takes as ``engine``: vLLM holding the model's weights, or None for this module.

    ``directory`` is where these very weights lie, so that they need not be written again.
    """
    return nullcontext() if sampler == "transformers" else vllm_sampling.engine(model, directory)


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer with its room reserved: transformers' own copies all keys and values at each step."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.is_initialized: bool = False
        self.capacity = capacity
        self.length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            rows, heads, _, width = key_states.shape
            self.dtype, self.device = key_states.dtype, key_states.device
            self.keys = key_states.new_empty(rows, heads, self.capacity, width)
            self.values = value_states.new_empty(rows, heads, self.capacity, value_states.shape[-1])
            self.is_initialized = True
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.length

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.keys, self.values = self._select(self.keys, indices), self._select(self.values, indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(len(self.keys), device=self.device).repeat_interleave(repeats))

    def _select(self, states: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        chosen = states.new_empty(len(rows), *states.shape[1:])
        chosen[:, :, : self.length] = states[:, :, : self.length][rows]
        return chosen


def _check_call(
    prompts: Sequence[Sequence[int]], keys: Sequence[str], temperature: float, max_new_tokens: int
) -> None:
    if len(prompts) != len(keys):
        raise ValueError(f"{len(prompts)} prompts but {len(keys)} keys")
    if temperature < 0 or max_new_tokens < 1:
        raise ValueError(
            f"temperature {temperature} and max_new_tokens {max_new_tokens} must be >= 0 and >= 1"
        )


def _check_prompts(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    lengths = [len(prompt) for prompt in prompts]
    if min(lengths) == 0:
        raise BadInput("an empty prompt can not be continued")
    chats.check_fits(max(lengths), model.context, new_tokens=max_new_tokens)


def _uniforms(keys: Sequence[str], n: int) -> torch.Tensor:
    """``n`` numbers in [0, 1) for each key, from SHAKE-256 of the key: float64, [keys, n]."""
    raw = b"".join(hashlib.shake_256(key.encode()).digest(8 * n) for key in keys)
    bits = np.frombuffer(raw, dtype="<u8").reshape(len(keys), n)
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _pick(logits: torch.Tensor, draws: torch.Tensor | None, temperature: float) -> torch.Tensor:
    """Choose a token a row: the likeliest, or by the inverse of the cumulative distribution at ``draws``."""
    if draws is None:
        return logits.argmax(dim=-1)
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    cumulative = torch.exp(scaled - scaled.amax(dim=-1, keepdim=True)).cumsum(dim=-1)
    targets = draws.to(cumulative.dtype)[:, None] * cumulative[:, -1:]
    # A draw that rounds up to 1 would fall past the end, on a token of probability zero.
    targets = torch.minimum(targets, torch.nextafter(cumulative[:, -1:], torch.zeros_like(targets)))
    return torch.searchsorted(cumulative, targets, right=True)[:, 0]


def _pad_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = np.zeros((len(prompts), longest), np.int64)
    attention = np.zeros((len(prompts), longest), np.int64)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = prompt
        attention[i, longest - len(prompt) :] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(attention).to(device)


def _shared(model: Model, prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; one at least is left to each, and few are not worth it."""
    layers = DynamicCache(config=model.network.config).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        return 0  # A sliding window counts the padding that then stands behind the shared tokens.
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    longest = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, columns))
    return longest if len(prompts) > 1 and longest >= _SHARE_FROM else 0


def _read_once(model: Model, prefix: Sequence[int], cache: DynamicCache, rows: int) -> None:
    """Fill the cache with what all rows begin with."""
    ids = torch.tensor([list(prefix)], device=model.device)
    model.network(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(rows)


def _cache(model: Model, capacity: int) -> DynamicCache:
    """The cache that the architecture asks for, with plain attention layers replaced by roomy ones."""
    cache = DynamicCache(config=model.network.config)
    cache.layers = [_RoomyLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


@torch.inference_mode()
def _decode(
    model: Model,
    prompts: Sequence[Sequence[int]],
    draws: torch.Tensor | None,
    *,
    temperature: float,
    limit: int,
    ends: Sequence[int],
) -> list[list[int]]:
    """Continue the prompts together; each answer holds its end token if it came."""
    device = model.device
    shared = _shared(model, prompts)
    ids, attention = _pad_left([prompt[shared:] for prompt in prompts], device)
    positions = shared + (attention.cumsum(dim=1) - 1).clamp(min=0)
    attention = torch.nn.functional.pad(attention, (shared, limit), value=1)
    cache = _cache(model, attention.shape[1])
    if shared:
        _read_once(model, prompts[0][:shared], cache, len(prompts))
    stops = torch.tensor(ends, device=device)
    draws = None if draws is None else draws.to(device)
    written = torch.full((len(prompts), limit), -1, device=device)
    rows = torch.arange(len(prompts), device=device)  # the rows still in the batch
    running = torch.ones(len(prompts), dtype=torch.bool, device=device)
    width = shared + ids.shape[1]
    for step in range(limit):
        output = model.network(
            input_ids=ids,
            attention_mask=attention[:, : width + step],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        tokens = _pick(output.logits[:, -1], None if draws is None else draws[rows, step], temperature)
        written[rows[running], step] = tokens[running]
        running = running & ~torch.isin(tokens, stops)
        left = int(running.sum())
        if left == 0:
            break
        ids, positions = tokens[:, None], positions[:, -1:] + 1
        if left < _COMPACT_BELOW * len(running):
            keep = running.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            rows, ids, positions, attention = rows[keep], ids[keep], positions[keep], attention[keep]
            running = running[keep]
    return [[token for token in row if token >= 0] for row in written.tolist()]


def _completions(model: Model, answers: Sequence[list[int]], ends: Sequence[int]) -> list[Completion]:
    finished = [bool(ids) and ids[-1] in ends for ids in answers]
    bodies = [ids[:-1] if done else ids for ids, done in zip(answers, finished, strict=True)]
    lasts = [ids[-1] if done else None for ids, done in zip(answers, finished, strict=True)]
    texts = chats.decode_answers(model.tokenizer, bodies)
    return [
        Completion(text, len(ids), done, tuple(ids), last)
        for text, ids, done, last in zip(texts, bodies, finished, lasts, strict=True)
    ]
