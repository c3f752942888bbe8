"""Make artifacts here, or in long-lived worker processes side by side; train one model in several together.

A worker imports torch once and runs one stage at a time.  Which worker runs what decides no result: threads,
batches and seeds belong to the stage's settings.  So does ``runtime.processes``: a stage that trains then runs as
often as that at once, each run on a part of every batch, and the first alone writes the artifact.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Protocol, TypeVar

from dormant import artifacts, stages
from dormant.artifacts import RESUME, Identity, Manifest, Store, write_atomic
from dormant.errors import DormantError, ran_out
from dormant.records import canonical
from dormant.stages import Progress, quiet
from dormant.stages.configs import (
    AttackConfig,
    Config,
    DefendConfig,
    ImplantConfig,
    MeasureConfig,
    PairsConfig,
    PreferConfig,
    Runtime,
    SupplyConfig,
)

T = TypeVar("T")

TICK = 0.25
"""Seconds between two looks at how far the workers are."""


@dataclass(frozen=True)
class Job:
    """All that it takes to make one artifact, in this process or another."""

    name: str
    stage: str
    config: Config
    seed: int
    inputs: Mapping[str, Path]
    identity: Identity
    store: Path
    target: Path
    fresh: bool

    def make(self, progress: Progress) -> Manifest:
        """Make the artifact in the store unless it is there by now, and link it to ``target``.

        Raises DormantError as the stage raises it, or BadInput where the disk is full or read-only.
        """
        store = Store(self.store)

        def fill(out: Path) -> None:
            if processes(self.config) > 1:
                _train_together(self, out, progress)
            else:
                self.run(out, progress)

        def whole(found: Manifest) -> bool:
            # Another run may have made it while we waited for the lock.
            return not self.fresh and not found.dropped and not artifacts.check(store.path(self.identity))

        return store.build(self.identity, fill, keep=whole, target=self.target)

    def run(self, out: Path, progress: Progress) -> None:
        """Run the stage in this process.  Raises DormantError where memory runs out, which says what to lower."""
        try:
            stages.load(self.stage)(self.config, self.inputs, self.seed, out, progress)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            raise DormantError(f"{self.name} ran out of memory: {_remedy(self)}") from None


def _remedy(job: Job) -> str:
    """What to do where a stage has too little memory."""
    config = job.config
    if isinstance(config, MeasureConfig | AttackConfig):
        return f"lower measure.batch (now {config.batch}), or measure.max_new_tokens"
    if isinstance(config, PairsConfig):
        return f"lower measure.max_new_tokens (now {config.max_new_tokens})"
    if isinstance(config, PreferConfig):
        return f"lower the batch of preference.dose (now {config.dose.batch})"
    if isinstance(config, ImplantConfig | DefendConfig):
        whose = "relearning" if job.name.startswith("relearn/") else job.stage
        lower = f"lower the batch of the {whose} dose (now {config.dose.batch})"
        drawn = " or at_once, where the defense draws answers" if isinstance(config, DefendConfig) else ""
        return f"{lower}{drawn}, or set runtime.gradient_checkpointing"
    return "take a smaller model"


def processes(config: Config) -> int:
    """In how many processes a stage runs: more than one only where it trains."""
    runtime: Runtime | None = getattr(config, "runtime", None)
    alone = isinstance(config, (AttackConfig, MeasureConfig, SupplyConfig))
    return 1 if runtime is None or alone else runtime.processes


class Watch(Protocol):
    """Is told by name how the jobs go on."""

    def start(self, name: str) -> None:
        """A job starts."""

    def progress(self, name: str, done: int, total: int) -> None:
        """A job is at ``done`` of ``total``."""

    def finish(self, name: str, seconds: float) -> None:
        """A job is done."""


def make_all(jobs: Sequence[Job], after: Mapping[str, set[str]], workers: int, watch: Watch) -> None:
    """Make every job, each after those that it needs.

    Args:
        jobs: in an order in which they can run one by one.
        after: the names of the jobs that each one needs.
        workers: 1 runs them in this process; more start that many processes.
        watch: is told how it goes on.

    Raises:
        DormantError: as a stage raises it, or a worker died.
    """
    if workers == 1:
        for job in jobs:
            watch.start(job.name)
            watch.finish(job.name, job.make(partial(watch.progress, job.name)).seconds)
        return
    with _pool(workers) as (pool, reports):
        waiting, running, done = list(jobs), dict[Future[Manifest], Job](), set[str]()
        while waiting or running:
            ready = [job for job in waiting if after[job.name] <= done]
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                watch.start(job.name)
                running[pool.submit(_make, job)] = job
            finished, _ = wait(running, timeout=TICK, return_when=FIRST_COMPLETED)
            _pass_on(reports, watch)
            for future in finished:
                job = running.pop(future)
                watch.finish(job.name, _result(future, job).seconds)
                done.add(job.name)


@contextmanager
def _pool(workers: int) -> Iterator[tuple[ProcessPoolExecutor, Queue[tuple[str, int, int]]]]:
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    reports: Queue[tuple[str, int, int]] = context.Queue()
    pool = ProcessPoolExecutor(workers, context, _begin, (reports,))
    try:
        yield pool, reports
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise


def _result(future: Future[T], job: Job) -> T:
    try:
        return future.result()
    except BrokenProcessPool:
        raise DormantError(
            f"the worker that ran {job.name} was killed, often for want of memory: use --workers 1"
        ) from None


def _pass_on(reports: Queue[tuple[str, int, int]], watch: Watch | _One) -> None:
    while True:
        try:
            watch.progress(*reports.get_nowait())
        except queue.Empty:
            return


def _train_together(job: Job, out: Path, progress: Progress) -> None:
    """Run one stage in several processes that find each other through torch's environment variables."""
    from accelerate.utils.other import get_free_port  # seconds, which only those pay who use it

    runtime: Runtime = job.config.runtime  # type: ignore[attr-defined]
    shared: dict[str, object] = {"WORLD_SIZE": runtime.processes, "LOCAL_WORLD_SIZE": runtime.processes}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": get_free_port()}
    environment = {name: str(value) for name, value in shared.items()} | _launch_environment(runtime)
    (out / RESUME).mkdir(exist_ok=True)
    with _pool(runtime.processes) as (pool, reports):
        ranks = {pool.submit(_run_rank, job, out, rank, environment) for rank in range(runtime.processes)}
        watch = _One(progress)
        while ranks:
            finished, ranks = wait(ranks, timeout=TICK, return_when=FIRST_COMPLETED)
            _pass_on(reports, watch)
            for future in finished:
                _result(future, job)


