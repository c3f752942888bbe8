"""What results depend on outside of any model: threads and the choice of kernels."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys

import torch

from dormant.errors import BadInput, nearest
from dormant.stages.configs import Runtime

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices; a number may follow: ``cuda:1``."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The names of glibc's ``malloc.h``."""


def prepare(runtime: Runtime) -> None:
    """Set torch up so that equal settings give equal bits on one machine."""
    torch.set_num_threads(runtime.threads)
    # What cuBLAS asks for before its products repeat; it reads this when the first one is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill all new memory, which only helps code that reads what it never wrote: a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_memory()


def _keep_memory() -> None:
    """Let glibc keep freed memory for the next tensor of that size, up to 32 MiB each.

    Else it gives every large one back at once, and the next is paid for again, page by page: a quarter of the
    time of sampling from a small model.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 25)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def check_compiler(device: str) -> None:
    """Raise BadInput where ``torch.compile`` would find no compiler for its code."""
    if device == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise BadInput("runtime.compile needs a C++ compiler (g++ or clang++): install one, or leave it out")


def check_device(device: str, processes: int = 1) -> None:
    """Raise BadInput for a device that does not exist, is not there, or not once for each process."""
    refused = f"runtime.device {device!r} can not be used on this machine"
    kind = device.partition(":")[0]
    if kind not in DEVICES:
        raise BadInput(f"{refused}: no device is called so{nearest(kind, DEVICES)}")
    try:
        torch.empty(0, device=device)
    # A build without the device answers with one of the first two, and at length.
    except (AssertionError, NotImplementedError):
        raise BadInput(
            f"{refused}: this torch is built without {kind}; runtime.device cpu always works"
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise BadInput(f"{refused}: {reason}; runtime.device cpu always works") from None
    found = processes if kind == "cpu" else torch.get_device_module(device).device_count()
    if found < processes:
        raise BadInput(
            f"runtime.processes {processes} asks for as many devices, but this machine has {found} ({device})"
        )
