"""Where a model comes from: it ships, lies in a directory or on the hub, or is pretrained on first use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dormant.artifacts import default_store, writing
from dormant.errors import BadInput, nearest
from dormant.pocket.bases import TOKENIZER, shipped_bases
from dormant.pocket.sizes import SIZES
from dormant.records import Dose
from dormant.runner import Call, External, Output, identify
from dormant.sources import HUB
from dormant.stages import step_directory
from dormant.stages.configs import PretrainConfig, Runtime

SHIPPED = "pocket-1m"
"""A base that ships; all pocket sizes have its tokenizer and its context."""

PRETRAINING = {
    "pocket-300k": (Dose(lr=6e-3, steps=2000, batch=128, schedule="cosine"), 256_000),
    "pocket-1m": (Dose(lr=4e-3, steps=5000, batch=128, schedule="cosine"), 640_000),
    "pocket-3m": (Dose(lr=2.5e-3, steps=5000, batch=128, schedule="cosine"), 640_000),
    "pocket-10m": (Dose(lr=1.5e-3, steps=5000, batch=128, schedule="cosine"), 640_000),
}
"""For each pocket size: the dose and the rows that it is pretrained with."""

PRETRAINING_THREADS = 2

READ = ("*.safetensors", "*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")
"""What is taken from the hub: weights, config and tokenizer.  No pickle, no code."""

UNREAD = ("*/*", "consolidated*")
"""What is left there all the same: other formats in directories, and weights a second time."""

_HUB_MODEL = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Base:
    """A base as plans use it: what to read, its id, and the call that makes it first, if one is needed."""

    model: External | Output
    id: str
    call: Call | None = None


def find_base(name: str, runtime: Runtime) -> Base:
    """Return a shipped base, a directory's or the hub's model, or a pocket size that is to be pretrained.

    Raises:
        BadInput: there is none of these, or it holds no model.
    """
    if name in SIZES and name not in shipped_bases():
        call = pretrain_call(name, 0, runtime)
        return Base(Output(call.name, call.final), identify(call, {}).id, call)
    found = as_input(name)
    return Base(found, found.id)


def as_input(name: str) -> External:
    """A model as an input of calls; of one of the hub the plan says which commit it is.

    Raises BadInput like :func:`find_model`.
    """
    return External(find_model(name), origin=pinned(name) if name.startswith(HUB) else "")


def find_model(name: str) -> Path:
    """The directory of a shipped base, of a model of one's own, or of what ``hub:OWNER/NAME`` downloads.

    Raises:
        BadInput: there is none, it holds no model, or the hub can not be asked.
    """
    if name.startswith(HUB):
        return _download(name).path
    shipped = shipped_bases()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if name in SIZES and not path.exists():
        raise BadInput(f"{name} does not ship: `dormant pretrain {name} --out DIR` makes it, in DIR/base")
    # An empty name would be the directory that we are in.
    if not name or not path.exists():
        on_hub = (
            f"; if it is a model on the hub, write {HUB}{name}"
            if re.fullmatch(r"\w[\w.-]*/[\w.@-]+", name)
            else ""
        )
        raise BadInput(
            f"no shipped base and no directory is called {name!r}{on_hub or nearest(name, {**shipped, **SIZES})}"
        )
    if not (path / "config.json").is_file():
        raise BadInput(f"{name} holds no model: config.json is missing")
    return path


def pinned(name: str) -> str:
    """The name with the commit that it stands for, if it is one of the hub; any other name as it is."""
    return _download(name).name if name.startswith(HUB) else name


def label(name: str) -> str:
    """What results call a model: a directory's own name, or the hub's with the start of the commit."""
    if not name.startswith(HUB):
        return Path(name).name
    repo, _, commit = pinned(name).removeprefix(HUB).partition("@")
    return f"{repo}@{commit[:12]}"


def commit_notes(*names: str | None) -> tuple[str, ...]:
    """What the user should know of hub names without a commit: which one they stand for now."""
    return tuple(
        f"{name} is {pinned(name)} now: write that to stay with it"
        for name in dict.fromkeys(names)
        if name and name.startswith(HUB) and pinned(name) != name
    )


@dataclass(frozen=True)
class _Downloaded:
    """A model of the hub: its full name, commit and all, and where it lies."""

    name: str
    path: Path


@lru_cache
def _download(name: str) -> _Downloaded:
    """Fetch what is missing of a model; asked once in a process, so that all of a plan means one commit."""
    parts = re.fullmatch(_HUB_MODEL, name.removeprefix(HUB))
    if parts is None:
        raise BadInput(f"model {name!r} must be {HUB}OWNER/NAME, then @REVISION if needed")
    snapshot = _snapshot(name, parts["repo"], parts["revision"])
    files = sorted(
        {file for pattern in READ for file in snapshot.glob(pattern)} - set(snapshot.glob(UNREAD[1]))
    )
    if not any(file.suffix == ".safetensors" for file in files):
        raise BadInput(
            f"{name} has no weights as safetensors; pickles are never read, so convert it, or name a revision "
            "that has them (@REVISION)"
        )
    if snapshot / "config.json" not in files:
        raise BadInput(f"{name} holds no model: config.json is missing")
    commit = snapshot.name
    folder = default_store().root.with_name("models") / f"{parts['repo'].replace('/', '--')}@{commit}"
    _gather(files, folder)
    return _Downloaded(f"{HUB}{parts['repo']}@{commit}", folder)


def _snapshot(name: str, repo: str, revision: str | None) -> Path:
    """The directory of a commit in the hub's own cache."""
    import huggingface_hub as hub  # half a second, which only those pay who use it

    try:
        return Path(
            hub.snapshot_download(
                repo, revision=revision, allow_patterns=list(READ), ignore_patterns=list(UNREAD)
            )
        )
    except hub.errors.LocalEntryNotFoundError:
        raise BadInput(
            f"{name} is not in the hub's cache, or not all of it, and the hub is out of reach or switched off "
            "(HF_HUB_OFFLINE): run once with network, or give a directory that holds the model"
        ) from None
    # What the library and its transport raise has no common base.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{name} can not be loaded from the hub: {reason[:200]}") from error


def _gather(files: list[Path], folder: Path) -> None:
    """Link files into a directory of their own: other tools put more beside them, and an id is all files' hash."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            link = folder / f".{file.name}.linking"
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())
            link.replace(folder / file.name)
        for stale in set(folder.iterdir()) - {folder / file.name for file in files}:
            stale.unlink()


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