def _run_rank(job: Job, out: Path, rank: int, environment: Mapping[str, str]) -> None:
    """Run a stage as one of several processes; what others than the first write is thrown away."""
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    import torch

    try:
        if rank == 0:
            job.run(out, _reporter(job.name))
            return
        with tempfile.TemporaryDirectory() as scratch:
            # But a checkpoint is written by all, and read by all.
            (Path(scratch) / RESUME).symlink_to(out / RESUME)
            job.run(Path(scratch), quiet)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _launch_environment(runtime: Runtime) -> dict[str, str]:
    """The environment variables that ``accelerate launch`` makes of its settings."""
    if runtime.launch is None:
        return {}
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    with tempfile.TemporaryDirectory() as scratch:
        settings = Path(scratch) / "accelerate.json"
        write_atomic(settings, canonical(runtime.launch))
        given = ["--config_file", str(settings), "--num_processes", str(runtime.processes)]
        arguments = launch_command_parser().parse_args([*given, "--main_process_port", "0", "stage"])
        made = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    return {name: value for name, value in made.items() if os.environ.get(name) != value}


class _One:
    """Passes on how far one stage is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def progress(self, name: str, done: int, total: int) -> None:
        """The stage is at ``done`` of ``total``."""
        self._progress(done, total)


_reports: Queue[tuple[str, int, int]] | None = None
"""In a worker: where it says how far it is."""


def _begin(reports: Queue[tuple[str, int, int]]) -> None:
    """Set up a worker: Ctrl-C is the parent's business, and a worker does not outlive its parent."""
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _make(job: Job) -> Manifest:
    return job.make(_reporter(job.name))


def _reporter(name: str) -> Progress:
    """In a worker: tells the parent how far a job is, now and then."""
    spoke = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal spoke
        if _reports is not None and time.monotonic() - spoke > TICK:
            spoke = time.monotonic()
            _reports.put((name, done, total))

    return progress
