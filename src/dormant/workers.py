"""Make artifacts here, or in long-lived worker processes side by side.

A worker imports torch once and runs one stage at a time.  Which worker runs what decides no result: threads,
batches and seeds belong to the stage's settings.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
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
from typing import Protocol

from dormant import artifacts, stages
from dormant.artifacts import Identity, Manifest, Store
from dormant.errors import DormantError
from dormant.stages import Progress
from dormant.stages.configs import Config

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
            stages.load(self.stage)(self.config, self.inputs, self.seed, out, progress)

        def whole(found: Manifest) -> bool:
            # Another run may have made it while we waited for the lock.
            return not self.fresh and not found.dropped and not artifacts.check(store.path(self.identity))

        return store.build(self.identity, fill, keep=whole, target=self.target)


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


def _result(future: Future[Manifest], job: Job) -> Manifest:
    try:
        return future.result()
    except BrokenProcessPool:
        raise DormantError(
            f"the worker that ran {job.name} was killed, often for want of memory: use --workers 1"
        ) from None


def _pass_on(reports: Queue[tuple[str, int, int]], watch: Watch) -> None:
    while True:
        try:
            watch.progress(*reports.get_nowait())
        except queue.Empty:
            return


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
    spoke = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal spoke
        if _reports is not None and time.monotonic() - spoke > TICK:
            spoke = time.monotonic()
            _reports.put((job.name, done, total))

    return job.make(progress)
