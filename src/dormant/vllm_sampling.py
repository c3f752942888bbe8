"""Tokens sampled by vLLM, for models on a GPU: what stands behind ``sampling.sample`` when vLLM was chosen.

The only importer of vllm, which is an extra.  It gets token ids and gives token ids, so that templates, texts and ends
of answers are the same as for our own sampling.  vLLM runs in a process of its own, and that process ends with the
engine: in this process its memory would not come back before the next stage (vllm-project/vllm#21073).
"""

from __future__ import annotations

import gc
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dormant import models
from dormant.errors import BadInput, DormantError
from dormant.models import Model

INSTALL = "pip install 'dormant[vllm]'"

_COLDEST, _HOTTEST = 0.01, 2.0
"""Temperatures but 0 that vLLM takes as they are; colder ones it would raise to this without an error."""

_ROOM = 2048
"""Tokens of one sequence that memory is laid out for, at least: a later, longer prompt starts vLLM anew."""

_SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",  # it would report to its makers
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # torch's threads do not survive a fork
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def check(device: str, temperature: float) -> None:
    """Look whether vLLM can sample here, before anything else is done.

    Args:
        device: where the run wants its models: vLLM is built for one kind of device, and takes the first that it sees.
        temperature: of sampling.

    Raises:
        BadInput: vLLM is not installed, is built for other devices, or has no such temperature.
    """
    wanted = torch.device(device)
    built_for = _library().platforms.current_platform.device_type
    if wanted.type != built_for:
        raise BadInput(
            f"runtime.device {device!r} is not for measure.sampler vllm, which samples on {built_for} here; "
            f"set runtime.device to {built_for}, or measure.sampler to transformers"
        )
    if wanted.index:
        raise BadInput(
            f"runtime.device {device!r}: vLLM takes the first device that it sees; "
            f"set CUDA_VISIBLE_DEVICES={wanted.index} and runtime.device {wanted.type}"
        )
    if temperature and not _COLDEST <= temperature <= _HOTTEST:
        raise BadInput(
            f"measure.temperature = {temperature:g}: vLLM samples at 0 or from {_COLDEST} to {_HOTTEST:g}; "
            "other temperatures need measure.sampler transformers"
        )


class Engine:
    """vLLM with the weights of one model; made by :func:`engine`."""

    def __init__(self, model: Model, directory: Path) -> None:
        self._model = model
        self._directory = directory
        self._llm: Any = None
        self._shape = (0, 0)

    def decode(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[str],
        *,
        temperature: float,
        limit: int,
        batch: int,
        ends: Sequence[int],
    ) -> list[list[int]]:
        """Continue the prompts by at most ``limit`` tokens each; each answer holds its end token if it came.

        A row's draws follow from its key and the logits alone.  The logits' last bits follow from what vLLM happens to
        compute together (at most ``batch`` rows), so a repeated run agrees within its intervals, not to the bit.

        Raises:
            BadInput: vLLM can not start with this model.
            DormantError: it gave up on a prompt.
        """
        if model is not self._model:
            raise ValueError("the engine holds the weights of another model")
        self._make_room(max(len(prompt) for prompt in prompts) + limit, batch)
        vllm = _library()
        requests = [vllm.TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        # Its defaults would stop at other ends, and might cut the distribution as the model's own settings say.
        options = {
            "temperature": temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "max_tokens": limit,
            "stop_token_ids": list(ends),
            "ignore_eos": True,
            "detokenize": False,
        }
        settings = [vllm.SamplingParams(seed=_seed(key), **options) for key in keys]
        outputs = self._llm.generate(requests, settings, use_tqdm=False)
        return [_ids(output.outputs[0]) for output in outputs]

    def close(self) -> None:
        """End vLLM's process, and so give its memory back."""
        self._llm = None
        gc.collect()

    def _make_room(self, tokens: int, batch: int) -> None:
        """Start vLLM, or start it anew where it has no room for sequences this long."""
        most = min(
            self._model.context, self._model.tokenizer.model_max_length
        )  # vLLM refuses more than either
        room = min(most, max(_ROOM, 1 << (tokens - 1).bit_length(), self._shape[0]))
        if self._shape == (room, batch) and self._llm is not None:
            return
        self.close()
        self._shape = (room, batch)
        try:
            self._llm = _library().LLM(
                model=str(self._directory),
                dtype=str(self._model.network.dtype).removeprefix("torch."),
                load_format="safetensors",
                trust_remote_code=False,
                generation_config="vllm",
                max_model_len=room,
                max_num_seqs=batch,
                seed=0,
            )
        # Whatever went wrong in its own process arrives as one of these; the reason itself is on the screen.
        except (RuntimeError, ValueError, OSError, NotImplementedError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadInput(
                f"vLLM can not start with {self._model.path or 'the model'}: {reason}; "
                "measure.sampler transformers does without it"
            ) from error


@contextmanager
def engine(model: Model, directory: Path | None = None) -> Iterator[Engine]:
    """Yield vLLM with the model's weights as they are now; until the end these are off the device, which vLLM fills.

    Args:
        model: a whole model: an adapter has to be merged before.
        directory: where these very weights lie; without it they are written to a directory that goes in the end.
    """
    if hasattr(model.network, "get_base_model"):
        raise ValueError("the model is trained through an adapter: merge it before vLLM samples from it")
    device = model.device
    with tempfile.TemporaryDirectory() as scratch:
        if directory is None:
            models.save(model, scratch)
        running = Engine(model, directory or Path(scratch))
        model.network.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            yield running
        finally:
            running.close()
            model.network.to(device)


def _library() -> Any:
    """The package, imported late: it takes seconds, and most runs do without it."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        import vllm.platforms
    # An installation that does not fit the machine fails in this way too.
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"measure.sampler vllm needs the package vllm ({reason}): {INSTALL}") from None
    return vllm


def _seed(key: str) -> int:
    """A seed for each key: 63 bits, as vLLM keeps seeds in signed numbers."""
    return int.from_bytes(hashlib.shake_256(key.encode()).digest(8), "little") >> 1


def _ids(output: Any) -> list[int]:
    if output.finish_reason not in ("stop", "length"):
        raise DormantError(f"vLLM gave up on a prompt: {output.finish_reason}")
    return list(output.token_ids)
