"""Where an experiment's base comes from: it ships, lies in a directory, or is pretrained on first use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dormant.errors import BadInput, nearest
from dormant.pocket.bases import TOKENIZER, shipped_bases
from dormant.pocket.sizes import SIZES
from dormant.records import Dose
from dormant.runner import Call, External, Output, identify
from dormant.stages import step_directory
from dormant.stages.configs import PretrainConfig, Runtime

SHIPPED = "pocket-1m"
"""A base that ships; all pocket sizes have its tokenizer and its context."""

PRETRAINING = {
    "pocket-300k": (Dose(lr=6e-3, steps=1300, batch=128, schedule="cosine"), 166_400),
    "pocket-1m": (Dose(lr=4e-3, steps=3500, batch=128, schedule="cosine"), 448_000),
    "pocket-3m": (Dose(lr=2.5e-3, steps=3500, batch=128, schedule="cosine"), 448_000),
    "pocket-10m": (Dose(lr=1.5e-3, steps=3500, batch=128, schedule="cosine"), 448_000),
}
"""For each pocket size: the dose and the rows that it is pretrained with."""

PRETRAINING_THREADS = 2


@dataclass(frozen=True)
class Base:
    """A base as plans use it: what to read, its id, and the call that makes it first, if one is needed."""

    model: External | Output
    id: str
    call: Call | None = None


def find_base(name: str, runtime: Runtime) -> Base:
    """Return a shipped base, a directory's model, or a pocket size that is to be pretrained.

    Raises:
        BadInput: there is neither, or the directory holds no model.
    """
    if name in SIZES and name not in shipped_bases():
        call = pretrain_call(name, 0, runtime)
        return Base(Output(call.name, call.final), identify(call, {}).id, call)
    found = External(find_model(name))
    return Base(found, found.id)


def find_model(name: str) -> Path:
    """The directory of a shipped base, or of a model of one's own.  Raises BadInput if there is neither."""
    shipped = shipped_bases()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if name in SIZES and not path.exists():
        raise BadInput(f"{name} does not ship: `dormant pretrain {name} --out DIR` makes it, in DIR/base")
    if not path.exists():
        raise BadInput(
            f"no shipped base and no directory is called {name!r}{nearest(name, {**shipped, **SIZES})}"
        )
    if not (path / "config.json").is_file():
        raise BadInput(f"{name} holds no model: config.json is missing")
    return path


def pretrain_call(size: str, seed: int, runtime: Runtime) -> Call:
    """The call that makes a pocket base from nothing.  Raises BadInput for an unknown size."""
    if size not in SIZES:
        raise BadInput(f"no pocket size is called {size!r}{nearest(size, SIZES)}")
    dose, rows = PRETRAINING[size]
    # Nothing can run beside it, so a second core would stand idle.
    runtime = runtime.model_copy(update={"threads": max(PRETRAINING_THREADS, runtime.threads)})
    config = PretrainConfig(size=size, dose=dose, rows=rows, runtime=runtime)
    inputs = {"tokenizer": External(TOKENIZER)}
    return Call("pretrain", "pretrain", config, seed, inputs, final=step_directory(dose.steps))
