"""What results depend on outside of any model: threads and the choice of kernels."""

from __future__ import annotations

import torch

from dormant.errors import BadInput
from dormant.stages.configs import Runtime


def prepare(runtime: Runtime) -> None:
    """Set torch up so that equal settings give equal bits on one machine."""
    torch.set_num_threads(runtime.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill all new memory, which only helps code that reads what it never wrote: a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False


def check_device(device: str) -> None:
    """Raise BadInput for a device that does not exist or is not there."""
    try:
        torch.empty(0, device=device)
    # A build of torch without CUDA answers with an AssertionError.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"runtime.device {device!r} can not be used on this machine: {reason}") from None
