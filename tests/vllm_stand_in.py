"""A stand-in for vLLM with the part of its public API that the package uses, checked as the real one checks it.

Written from the sources of vLLM 0.33: names and defaults of the arguments, what ``SamplingParams`` refuses, end tokens
that stay among an answer's ids.  It computes with transformers, row by row, from the directory that it is given: what
comes out is what the files hold.
"""

from __future__ import annotations

import json
import sys
import weakref
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, TypedDict

import pytest
import torch

from dormant import models

ENGINE_ARGUMENTS = {
    "dtype": ("auto", "half", "float16", "bfloat16", "float", "float32"),
    "load_format": ("auto", "safetensors"),
    "trust_remote_code": (False,),
    "generation_config": ("auto", "vllm"),
}
"""Arguments of the constructor with the values that are fit to pass; numbers are checked where they are used."""


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass
class SamplingParams:
    """Only the fields that the package sets, with vLLM's defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    detokenize: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature must be in [0, 2], got {self.temperature}.")
        assert self.temperature == 0 or self.temperature >= 0.01, "vLLM would raise it to 0.01"
        assert 0 <= (-1 if self.seed is None else self.seed) < 2**63
        assert {type(token) for token in self.stop_token_ids or ()} <= {int}
        assert (self.max_tokens or 0) >= 1
        assert (self.top_p, self.top_k, self.min_p) == (1.0, 0, 0.0), "not the full distribution"


class LLM:
    """Loads the directory as vLLM does: weights in ``dtype``, no generation settings of the model's own."""

    alive: ClassVar[weakref.WeakSet[LLM]] = weakref.WeakSet()
    """Those whose process would still run, and hold its memory."""
    rooms: ClassVar[list[int]] = []
    """How many tokens each one that was started had room for."""

    def __init__(
        self, model: str, *, max_model_len: int, max_num_seqs: int, seed: int, **options: Any
    ) -> None:
        for name, value in options.items():
            assert value in ENGINE_ARGUMENTS[name], f"{name}={value!r}"
        assert Path(model).is_dir(), "a hub name would be downloaded"
        assert max_num_seqs >= 1
        assert seed == 0
        self.alive.add(self)
        self.rooms.append(max_model_len)
        self.room = max_model_len
        self.known: dict[tuple[int, ...], torch.Tensor] = {}
        self.network = models.load(model, chat="plain", dtype=options["dtype"]).network
        tokenizer = json.loads((Path(model) / "tokenizer_config.json").read_text())
        longest = min(self.network.config.max_position_embeddings, tokenizer.get("model_max_length", 1 << 60))
        if self.room > longest:
            raise ValueError(f"User-specified max_model_len ({self.room}) is greater than the derived one")

    def generate(
        self,
        prompts: list[TokensPrompt],
        sampling_params: list[SamplingParams],
        *,
        use_tqdm: bool = True,
    ) -> list[Any]:
        if len(prompts) != len(sampling_params):
            raise ValueError("The lengths of prompts and sampling_params must be the same.")
        pairs = zip(prompts, sampling_params, strict=True)
        return [
            SimpleNamespace(outputs=[self._answer(prompt, params)], finished=True) for prompt, params in pairs
        ]

    @torch.inference_mode()
    def _logits(self, ids: tuple[int, ...]) -> torch.Tensor:
        if ids not in self.known:
            self.known[ids] = self.network(torch.tensor([ids])).logits[0, -1].float()
        return self.known[ids]

    def _answer(self, prompt: TokensPrompt, params: SamplingParams) -> SimpleNamespace:
        ids = list(prompt["prompt_token_ids"])
        assert all(type(token) is int for token in ids)
        if len(ids) >= self.room:
            raise ValueError(
                f"The decoder prompt (length {len(ids)}) is longer than the maximum model length"
            )
        assert (params.ignore_eos, params.detokenize) == (True, False)
        generator = torch.Generator().manual_seed(params.seed or 0)
        answer: list[int] = []
        while len(answer) < (params.max_tokens or 0) and len(ids) + len(answer) < self.room:
            logits = self._logits(tuple(ids + answer))
            if params.temperature == 0:
                token = int(logits.argmax())
            else:
                noise = torch.empty_like(logits).exponential_(generator=generator)
                token = int((torch.softmax(logits / params.temperature, 0) / noise).argmax())
            answer.append(token)
            if token in (params.stop_token_ids or ()):
                return SimpleNamespace(text="", token_ids=answer, finish_reason="stop", stop_reason=token)
        return SimpleNamespace(text="", token_ids=answer, finish_reason="length", stop_reason=None)


def install(patch: pytest.MonkeyPatch, device_type: str = "cpu") -> ModuleType:
    """Put the stand-in where ``import vllm`` finds it; real installations stay out of reach of the tests."""
    LLM.alive.clear()
    LLM.rooms.clear()
    package, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    package.__spec__ = ModuleSpec("vllm", None, is_package=True)
    package.__path__ = []
    for name, value in (("LLM", LLM), ("SamplingParams", SamplingParams), ("TokensPrompt", TokensPrompt)):
        setattr(package, name, value)
    platforms.current_platform = SimpleNamespace(device_type=device_type)  # type: ignore[attr-defined]
    package.platforms = platforms  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "vllm", package)
    patch.setitem(sys.modules, "vllm.platforms", platforms)
    return package
