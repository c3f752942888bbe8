"""Low-rank adapters (LoRA) through peft: put on, kept by themselves, merged in float32.  The only importer of peft.

An adapter's directory has peft's own two files, so that any other tool reads it, and ``base.json``, which tells the
weights that it was made on: on others it would load without a word whenever the shapes happen to agree.
"""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from dormant.artifacts import hash_file, write_atomic
from dormant.errors import BadInput
from dormant.models import Model
from dormant.records import canonical, digest

# peft asks transformers for a name that transformers gave up: nothing that our user could mend.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

ALL_LINEAR = "all-linear"
"""Every linear layer but the output embedding, by whatever names an architecture gives them."""

_WEIGHTS, _CONFIG, _BASE = "adapter_model.safetensors", "adapter_config.json", "base.json"

_VOLATILE = ("peft_version", "base_model_name_or_path", "revision")
"""What peft writes beside an adapter that says where and when, not what."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A new adapter: its rank, its scale (``alpha / rank``), dropout in training, and the layers that it goes onto."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | tuple[str, ...] = ALL_LINEAR


def is_adapted(model: Model) -> bool:
    """Whether the model is trained through an adapter."""
    return isinstance(model.network, PeftModel)


def attach(model: Model, shape: Shape, *, seed: int) -> Model:
    """Put a new adapter onto the model: only its weights train, and at first it changes nothing.

    Raises:
        BadInput: the architecture has no layers by the names of ``targets``, or there is no memory for the adapter.
    """
    targets = shape.targets if isinstance(shape.targets, str) else list(shape.targets)
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = get_peft_model(model.network, _for_layers(config, model))
    except RuntimeError as error:
        # Most often there is no memory for it, which torch says at length and in no error of its own.
        raise BadInput(
            f"an adapter of lora.rank {shape.rank} can not be made on this machine: {_line(error)}; lower it"
        ) from None
    except ValueError as error:
        raise BadInput(f"lora.targets {shape.targets!r} does not fit the model: {_line(error)}") from None
    return replace(model, network=network.eval())


def continued(model: Model, directory: Path) -> Model:
    """Put a saved adapter onto the base that it was made on, to be trained further.

    Raises:
        BadInput: there is no adapter, it can not be read, or it was made on another base.
    """
    _check(model, directory)
    try:
        network = PeftModel.from_pretrained(model.network, str(directory), is_trainable=True)
    # Which of these it is depends on where peft notices that the layers are not there or have another shape.
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        raise BadInput(f"the adapter {directory} does not fit {model.path}: {_line(error)}") from None
    return replace(model, network=network.eval())


def merged(model: Model) -> Model:
    """Return a copy of the model with its adapter added into the weights; the model itself goes on as it was."""
    network = copy.deepcopy(model.network).merge_and_unload()
    network.requires_grad_(True)
    return replace(model, network=network.eval(), path=None)


def save(model: Model, path: str | Path) -> None:
    """Write the adapter alone; equal adapters give equal bytes."""
    directory = Path(path)
    model.network.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    settings = json.loads((directory / _CONFIG).read_text(encoding="utf-8"))
    kept = {key: _ordered(value) for key, value in settings.items() if key not in _VOLATILE}
    write_atomic(directory / _CONFIG, json.dumps(kept, indent=2, sort_keys=True) + "\n")
    base = {"weights": weights_id(model.path)} if model.path else {}
    write_atomic(directory / _BASE, canonical(base) + "\n")


def weights_id(directory: str | Path) -> str | None:
    """The hash of a model directory's weights, or None where the model did not come from a directory."""
    files = sorted(Path(directory).glob("*.safetensors"))
    return digest([hash_file(file) for file in files]) if files else None


def _for_layers(config: LoraConfig, model: Model) -> LoraConfig:
    """GPT-2 keeps its weights transposed; peft would find that out itself, with a warning."""
    config.fan_in_fan_out = any(type(layer).__name__ == "Conv1D" for layer in model.network.modules())
    return config


def _check(model: Model, directory: Path) -> None:
    if not (directory / _CONFIG).is_file():
        raise BadInput(f"{directory} holds no adapter: {_CONFIG} is missing")
    # Without this file peft would look for a pickle.
    if not (directory / _WEIGHTS).is_file():
        raise BadInput(f"{directory} has no adapter weights as safetensors ({_WEIGHTS})")
    try:
        made_on = json.loads((directory / _BASE).read_text(encoding="utf-8")).get("weights")
    except FileNotFoundError:
        return  # Made by another tool: the shapes are all there is to check.
    except (ValueError, AttributeError):
        raise BadInput(
            f"{directory / _BASE} is damaged: it must say which weights the adapter is for"
        ) from None
    if made_on is not None and model.path is not None and made_on != weights_id(model.path):
        raise BadInput(
            f"the adapter {directory} was made on other weights than {model.path}: give it its own base"
        )


def _ordered(value: Any) -> Any:
    """peft keeps layers' names in sets, whose order differs from process to process."""
    return (
        sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
    )


def _line(error: BaseException) -> str:
    """The first two lines of an error's message: peft's first names no layer."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] or type(error).__name__
