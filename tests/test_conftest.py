"""The guards of the suite itself: they must bite, and must not break what the package needs."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from pytest_socket import SocketBlockedError


@pytest.mark.filterwarnings("ignore:A test tried to use")
def test_the_network_is_blocked() -> None:
    with pytest.raises(SocketBlockedError):
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def test_asyncio_still_works() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert asyncio.run(answer()) == 42


def test_multiprocessing_still_works() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(abs, (-42,)) == 42


def test_the_store_is_not_the_users() -> None:
    store = Path(os.environ["DORMANT_CACHE"])
    assert store.is_dir()
    assert Path.home() not in store.parents, "tests must never read or fill the user's own store"


def test_child_processes_inherit_the_offline_switch() -> None:
    code = "import os; print(os.environ['HF_HUB_OFFLINE'], os.environ['OMP_NUM_THREADS'])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == ["1", "1"]


def test_hypothesis_repeats_itself() -> None:
    assert settings.default is not None
    assert settings.default.derandomize
    assert settings.default.deadline is None
