"""How training stages open the model that they train, and keep it at the steps that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from dormant import adapters, models
from dormant.errors import DormantError
from dormant.stages import adapter_directory, step_directory
from dormant.stages.configs import DefendConfig, ImplantConfig, Lora, Runtime
from dormant.training.sft import Compute


def open_model(config: ImplantConfig | DefendConfig, inputs: Mapping[str, Path], seed: int) -> models.Model:
    """Load what is to be trained: all weights, a new adapter, or the adapter among the inputs.

    Raises:
        BadInput: the model or the adapter can not be used, or they do not belong together.
    """
    # Of several processes each takes the model, or its share, to a device of its own.
    device = config.runtime.device if config.runtime.processes == 1 else "cpu"
    model = models.load(inputs["model"], chat=config.chat, device=device)
    if "adapter" in inputs:
        return adapters.continued(model, inputs["adapter"])
    shape = new_adapter(config)
    return adapters.attach(model, as_shape(shape), seed=seed) if shape else model


def new_adapter(config: ImplantConfig | DefendConfig) -> Lora | None:
    """The adapter that the stage begins with, if it is not to train all weights or an adapter that is there."""
    if isinstance(config, DefendConfig):
        return config.adapter if config.lora == "merged" else None
    return config.lora


def saver(out: Path) -> Callable[[int, models.Model], None]:
    """What training calls at a step: writes the model, and by itself the adapter that it was trained through.

    It raises DormantError for weights that are not finite.
    """

    def save(step: int, model: models.Model) -> None:
        adapted = adapters.is_adapted(model)
        whole = adapters.merged(model) if adapted else model
        # The loss before the last update says nothing of it.
        if not all(torch.isfinite(weights).all() for weights in whole.network.parameters()):
            raise DormantError(f"the weights are not finite after step {step}: lower the learning rate")
        if adapted:
            adapters.save(model, out / adapter_directory(step))
        models.save(whole, out / step_directory(step))

    return save


def compute(runtime: Runtime) -> Compute:
    """How training uses the machine."""
    return Compute(
        bf16=runtime.precision == "bfloat16",
        compile=runtime.compile,
        gradient_checkpointing=runtime.gradient_checkpointing,
        report_to=runtime.report_to,
        device=runtime.device,
    )


def as_shape(lora: Lora) -> adapters.Shape:
    """The settings of an adapter as the adapters module takes them."""
    return adapters.Shape(lora.rank, lora.alpha, lora.dropout, lora.targets)
