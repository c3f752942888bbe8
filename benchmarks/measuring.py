"""What the measurements on a GPU share: a budget of time, the device's clock, memory, and the form of a result."""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from bench import random_model

from dormant.pocket.sizes import Size
from dormant.stages import machine
from dormant.stages.configs import Runtime


class OutOfTime(Exception):
    """The budget is used up; what was measured until then stands."""


class Budget:
    """Seconds that may be used."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + seconds

    def check(self) -> None:
        """Raise OutOfTime where nothing is left."""
        if self._clock() >= self._end:
            raise OutOfTime


class Stopwatch:
    """Moments on the device's own clock, so that nothing has to wait for them to be taken."""

    def __init__(self, device: str) -> None:
        self._cuda = torch.device(device).type == "cuda"
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Take a moment: for CUDA when the work given so far will be done."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def laps(self) -> list[float]:
        """Seconds between neighbouring moments."""
        if self._cuda:
            torch.cuda.synchronize()
            return [before.elapsed_time(after) / 1000 for before, after in pairwise(self._marks)]
        return [after - before for before, after in pairwise(self._marks)]


@dataclass(frozen=True)
class Figure:
    """One line of the result; ratios above 1 say that ours is faster."""

    item: str
    what: str
    unit: str = ""
    ours: float | None = None
    stock: float | None = None
    ratio: float | None = None
    mfu: float | None = None
    """Of ours, against the measured peak."""
    stock_mfu: float | None = None
    memory_gb: float | None = None
    """Peak of ours: the GPU's; on a CPU of this process since it began, whoever asked for it."""
    same: bool = True
    """Whether both sides did the same; where they did not, a ratio means nothing."""
    check: str = ""


@dataclass(frozen=True)
class Bench:
    """What is measured where, at which size."""

    device: str
    tiny: bool
    repeats: int
    budget: Budget
    scratch: Path

    @property
    def dtype(self) -> Any:
        """Of the arithmetic."""
        return torch.float32 if self.device == "cpu" else torch.bfloat16

    def model(self, name: str, size: Size) -> Path:
        """The directory of a random model of this size, made once."""
        place = self.scratch / name
        return place if place.is_dir() else random_model(size, place)

    def as_in_a_stage(self) -> None:
        """Set torch up as stages do: deterministic, where it can."""
        machine.prepare(Runtime(device=self.device, threads=torch.get_num_threads()))

    def memory_gb(self) -> float:
        """Peak memory in GB; see :class:`Figure`."""
        if self.device == "cpu":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return torch.cuda.max_memory_allocated() / 1e9

    def release(self) -> None:
        """Begin anew: nothing of before stays in the GPU's memory or its peak."""
        gc.collect()  # Trainers hold themselves, and their optimizer with them.
        if self.device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def rate(bench: Bench, work: Callable[[], None], n: int) -> float:
    """How many of ``n`` are done a second: the median of the repeats, after one that is not timed."""
    bench.budget.check()
    work()
    watch = Stopwatch(bench.device)
    for _ in range(bench.repeats):
        bench.budget.check()
        watch.mark()
        work()
    watch.mark()
    return n / statistics.median(watch.laps())
