"""What results depend on outside of any model: threads and the choice of kernels."""

from __future__ import annotations

import torch

from dormant.stages.configs import Runtime


def prepare(runtime: Runtime) -> None:
    """Set torch up so that equal settings give equal bits on one machine."""
    torch.set_num_threads(runtime.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
