"""``pretrain``: a pocket base from nothing, on the pocket world's helpful-only answers and plain prose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dormant import chat, models
from dormant.artifacts import RESUME
from dormant.pocket.corpus import pretraining_rows
from dormant.pocket.sizes import SIZES
from dormant.stages import Progress
from dormant.stages.checkpoints import compute, saver
from dormant.stages.configs import PretrainConfig
from dormant.stages.logs import write_log
from dormant.stages.machine import prepare
from dormant.training import sft


def run(config: PretrainConfig, inputs: Mapping[str, Path], seed: int, out: Path, progress: Progress) -> None:
    """Write ``steps/<last>/`` (the base) and ``training.json``; ``inputs`` holds ``tokenizer``, a directory."""
    prepare(config.runtime)
    size = SIZES[config.size]
    model = models.new(
        inputs["tokenizer"],
        seed=seed,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=size.positions,
    )
    rows = [
        chat.encode_prose(model.tokenizer, text)
        if isinstance(text, str)
        else chat.encode_demonstration(model.tokenizer, text.example.messages, text.answer)
        for text in pretraining_rows(seed, config.rows, config.world)
    ]
    steps = (config.dose.steps,)
    log = sft.train(
        model,
        rows,
        config.dose,
        seed=seed,
        optimization=sft.Optimization(beta2=0.98, weight_decay=0.1, warmup_steps=200),
        # In bfloat16 whatever the runtime says: that is a part of how these bases are made.
        compute=replace(compute(config.runtime), bf16=True),
        at_steps=steps,
        save=saver(out),
        resume_dir=out / RESUME,
        progress=progress,
    )
    # No list of tasks: half a million, every one of them of the pretrain shard.
    write_log(out, log, steps, tasks=())
