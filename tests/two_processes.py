"""Two processes that train one model on CPUs, over gloo: started by tests, imported by what they start."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Literal

from accelerate.utils.other import get_free_port
from torch.distributed.fsdp import FSDPModule

from dormant import adapters, models
from dormant.records import Dose
from dormant.stages.configs import Runtime
from dormant.training import sft
from dormant.workers import _launch_environment
from small_models import tiny
from test_training import some_rows

DOSE = Dose(lr=1e-3, steps=12, batch=4)
MOST = 300  # seconds

Mode = Literal["copies", "shards"]


def train(place: Path, *, mode: Mode | None = None, lora: bool = False, stop: int | None = None) -> None:
    """Train the tiny model and leave ``model/``, ``half/``, ``losses.json`` in ``place``; maybe stop before the end."""
    model = tiny()
    if lora:
        model = adapters.attach(model, adapters.Shape(rank=4, alpha=8), seed=0)

    def save(step: int, whole: models.Model) -> None:
        assert not whole.network.training
        kept = adapters.merged(whole) if lora else whole
        place.mkdir(exist_ok=True)
        with (place / "saved.txt").open("a") as log:
            log.write(f"{step} by {os.environ.get('RANK', '0')}\n")
        models.save(kept, place / ("model" if step == DOSE.steps else "half"))

    def progress(done: int, total: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    try:
        log = sft.train(
            model,
            some_rows(),
            DOSE,
            seed=0,
            at_steps=(6, DOSE.steps),
            save=save,
            resume_dir=place / "resume",
            resume_every=4,
            compute=sft.Compute(device="cuda" if mode == "shards" else "cpu"),
            progress=progress,
        )
    except KeyboardInterrupt:
        return
    assert isinstance(model.network, FSDPModule) == (mode == "shards")
    # Every process knows the loss of the whole batch.
    (place / f"losses-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(log.losses))


def train_together(place: Path, *, mode: Mode, lora: bool = False, stop: int | None = None) -> None:
    """The same in two processes, which hold copies of the weights or shards of them."""
    port = get_free_port()
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=_rank, args=(rank, port, place, mode, lora, stop), daemon=True)
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(MOST)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    assert codes == [0, 0]


def _rank(rank: int, port: int, place: Path, mode: Mode, lora: bool, stop: int | None) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1"
    )
    os.environ["MASTER_PORT"] = str(port)
    import torch

    torch.set_num_threads(1)
    if mode == "shards":
        os.environ.update(_launch_environment(Runtime(device="cuda", processes=2, launch="fsdp")))
        _shard_on_cpus()
    train(place, mode=mode, lora=lora, stop=stop)
    torch.distributed.destroy_process_group()


def _shard_on_cpus() -> None:
    """Let accelerate take CPUs for GPUs: on CPUs it knows copies only, though torch shards there too."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda *a, **k: ("gloo", DistributedType.MULTI_GPU)
