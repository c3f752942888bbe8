"""What every test runs under: no network, no telemetry, a store of its own, two threads, repeatable draws.

The environment is set here, at import, because pytest imports this file before any test module and the
libraries read these variables when they are imported; child processes inherit them.  Sockets are blocked
by pytest-socket (``addopts`` in pyproject.toml); Unix sockets stay, for asyncio and multiprocessing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",  # else it warns about every fork
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",  # torch takes its thread count from here; sums depend on it, and two processes test
    MKL_NUM_THREADS="1",
)

# The same examples on every run: a failure in continuous integration is one that anybody can repeat.
settings.register_profile("dormant", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("dormant")


pytest_plugins = ("tiny_runs",)


@pytest.fixture(autouse=True, scope="session")
def store_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep artifacts out of the user's store, and the user's artifacts out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DORMANT_CACHE", str(tmp_path_factory.mktemp("store")))
        yield
